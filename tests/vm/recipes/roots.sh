#!/bin/sh
# Puts the files of a machine onto its disk where only a running kernel can: runs in a guest.
#
#   roots.sh ROOT
#
# ROOT is one of disk.sh's. The disk is plugged with the serial number TARGET (and TARGET2), the file
# system with the files with SOURCE.
set -eux

# Who is silent for too long is given up.
(while sleep 20; do echo .; done) &
trap 'kill $!' EXIT

kind=$1
target=$(readlink -f /dev/disk/by-id/virtio-BENCH-target)
source=$(readlink -f /dev/disk/by-id/virtio-BENCH-source)
esp=${target}2
# The last partition.
root=$(ls "$target"* | sort | tail -n 1)
copy() { # device
    dd if="$source" of="$1" bs=1M conv=sparse status=none
    resize2fs -f "$1"
}

options=
case $kind in
    lvm | lvm-all | thin)
        pvcreate -q "$root"
        vgcreate -q vg "$root"
        if [ "$kind" = thin ]; then
            # The rest of the group is for the metadata of the pool.
            lvcreate -q -l 90%FREE -T vg/pool
            lvcreate -q -V 1400M -T vg/pool -n root
        else
            lvcreate -q -l 100%FREE -n root vg
        fi
        device=/dev/vg/root
        copy $device
        ;;
    raid1)
        other=$(readlink -f /dev/disk/by-id/virtio-BENCH-target2)
        other=$(ls "$other"* | sort | tail -n 1)
        # Clean as they are: all that is read was written to both.
        mdadm --create /dev/md0 --run --assume-clean --bitmap=none --level=1 --raid-devices=2 \
            --metadata=1.2 "$root" "$other"
        device=/dev/md0
        copy $device
        ;;
    sectors)
        sfdisk -q "$target" <<EOF
label: gpt
label-id: 5eed0001-77aa-4c1e-9b53-0d2f4a6c8e10
start=2MiB, size=300MiB, type=U
start=302MiB, type=L
EOF
        udevadm settle
        esp=${target}1
        mkfs.vfat -F 32 -n ESP -i BE7C0001 "$esp" > /dev/null
        device=${target}2
        copy $device
        ;;
    btrfs)
        mkfs.btrfs -q -f -U "$(cat uuid)" -L rootfs "$root"
        device=$root
        mount "$device" /mnt
        btrfs -q subvolume create /mnt/@
        btrfs -q subvolume create /mnt/@home
        umount /mnt
        options=-osubvol=@
        ;;
    xfs)
        mkfs.xfs -q -f -m uuid="$(cat uuid)" -L rootfs "$root"
        device=$root
        ;;
esac

# shellcheck disable=SC2086 # nothing or one word
mount $options "$device" /mnt
case $kind in
    btrfs | xfs)
        mkdir -p /run/source
        mount -o ro "$source" /run/source
        if [ "$kind" = btrfs ]; then
            mkdir -p /mnt/home
            mount -osubvol=@home "$device" /mnt/home
        fi
        cp -a /run/source/. /mnt/
        umount /run/source
        ;;
esac
case $kind in lvm | thin) mount "${target}3" /mnt/boot ;; esac
mount "$esp" /mnt/boot/efi
if [ "$kind" = sectors ]; then
    cp -r /mnt/root/esp-files /mnt/boot/efi/EFI
    rm -r /mnt/root/esp-files
fi
for name in dev proc sys run; do mount --rbind --make-rslave /$name /mnt/$name; done
chroot /mnt update-grub
# The shutdown lets go of all that.
sync
