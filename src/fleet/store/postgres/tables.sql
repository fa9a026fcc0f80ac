-- The units of a fleet. The text of a unit is its file; passwords are in there.
CREATE TABLE IF NOT EXISTS migdb_units (
    name  text COLLATE "C" PRIMARY KEY, -- of its file, as in a folder `units`
    id    text NOT NULL,             -- UNIT_ID
    state text NOT NULL CHECK (state IN ('units', 'tmp', 'process', 'done', 'fail')),
    due   bigint NOT NULL,           -- DUE_TS
    text  text NOT NULL,
    lease text,                      -- who holds it
    beat  timestamptz                -- the holder's last word
);
CREATE INDEX IF NOT EXISTS migdb_units_waiting ON migdb_units (state, due, name);
CREATE INDEX IF NOT EXISTS migdb_units_id ON migdb_units (id);
CREATE INDEX IF NOT EXISTS migdb_units_lease ON migdb_units (lease) WHERE lease IS NOT NULL;

-- Processes that work.
CREATE TABLE IF NOT EXISTS migdb_workers (
    note text PRIMARY KEY,
    beat timestamptz NOT NULL
);

-- Units on their way into another store: nobody takes them.
CREATE TABLE IF NOT EXISTS migdb_aside (
    name  text COLLATE "C" PRIMARY KEY,
    id    text NOT NULL,
    state text NOT NULL,
    text  text NOT NULL
);

-- One row, of the store itself.
CREATE TABLE IF NOT EXISTS migdb_store (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    version  integer NOT NULL,
    identity text NOT NULL,
    stop     boolean NOT NULL DEFAULT false,
    leaving  text,                   -- the store that the units are moved to
    arriving text                    -- the store that units come from
);
