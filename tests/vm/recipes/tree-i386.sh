#!/bin/bash
# tree.sh for i386, with the same arguments. apt refuses the index that the suite of security updates
# has for i386, for its size: the main suite alone, from where this machine gets it.
set -euo pipefail

suite=$2
# shellcheck disable=SC2016 # apt's own variable
place=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Release: $suite" | head -n 1)
[ -z "$place" ] || export sources="deb $place $suite main"
mmdebstrap() {
    command mmdebstrap "$@" ${sources+"$sources"}
}
export -f mmdebstrap
exec bash "$(dirname "$0")/tree.sh" "$@"
