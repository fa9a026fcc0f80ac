#!/bin/bash
# Makes the disk of a machine that the tests migrate from the files of tree.sh.
#
#   disk.sh TREE OUTDIR ROOT MIB
#
# ROOT is one of
#   mbr       one partition with ext4, GRUB behind the MBR: boots by a BIOS only
#   ext4      GPT with BIOS boot partition, ESP and ext4: boots both ways, as all that follow
#   boot      the same with a /boot of its own
#   lvm       /boot of its own, ext4 in a logical volume
#   lvm-all   the same without the /boot
#   thin      as lvm, the volume is a thin one
#   raid1     ext4 on an md array; guest2.raw is the other half
#   btrfs     btrfs with the subvolumes @ and @home
#   xfs       xfs
#   sectors   as ext4, on a disk with sectors of 4096 bytes
# and leaves in OUTDIR
#   guest.raw   the disk before its first boot (sparse)
#   source.raw  from lvm on, as only a running kernel can make those: the files, which roots.sh puts
#               there in a guest
#
# No loop device, no mount of our own: mkfs.ext4 fills the file system, and GRUB's parts are
# written to the disk by hand, which is all that grub-install would do there.
set -euo pipefail

tree=$1 out=$2 kind=$3 mib=$4
root=$out/root
root_uuid=6b1d7a52-8f0e-4c39-9d27-51a0c7e4b9d3
boot_uuid=0f3e2d81-5b6c-4a7f-8e19-c2d4b6a8f013
esp_uuid=BE7C-0001

boot=no esp=yes
grub_fs=$root_uuid grub_dir=/boot/grub
root_line="UUID=$root_uuid / ext4 errors=remount-ro 0 1"
case $kind in
    mbr) esp=no ;;
    ext4 | lvm-all | raid1 | sectors) ;;
    boot | lvm | thin) boot=yes ;;
    btrfs)
        # mkfs.btrfs takes no UUID that is in use, be it by the guest that runs it.
        root_uuid=d41c9b07-3e52-4f6a-8a1d-7b90e2c5f618
        grub_fs=$root_uuid grub_dir=/@/boot/grub
        root_line="UUID=$root_uuid / btrfs subvol=@ 0 0
UUID=$root_uuid /home btrfs subvol=@home 0 0"
        ;;
    xfs)
        root_line="UUID=$root_uuid / xfs defaults 0 0"
        ;;
    *)
        echo "no such root: $kind" >&2
        exit 2
        ;;
esac
[ $boot = no ] || grub_fs=$boot_uuid grub_dir=/grub

mkdir -p "$root"
tar -C "$root" --numeric-owner --xattrs -I zstd -xf "$tree/tree.tar.zst"
{
    echo "$root_line"
    [ $boot = no ] || echo "UUID=$boot_uuid /boot ext4 defaults 0 2"
    [ $esp = no ] || echo "UUID=$esp_uuid /boot/efi vfat umask=0077 0 1"
} > "$root/etc/fstab"

# GRUB, by the guest's own tools: another version's image refuses the modules.
cat > "$root/tmp/early.cfg" <<EOF
search.fs_uuid $grub_fs root
set prefix=(\$root)$grub_dir
EOF
modules="part_msdos part_gpt ext2 search_fs_uuid normal"
case $kind in
    lvm-all) modules="$modules lvm" ;;
    raid1) modules="$modules mdraid1x" ;;
    btrfs | xfs) modules="$modules $kind" ;;
