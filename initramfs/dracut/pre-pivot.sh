#!/bin/sh
# Hook of dracut, sourced in pre-pivot: the root is mounted. Lets stage 2 of balena-migrate take the
# place of PID 1, which is this shell, or systemd.

stage2=/balena-migrate/root

if [ "$$" = 1 ] && [ -x $stage2/init ]; then
    exec $stage2/init
fi

# systemd leaves its place to nobody but the init of another root: a copy in memory. What is mounted
# by then stays so out of reach, and the disk in use.
if [ -x $stage2/init ] && umount -R "$NEWROOT" \
    && mount -t tmpfs -o mode=0700 tmpfs "$NEWROOT" \
    && cp -a $stage2/. "$NEWROOT" \
    && systemctl --no-block switch-root "$NEWROOT" /init; then
    # It ends this shell too.
    sleep 60
fi

echo "** balena-migrate: stage 2 could not be started. The old system starts again." > /dev/console
sleep 10
reboot -f
echo b > /proc/sysrq-trigger
