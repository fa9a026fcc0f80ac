#!/bin/busybox sh
# /init of the new system's initramfs: loads the drivers, finds resin-rootA, goes there.
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod "/modules/$module"; done < /modules/order
tries=0
until root=$(findfs LABEL=resin-rootA 2> /dev/null); do
    tries=$((tries + 1))
    if [ $tries -gt 30 ]; then
        echo "NEWOS: no resin-rootA on any disk"
        sync
        poweroff -f
    fi
    sleep 1
done
mount -t ext4 -o ro "$root" /root
mount --move /dev /root/dev
mount --move /proc /root/proc
mount --move /sys /root/sys
mount -t tmpfs run /root/run
exec switch_root /root /sbin/init
