#!/bin/bash
# Builds the machine that the tests migrate: a stock Debian 12 with real GRUB on one MBR disk.
#
#   guest.sh OUTDIR
#
# leaves in OUTDIR:
#   guest.raw   the disk before its first boot (sparse)
#   kit/        what osimage.sh takes from this system: kernel, modules, busybox, GRUB
#
# No loop device, no mount of our own: mkfs.ext4 fills the file system, and GRUB's two parts are
# written to the disk by hand, which is all that grub-install would do there.
set -euo pipefail

out=$1
root=$out/root
root_uuid=6b1d7a52-8f0e-4c39-9d27-51a0c7e4b9d3
disk_id=0x5eed0001
disk_mib=1536
start_sector=2048

# The essential-hook runs before the kernel is configured: with a short module list its
# initramfs takes 2 s instead of 15.
early() {
    mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/usr/share/initramfs-tools/modules.d"
    echo MODULES=list > "$1/etc/initramfs-tools/conf.d/bench"
    printf '%s\n' virtio_pci virtio_blk ext4 > "$1/usr/share/initramfs-tools/modules.d/bench"
}

if [ "${2-}" = --early ]; then
    early "$1"
    exit
fi

mkdir -p "$out"
mmdebstrap --quiet --mode=root --variant=minbase \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --essential-hook="bash '$0' \"\$1\" --early" \
    --include=systemd-sysv,udev,kmod,busybox-static,e2fsprogs,iproute2,procps,initramfs-tools,linux-image-cloud-amd64,grub-pc \
    bookworm "$root"

# What a user's machine has, as far as a migration looks at it.
echo old-debian > "$root/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 old-debian\n' > "$root/etc/hosts"
echo "UUID=$root_uuid / ext4 errors=remount-ro 0 1" > "$root/etc/fstab"
echo 7c1f40d2b0a94f0e8d6a3b5e91c2d4f6 > "$root/etc/machine-id"
mkdir -p "$root/etc/wpa_supplicant" "$root/home/user/data"
cat > "$root/etc/wpa_supplicant/wpa_supplicant.conf" <<'EOF'
ctrl_interface=DIR=/var/run/wpa_supplicant GROUP=netdev
update_config=1
country=DE

network={
	ssid="Harbour Office"
	psk="correct horse battery"
	key_mgmt=WPA-PSK
}

network={
	ssid="workshop"
	scan_ssid=1
	psk=3f2a1c0d9e8b7a6f5e4d3c2b1a09f8e7d6c5b4a3928170f1e2d3c4b5a6978812
	key_mgmt=WPA-PSK
}
EOF
chmod 600 "$root/etc/wpa_supplicant/wpa_supplicant.conf"
echo 'hello from the old system' > "$root/home/user/data/greeting"
head -c 300000 /dev/urandom > "$root/home/user/data/blob"

# no_timer_check: a busy host without KVM delays the timer interrupt so far that the kernel calls
# its IO-APIC broken and panics. net.ifnames=0 is only there to be carried over.
sed -i \
    -e 's/^GRUB_TIMEOUT=.*/GRUB_TIMEOUT=1/' \
    -e 's/^GRUB_CMDLINE_LINUX=.*/GRUB_CMDLINE_LINUX="console=tty0 console=ttyS0,115200 no_timer_check net.ifnames=0"/' \
    "$root/etc/default/grub"
cat >> "$root/etc/default/grub" <<'EOF'

# As Debian's cloud images do: the menu on the screen and on the serial line.
GRUB_TERMINAL="console serial"
GRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"
EOF

# The harness talks to a root shell on the second serial port. SIGKILL: a shell ignores SIGTERM
# and would hold up every shutdown. raw: no line limit, no echo, no CR.
cat > "$root/etc/systemd/system/bench-agent.service" <<'EOF'
[Unit]
Description=Shell of the test bench
ConditionPathExists=/dev/ttyS1

