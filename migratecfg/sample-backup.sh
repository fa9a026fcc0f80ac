#!/bin/sh
# Makes the backup.tgz of a migration: sample-backup.sh FILE
#
# balena-migrate calls it when BACKUP_SCRIPT names it. At the top level of the archive there may be
# folders only, each with the name of a volume of your application; an entry of any other name, a
# single file or a "." entry keeps the application from starting on the new system.
set -eu

file=$(realpath "${1:?usage: $0 FILE}")
volumes=$(mktemp -d)
trap 'rm -rf "$volumes"' EXIT

# volume NAME: starts a volume. What follows goes into it.
volume() {
    volume=$volumes/$1
    mkdir "$volume"
}

# keep SOURCE [TARGET]: a file or a folder under the name TARGET in the volume. The content of a
# folder without TARGET goes into the volume itself. Links are made here and followed by tar, so
# that nothing is copied twice.
keep() {
    if [ ! -e "$1" ]; then
        echo "$0: $1 is missing" >&2
        exit 1
    fi
    if [ $# -gt 1 ]; then
        mkdir -p "$(dirname "$volume/$2")"
        ln -s "$(realpath "$1")" "$volume/$2"
    elif [ -d "$1" ]; then
        find "$(realpath "$1")" -mindepth 1 -maxdepth 1 -exec ln -s -t "$volume" {} +
    else
        ln -s "$(realpath "$1")" "$volume/"
    fi
}

# ---- Your data: change this. ------------------------------------------------------------------

volume settings
keep /etc/hostname
keep /etc/default defaults

# -------------------------------------------------------------------------------------------------

# Names instead of ".", so that the archive has no "./" entries.
cd "$volumes"
tar --dereference --create --gzip --file "$file" -- *
