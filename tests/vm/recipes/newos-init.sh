#!/bin/busybox sh
# The whole of the new system: /sbin/init on resin-rootA. It prints what the migration left for it,
# one fact a line, and switches the machine off.
export PATH=/bin
say() { printf 'NEWOS: %s\n' "$*"; }
hash_of() { sha256sum < "$1" | cut -d' ' -f1; }

echo
say booted
mkdir -p /run/mnt/boot /run/mnt/data

for label in resin-boot resin-rootA resin-rootB resin-state resin-data; do
    device=$(findfs "LABEL=$label")
    say "partition $label ${device:-missing} $(cat "/sys/class/block/${device##*/}/size")"
done

if mount -t vfat -o ro "$(findfs LABEL=resin-boot)" /run/mnt/boot; then
    cd /run/mnt/boot
    if [ -f config.json ]; then
        say "config.json $(hash_of config.json)"
        say "uuid $(sed -n 's/.*"uuid" *: *"\([^"]*\)".*/\1/p' config.json)"
    else
        say "config.json missing"
    fi
    for keyfile in system-connections/*; do
        case $keyfile in
            *.ignore) ;;
            *) [ -f "$keyfile" ] && say "keyfile ${keyfile##*/} $(hash_of "$keyfile")" ;;
        esac
    done
    # The fingerprint's paths are absolute within the partition. Of the ways to boot, those of other
    # firmware may be gone as a whole.
    sed 's,  /,  ./,' balenaos.fingerprint > /run/fingerprint
    for way in EFI grub; do
        [ -d $way ] || sed -i "/  .\\/$way\\//d" /run/fingerprint
    done
    if bad=$(md5sum -c /run/fingerprint 2>&1); then
        say "fingerprint ok $(wc -l < /run/fingerprint)"
    else
        say "fingerprint BAD $(echo "$bad" | grep FAILED | cut -d: -f1 | tr '\n' ' ')"
    fi
    cd /
    umount /run/mnt/boot
else
    say "resin-boot cannot be mounted"
fi

if mount -t ext4 -o ro "$(findfs LABEL=resin-data)" /run/mnt/data; then
    cd /run/mnt/data
    if [ -f backup.tgz ]; then
        say "backup.tgz $(hash_of backup.tgz) $(tar -tzf backup.tgz | tr '\n' ' ')"
    else
        say "backup.tgz missing"
    fi
    for log in *.log; do
        [ -f "$log" ] && say "log $log $(wc -l < "$log") lines, the last: $(tail -n 1 "$log")"
    done
    say "data-free $(df -k . | awk 'NR == 2 { print $4 }') KiB"
    cd /
    umount /run/mnt/data
else
    say "resin-data cannot be mounted"
fi

say done
sync
poweroff -f
