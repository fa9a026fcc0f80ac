//! Units of a database on their way into another store, and from one: the table migdb_aside.

use anyhow::{Context, Result};
use tokio_postgres::types::{ToSql, Type};

use super::{LOCK, Postgres};
use crate::fleet::store::moving::{Movable, Parcel, Role, Side, in_use};
use crate::fleet::store::{State, Store};
use crate::fleet::unit::Unit;

/// The column with the note of a role.
fn note(role: Role) -> &'static str {
    match role {
        Role::From => "leaving",
        Role::To => "arriving",
    }
}

impl Movable for Postgres {
    fn side(&self) -> Result<Side> {
        let identity = self.run("looking at the store", async |client, _| {
            let identity = "SELECT identity FROM migdb_store";
            Ok(client.query_typed_one(identity, &[]).await?.get(0))
        })?;
        Ok(Side {
            identity,
            shown: self.shown.clone(),
        })
    }

    fn moving(&self, role: Role) -> Result<Option<Side>> {
        let text: Option<String> = self.run("looking for a move", async |client, _| {
            let moving = format!("SELECT {} FROM migdb_store", note(role));
            Ok(client.query_typed_one(&moving, &[]).await?.get(0))
        })?;
        let side = text.map(|text| serde_json::from_str(&text)).transpose();
        side.with_context(|| format!("reading the note on a move in {}", self.shown))
    }

    fn note_moving(&self, role: Role, other: Option<&Side>) -> Result<()> {
        let text = other.map(serde_json::to_string).transpose()?;
        self.run("noting a move", async |client, _| {
            let work = client.transaction().await?;
            // Who adds just now ends that first.
            work.batch_execute(LOCK).await?;
            let set = format!("UPDATE migdb_store SET {} = $1", note(role));
            work.execute_typed(&set, &[(&text, Type::TEXT)]).await?;
            work.commit().await
        })
    }

    fn set_aside(&self) -> Result<()> {
        let users = self.workers()?;
        if !users.is_empty() {
            return Err(in_use(&users));
        }
        let held: i64 = self.run("setting units aside", async |client, _| {
            let work = client.transaction().await?;
            work.batch_execute("LOCK TABLE migdb_units IN EXCLUSIVE MODE")
                .await?;
            let held = "SELECT count(*) FROM migdb_units WHERE lease IS NOT NULL";
            let held = work.query_typed_one(held, &[]).await?.get(0);
            if held == 0 {
                let aside = "WITH gone AS (DELETE FROM migdb_units RETURNING name, id, state, text) \
                             INSERT INTO migdb_aside SELECT name, id, state, text FROM gone";
                work.batch_execute(aside).await?;
                work.commit().await?;
            }
            Ok(held)
        })?;
        match held {
            0 => Ok(()),
            _ => Err(in_use(&[format!(
                "those that `migdb list --state tmp` shows ({held})"
            )])),
        }
    }

    fn aside(&self) -> Result<Vec<Parcel>> {
        let rows = self.run("reading units", async |client, _| {
            let aside = "SELECT name, state, text FROM migdb_aside ORDER BY name";
            client.query_typed(aside, &[]).await
        })?;
        let parcel = |row: &tokio_postgres::Row| {
            let state = State::named(row.get("state")).context("a state is not known")?;
            Ok(Parcel {
                name: row.get("name"),
                state,
                text: row.get("text"),
            })
        };
        rows.iter().map(parcel).collect()
    }

    fn take_in(&self, parcels: &[Parcel]) -> Result<()> {
        let mut units = Vec::new();
        for parcel in parcels {
            let unit =
                Unit::parse(&parcel.text).with_context(|| format!("reading {}", parcel.name));
            units.push(unit?);
        }
        let names: Vec<&str> = parcels.iter().map(|parcel| parcel.name.as_str()).collect();
        let states: Vec<&str> = parcels.iter().map(|parcel| parcel.state.name()).collect();
        let texts: Vec<&str> = parcels.iter().map(|parcel| parcel.text.as_str()).collect();
        let ids: Vec<&str> = units.iter().map(Unit::id).collect();
        let dues: Vec<i64> = units.iter().map(|unit| unit.due().0).collect();
        self.run("taking units in", async |client, _| {
            let values: [(&(dyn ToSql + Sync), Type); 5] = [
                (&names, Type::TEXT_ARRAY),
                (&ids, Type::TEXT_ARRAY),
                (&states, Type::TEXT_ARRAY),
                (&dues, Type::INT8_ARRAY),
                (&texts, Type::TEXT_ARRAY),
            ];
            let take_in = "INSERT INTO migdb_units (name, id, state, due, text) \
                           SELECT name, id, state, due, text \
                           FROM unnest($1, $2, $3, $4, $5) AS new (name, id, state, due, text) \
                           ON CONFLICT (name) DO NOTHING";
            let work = client.transaction().await?;
            work.execute_typed(take_in, &values).await?;
            work.batch_execute("NOTIFY migdb").await?;
            work.commit().await
        })
    }

    fn clear_aside(&self) -> Result<()> {
        self.run("removing what was set aside", async |client, _| {
            client.batch_execute("DELETE FROM migdb_aside").await
        })
    }
}
