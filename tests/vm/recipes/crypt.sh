#!/bin/sh
# Puts the files of a machine into an encrypted partition, which its initramfs opens by a key in it: runs
# in a guest, as roots.sh does, on a disk that disk.sh made for `lvm`.
set -eux

# Who is silent for too long is given up.
(while sleep 20; do echo .; done) &
trap 'kill $!' EXIT

target=$(readlink -f /dev/disk/by-id/virtio-BENCH-target)
source=$(readlink -f /dev/disk/by-id/virtio-BENCH-source)
root=${target}4
key=/run/root.key

head -c 64 /dev/urandom > $key
# Hardly any iterations: the processor is emulated, and nobody guesses this key.
cryptsetup -q luksFormat --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
    --key-file $key "$root"
cryptsetup open --key-file $key "$root" root_crypt
device=/dev/mapper/root_crypt
dd if="$source" of=$device bs=1M conv=sparse status=none
resize2fs -f $device

mount $device /mnt
mount "${target}3" /mnt/boot
mount "${target}2" /mnt/boot/efi
mkdir -p -m 700 /mnt/etc/keys
install -m 600 $key /mnt/etc/keys/root.key
uuid=$(cryptsetup luksUUID "$root")
echo "root_crypt UUID=$uuid /etc/keys/root.key luks,initramfs" > /mnt/etc/crypttab
echo 'KEYFILE_PATTERN="/etc/keys/*.key"' >> /mnt/etc/cryptsetup-initramfs/conf-hook
echo UMASK=0077 > /mnt/etc/initramfs-tools/conf.d/umask
for name in dev proc sys run; do mount --rbind --make-rslave /$name /mnt/$name; done
chroot /mnt update-initramfs -u
chroot /mnt update-grub
# The shutdown lets go of all that.
sync
