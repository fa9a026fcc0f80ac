#!/bin/bash
# Builds the files of a machine that the tests migrate: a stock Debian with real GRUB.
#
#   tree.sh OUTDIR SUITE ARCH KERNEL PACKAGES MODULES
#
# PACKAGES is what it has beyond the usual, MODULES what its initramfs loads beyond ext4 on virtio;
# both are separated by commas. Leaves in OUTDIR:
#   tree.tar.zst  the files, which disk.sh makes disks from
#   kit/          what osimage.sh takes from this system: kernel, modules, busybox, GRUB
set -euo pipefail

early_modules=virtio_pci,virtio_blk,ext4

# The essential-hook runs before the kernel is configured: with a short module list its
# initramfs takes 2 s instead of 15.
if [ "${1-}" = --early ]; then
    mkdir -p "$2/etc/initramfs-tools/conf.d" "$2/usr/share/initramfs-tools/modules.d"
    echo MODULES=list > "$2/etc/initramfs-tools/conf.d/bench"
    echo "$3" | tr , '\n' > "$2/usr/share/initramfs-tools/modules.d/bench"
    exit
fi

out=$1 suite=$2 arch=$3 kernel=$4 packages=$5 modules=$6
root=$out/root
mkdir -p "$out"
# Drivers that no machine of the bench has: most of the standard kernel's files.
mmdebstrap --quiet --mode=root --variant=minbase --architectures="$arch" \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/lib/modules/*/kernel/sound/*' \
    --dpkgopt='path-exclude=/lib/modules/*/kernel/drivers/gpu/*' \
    --dpkgopt='path-exclude=/lib/modules/*/kernel/drivers/infiniband/*' \
    --dpkgopt='path-exclude=/lib/modules/*/kernel/drivers/media/*' \
    --dpkgopt='path-exclude=/lib/modules/*/kernel/drivers/net/[ew]*' \
    --essential-hook="bash '$0' --early \"\$1\" '$early_modules${modules:+,$modules}'" \
    --include="systemd-sysv,udev,kmod,busybox-static,e2fsprogs,iproute2,procps,initramfs-tools,$kernel,grub-pc,grub-efi-amd64-bin${packages:+,$packages}" \
    "$suite" "$root"

# What a user's machine has, as far as a migration looks at it.
echo old-debian > "$root/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 old-debian\n' > "$root/etc/hosts"
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

# For the new system, by the guest's own tools: another version's image refuses the modules.
kit=$out/kit
mkdir -p "$kit/modules"
cp "$root"/boot/vmlinuz-* "$kit/vmlinuz"
release=$(ls "$root/lib/modules")
for module in virtio_pci virtio_blk nvme ahci sd_mod virtio_scsi \
    ext4 crc32c_generic vfat nls_cp437 nls_ascii nls_utf8; do
    # What a kernel has built in, or has not got, gives no line.
    chroot "$root" modprobe -S "$release" --show-depends "$module" 2> /dev/null || true
done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' > "$kit/modules/order"
while read -r path; do cp "$root$path" "$kit/modules/"; done < "$kit/modules/order"
sed -i 's,.*/,,' "$kit/modules/order"
cp "$root/bin/busybox" "$root/usr/lib/grub/i386-pc/boot.img" "$kit/"
cat > "$root/tmp/early.cfg" <<'EOF'
search --no-floppy --label --set=root resin-boot
set prefix=($root)/grub
EOF
common="part_msdos part_gpt fat ext2 search search_label normal linux serial terminal echo"
# shellcheck disable=SC2086 # a list of words
chroot "$root" grub-mkimage -O i386-pc -p /grub -c /tmp/early.cfg -o /tmp/core.img \
    biosdisk $common
# Its configuration is beside it, as in the vendor's images.
# shellcheck disable=SC2086 # a list of words
chroot "$root" grub-mkimage -O x86_64-efi -p /EFI/BOOT -o /tmp/bootx64.efi $common
mv "$root/tmp/core.img" "$root/tmp/bootx64.efi" "$kit/"
rm -f "$root/tmp/early.cfg"

tar -C "$root" --numeric-owner --xattrs -cf - . | zstd -q -1 -o "$out/tree.tar.zst"
rm -rf "$root"
# Whoever asked by sudo goes on with these files.
[ -z "${SUDO_UID-}" ] || chown -R "$SUDO_UID:$SUDO_GID" "$out"