esac
grub() { # platform, image, modules...
    local platform=$1 image=$2
    shift 2
    mkdir -p "$root/boot/grub/$platform"
    cp "$root"/usr/lib/grub/"$platform"/*.mod "$root"/usr/lib/grub/"$platform"/*.lst \
        "$root/boot/grub/$platform/"
    # shellcheck disable=SC2086 # a list of words
    chroot "$root" grub-mkimage -O "$platform" -p "$grub_dir" -c /tmp/early.cfg -o "/tmp/$image" \
        "$@" $modules
    mv "$root/tmp/$image" "$out/$image"
}
grub i386-pc core.img biosdisk
if [ $esp = yes ]; then
    grub x86_64-efi grubx64.efi fat
fi
cp "$root/usr/lib/grub/i386-pc/boot.img" "$out/boot.img"
chroot "$root" grub-editenv /boot/grub/grubenv create
rm -f "$root/tmp/early.cfg"
# Only for the first boot: update-grub, which wants to see its real disk, then writes the real one.
place=/boot
[ $boot = no ] || place=
cat > "$root/boot/grub/grub.cfg" <<EOF
linux $place/$(basename "$root"/boot/vmlinuz-*) root=UUID=$root_uuid ro console=tty0 console=ttyS0,115200 no_timer_check
initrd $place/$(basename "$root"/boot/initrd.img-*)
boot
EOF

disk=$out/guest.raw
rm -f "$disk"
truncate -s "${mib}M" "$disk"
ext4() { # file, offset in MiB, size in MiB, label, uuid, tree
    mkfs.ext4 -q -F -d "$6" -L "$4" -U "$5" -E offset=$(($2 * 1048576)),lazy_itable_init=1 \
        "$1" "$3M"
}
put() { # number, offset, file: eight bytes, the lowest first
    local number=$1 byte
    for byte in 1 2 3 4 5 6 7 8; do
        # shellcheck disable=SC2059 # the number is in the format
        printf "\\x$(printf %02x $((number & 255)))"
        number=$((number >> 8))
    done | dd of="$3" bs=1 seek="$2" conv=notrunc status=none
}

if [ $kind = mbr ]; then
    root_at=1 root_mib=$((mib - 1)) core_at=1
    sfdisk -q "$disk" <<EOF
label: dos
label-id: 0x5eed0001
start=2048, type=83, bootable
EOF
else
    # In MiB: BIOS boot, ESP, /boot if there is one, root; GPT has its copy in the last MiB.
    esp_at=2 esp_mib=100 boot_at=102 boot_mib=256 root_at=102
    [ $boot = no ] || root_at=$((boot_at + boot_mib))
    root_mib=$((mib - root_at - 1)) core_at=2048
    sfdisk -q "$disk" <<EOF
label: gpt
label-id: 5eed0001-77aa-4c1e-9b53-0d2f4a6c8e10
start=1MiB, size=1MiB, type=21686148-6449-6E6F-744E-656564454649
start=${esp_at}MiB, size=${esp_mib}MiB, type=U
$([ $boot = no ] || echo "start=${boot_at}MiB, size=${boot_mib}MiB, type=L")
start=${root_at}MiB, size=${root_mib}MiB, type=L
EOF
    # The two block numbers that grub-install writes (grub-core/boot/i386/pc/boot.S and
    # diskboot.S): where the core starts, and where the rest of it is.
    put $core_at $((0x5c)) "$out/boot.img"
    put $((core_at + 1)) $((0x1f4)) "$out/core.img"
fi
# The boot code's own jump is patched for floppies only (0x66): a hard disk keeps DL as it is.
printf '\x90\x90' | dd of="$out/boot.img" bs=1 seek=$((0x66)) conv=notrunc status=none
head -c 440 "$out/boot.img" | dd of="$disk" conv=notrunc status=none
dd if="$out/core.img" of="$disk" bs=512 seek=$core_at conv=notrunc status=none

if [ $esp = yes ]; then
    # The vendor's path, and the one that firmware without an entry looks at.
    efi=$out/esp
    mkdir -p "$efi/EFI/debian" "$efi/EFI/BOOT"
    cp "$out/grubx64.efi" "$efi/EFI/debian/grubx64.efi"
    cp "$out/grubx64.efi" "$efi/EFI/BOOT/BOOTX64.EFI"
    if [ $kind = sectors ]; then
        cp -r "$efi/EFI" "$root/root/esp-files"
    else
        mkfs.vfat -F 32 -s 1 -n ESP -i "${esp_uuid//-/}" --offset $((esp_at * 2048)) "$disk" \
            $((esp_mib * 1024)) > /dev/null
        mcopy -s -i "$disk@@${esp_at}M" "$efi/EFI" ::/
    fi
    mkdir -p "$root/boot/efi"
    rm -rf "$efi" "$out/grubx64.efi"
fi
if [ $boot = yes ]; then
    ext4 "$disk" $boot_at $boot_mib boot $boot_uuid "$root/boot"
    rm -rf "$root"/boot/*
fi
case $kind in
    lvm | lvm-all | thin | raid1 | sectors)
        # No larger than need be: an emulated processor copies it, and lets it grow there.
        small_mib=$(($(du -sm "$root" | cut -f1) * 5 / 4))
        truncate -s ${small_mib}M "$out/source.raw"
        ext4 "$out/source.raw" 0 $small_mib rootfs $root_uuid "$root"
        ;;
    btrfs | xfs)
        truncate -s "${root_mib}M" "$out/source.raw"
        ext4 "$out/source.raw" 0 "$root_mib" source "$(cat /proc/sys/kernel/random/uuid)" "$root"
        ;;
    *) ext4 "$disk" $root_at $root_mib rootfs $root_uuid "$root" ;;
esac
if [ $kind = raid1 ]; then
    cp --sparse=always "$disk" "$out/guest2.raw"
    sfdisk -q --disk-id "$out/guest2.raw" 5eed0002-77aa-4c1e-9b53-0d2f4a6c8e10
fi
rm -rf "$root" "$out/core.img" "$out/boot.img"
# Whoever asked by sudo goes on with these files.
[ -z "${SUDO_UID-}" ] || chown -R "$SUDO_UID:$SUDO_GID" "$out"
