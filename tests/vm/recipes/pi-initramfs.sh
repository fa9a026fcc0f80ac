#!/bin/busybox sh
# /init of the initramfs of a Raspberry Pi, in the old system and in the new one: loads the drivers,
# finds the root that the kernel was told, goes there.
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod "/modules/$module"; done < /modules/order
wanted=$(sed -n 's/.*\broot=\([^ ]*\).*/\1/p' /proc/cmdline)
tries=0
while :; do
    case $wanted in
        LABEL=*) root=$(findfs "$wanted" 2> /dev/null) ;;
        *) root=$wanted ;;
    esac
    [ ! -b "$root" ] || break
    tries=$((tries + 1))
    if [ $tries -gt 60 ]; then
        echo "NEWOS: no resin-rootA on any disk; wanted $wanted"
        sync
        poweroff -f
    fi
    sleep 1
done
mount -t ext4 -o ro "$root" /root
mount --move /dev /root/dev
mount --move /proc /root/proc
mount --move /sys /root/sys
if [ "$wanted" = LABEL=resin-rootA ]; then
    mount -t tmpfs run /root/run
fi
exec switch_root /root /sbin/init
