#!/bin/sh
# The whole of the old system of a Raspberry Pi: /sbin/init on its root. Mounts what a distribution
# mounts, and gives the harness a root shell on the line that /etc/bench-agent names.
export PATH=/sbin:/bin HOME=/root
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mount -o remount,rw /
# These boards have no clock: distributions begin where they left off.
date -s "@$(stat -c %Y /etc/hostname)"
hostname "$(cat /etc/hostname)"
modprobe bcm2835_wdt
mount /boot/firmware
echo "OLDOS: up"
agent=/dev/$(cat /etc/bench-agent)
cd /root || exit
while :; do
    # Through a pipe: on a terminal this shell edits lines.
    setsid sh -c "stty raw -echo < $agent && sh < $agent 2>&1 | cat > $agent"
    sleep 1
done
