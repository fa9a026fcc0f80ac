#!/bin/bash
# Makes the card of a Raspberry Pi from the files of tree-pi.sh.
#
#   card.sh TREE OUTDIR MIB
#
# MBR, a FAT boot partition, ext4 up to the end. QEMU takes cards only whose size is a power of two.
# Leaves guest.raw in OUTDIR.
set -euo pipefail

tree=$1 card=$2/guest.raw mib=$3
boot_mib=96
root_at=$((4 + boot_mib))
truncate -s "${mib}M" "$card"
sfdisk -q --no-tell-kernel "$card" <<END
label: dos
label-id: 0x5ba1e0a0
start=4MiB, size=${boot_mib}MiB, type=c
start=${root_at}MiB, type=83
END
mkfs.vfat -F 32 -s 1 -n RASPIFIRM -i BE7C0001 --offset $((4 * 2048)) "$card" $((boot_mib * 1024)) > /dev/null 2>&1
mcopy -s -i "$card@@4M" "$tree"/firmware/* ::/
mkfs.ext4 -q -F -L RASPIROOT -U 6b1d7a52-8f0e-4c39-9d27-51a0c7e4b9d3 -d "$tree/root" \
    -E offset=$((root_at * 1048576)) "$card" "$((mib - root_at))M"
