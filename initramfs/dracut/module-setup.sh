#!/bin/bash
# Module of dracut: starts stage 2 of balena-migrate when the root is mounted.

check() {
    # Only when it is asked for.
    return 255
}

depends() {
    echo base
}

install() {
    inst_hook pre-pivot 00 "$moddir/pre-pivot.sh"
}