[Service]
ExecStart=/bin/sh -c 'stty raw -echo < /dev/ttyS1 && exec sh < /dev/ttyS1 > /dev/ttyS1 2>&1'
WorkingDirectory=/root
Environment=HOME=/root
KillSignal=SIGKILL
TimeoutStopSec=2
Restart=always

[Install]
WantedBy=multi-user.target
EOF
mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
ln -sf ../bench-agent.service "$root/etc/systemd/system/multi-user.target.wants/"
# agetty hangs up the line of every other writer. The timers would start work at random moments.
for unit in serial-getty@ttyS0.service apt-daily.timer apt-daily-upgrade.timer \
    dpkg-db-backup.timer e2scrub_all.timer fstrim.timer e2scrub_reap.service; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*

# GRUB, by the guest's own tools: another version's image refuses the modules.
mkdir -p "$root/boot/grub/i386-pc"
cp "$root"/usr/lib/grub/i386-pc/*.mod "$root"/usr/lib/grub/i386-pc/*.lst "$root/boot/grub/i386-pc/"
cat > "$root/tmp/early.cfg" <<EOF
search.fs_uuid $root_uuid root
set prefix=(\$root)/boot/grub
EOF
chroot "$root" grub-mkimage -O i386-pc -p /boot/grub -c /tmp/early.cfg -o /tmp/core.img \
    biosdisk part_msdos ext2 search_fs_uuid normal
chroot "$root" grub-editenv /boot/grub/grubenv create
# Only for the first boot: update-grub, which wants to see its real disk, then writes the real one.
cat > "$root/boot/grub/grub.cfg" <<EOF
linux /vmlinuz root=UUID=$root_uuid ro console=tty0 console=ttyS0,115200 no_timer_check
initrd /initrd.img
boot
EOF

kit=$out/kit
mkdir -p "$kit/modules"
cp "$root"/boot/vmlinuz-* "$kit/vmlinuz"
release=$(ls "$root/lib/modules")
for module in virtio_pci virtio_blk vfat nls_cp437 nls_ascii nls_utf8; do
    chroot "$root" modprobe -S "$release" --show-depends "$module"
done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' > "$kit/modules/order"
while read -r path; do cp "$root$path" "$kit/modules/"; done < "$kit/modules/order"
sed -i 's,.*/,,' "$kit/modules/order"
cp "$root/bin/busybox" "$root/usr/lib/grub/i386-pc/boot.img" "$kit/"
cat > "$root/tmp/early.cfg" <<'EOF'
search --no-floppy --label --set=root resin-boot
set prefix=($root)/grub
EOF
chroot "$root" grub-mkimage -O i386-pc -p /grub -c /tmp/early.cfg -o /tmp/core-newos.img \
    biosdisk part_msdos fat ext2 search search_label normal linux serial terminal echo
mv "$root/tmp/core-newos.img" "$kit/core.img"
mv "$root/tmp/core.img" "$out/core.img"
rm -f "$root/tmp/early.cfg"

disk=$out/guest.raw
rm -f "$disk"
truncate -s ${disk_mib}M "$disk"
sfdisk -q "$disk" <<EOF
label: dos
label-id: $disk_id
start=$start_sector, type=83, bootable
EOF
# The boot code's own jump is patched for floppies only (0x66): a hard disk keeps DL as it is.
head -c 440 "$kit/boot.img" | dd of="$disk" conv=notrunc status=none
printf '\x90\x90' | dd of="$disk" bs=1 seek=$((0x66)) conv=notrunc status=none
dd if="$out/core.img" of="$disk" bs=512 seek=1 conv=notrunc status=none
mkfs.ext4 -q -F -d "$root" -L rootfs -U $root_uuid \
    -E offset=$((start_sector * 512)),lazy_itable_init=1 \
    "$disk" $((disk_mib * 1024 - start_sector / 2))k
rm -rf "$root" "$out/core.img"
# Whoever asked by sudo goes on with these files.
[ -z "${SUDO_UID-}" ] || chown -R "$SUDO_UID:$SUDO_GID" "$out"
