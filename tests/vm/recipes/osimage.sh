#!/bin/bash
# Builds a small disk image that a migration takes for balenaOS, and that really boots.
#
#   osimage.sh KIT RECIPES OUT.raw TABLE LOADER SLUG VERSION ROOT_MIB DATA_MIB NOISE_MIB
#
# With the TABLE dos the layout is that of genericx86-64-ext, only smaller: MBR, 4 MiB alignment,
# resin-boot (FAT16), resin-rootA, resin-rootB, then resin-state and resin-data in an extended
# partition; it boots by a BIOS and by UEFI firmware. With gpt it is that of generic-amd64: the same
# partitions with their labels as names, and for UEFI firmware only. GRUB, the kernel and busybox
# are those of the guest (KIT, see tree.sh). With the LOADER none it has no boot loader, as balenaOS
# before 2.26. With the LOADER config.txt it is for a Raspberry Pi (KIT by tree-pi.sh): what its firmware
# reads is on resin-boot, the kernel too.
set -euo pipefail

kit=$1 recipes=$2 out=$3 table=$4 loader=$5 slug=$6 version=$7 root_mib=$8 data_mib=$9 noise_mib=${10}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rm -f "$out"

bios_loader() {
    head -c 440 "$kit/boot.img" | dd of="$out" conv=notrunc status=none
    printf '\x90\x90' | dd of="$out" bs=1 seek=$((0x66)) conv=notrunc status=none
    dd if="$kit/core.img" of="$out" bs=512 seek=1 conv=notrunc status=none
}

# Sizes and starts in MiB. A logical partition lies 4 MiB behind the start of its own EBR; GPT has its
# copy in the last MiB.
boot_at=4 boot_mib=40 rootb_mib=8 state_mib=8
# The cards of emulated boards are slow.
[ "$loader" != config.txt ] || boot_mib=16 rootb_mib=4 state_mib=4
roota_at=$((boot_at + boot_mib))
rootb_at=$((roota_at + root_mib))
extended_at=$((rootb_at + rootb_mib))
gap=4
[ "$table" = dos ] || gap=0
state_at=$((extended_at + gap))
data_at=$((state_at + state_mib + gap))
total=$((data_at + data_mib))

if [ "$table" = dos ]; then
    truncate -s ${total}M "$out"
    sfdisk -q --no-tell-kernel "$out" <<EOF
label: dos
start=${boot_at}MiB, size=${boot_mib}MiB, type=e, bootable
start=${roota_at}MiB, size=${root_mib}MiB, type=83
start=${rootb_at}MiB, size=${rootb_mib}MiB, type=83
start=${extended_at}MiB, size=$((total - extended_at))MiB, type=f
start=${state_at}MiB, size=${state_mib}MiB, type=83
start=${data_at}MiB, size=${data_mib}MiB, type=83
EOF
    [ "$loader" != grub ] || bios_loader
else
    truncate -s $((total + 1))M "$out"
    sfdisk -q --no-tell-kernel "$out" <<EOF
label: gpt
start=${boot_at}MiB, size=${boot_mib}MiB, type=U, name=resin-boot
start=${roota_at}MiB, size=${root_mib}MiB, type=L, name=resin-rootA
start=${rootb_at}MiB, size=${rootb_mib}MiB, type=L, name=resin-rootB
start=${state_at}MiB, size=${state_mib}MiB, type=L, name=resin-state
start=${data_at}MiB, size=${data_mib}MiB, type=L, name=resin-data
EOF
fi

ext4() { # label, start MiB, size MiB, tree
    mkfs.ext4 -q -F -L "$1" -d "$4" -m 0 -E offset=$(($2 * 1048576)) "$out" "$3M"
}
os_release() {
    cat <<EOF
ID="balena-os"
NAME="balenaOS"
VERSION="$version"
VERSION_ID="$version"
PRETTY_NAME="balenaOS $version"
MACHINE="$slug"
META_BALENA_VERSION="$version"
BALENA_BOARD_REV="b0a7d00"
META_BALENA_REV="c0ffee1"
SLUG="$slug"
EOF
}
fingerprint() { # the tree's files but for what a device changes, as meta-balena writes it
    (cd "$1" && find . -type f ! -name balenaos.fingerprint ! -name config.json -exec md5sum {} +) |
        sed 's,  \./,  /,' | sort -k2 > "$work/fingerprint"
    mv "$work/fingerprint" "$1/balenaos.fingerprint"
}

# The root file system, with the kernel and its initramfs.
tree=$work/roota
mkdir -p "$tree"/{bin,sbin,boot,etc,proc,sys,dev,run,mnt}
cp "$kit/busybox" "$tree/bin/busybox"
for name in sh mount umount mkdir cat cut sed grep awk tr wc tail df findfs sync poweroff tar gzip \
    md5sum sha256sum insmod sleep switch_root; do
    ln -s busybox "$tree/bin/$name"
done
install -m 755 "$recipes/newos-init.sh" "$tree/sbin/init"
os_release > "$tree/etc/os-release"
if [ "$loader" != config.txt ]; then
    initrd=$work/initrd
    mkdir -p "$initrd"/{proc,sys,dev,root,modules}
    cp -a "$tree/bin" "$initrd/"
    cp "$kit"/modules/* "$initrd/modules/"
    install -m 755 "$recipes/newos-initramfs.sh" "$initrd/init"
    cp "$kit/vmlinuz" "$tree/boot/bzImage"
    (cd "$initrd" && find . | "$kit/busybox" cpio -o -H newc 2> /dev/null) | gzip -6 > "$tree/boot/initrd.gz"
fi
fingerprint "$tree"
ext4 resin-rootA $roota_at "$root_mib" "$tree"

mkdir "$work/empty"
ext4 resin-rootB $rootb_at $rootb_mib "$work/empty"
ext4 resin-state $state_at $state_mib "$work/empty"
mkdir -p "$work/data/docker" "$work/data/resin-data"
echo '{"storage":"overlay2"}' > "$work/data/docker/info.json"
[ "$noise_mib" = 0 ] || head -c "${noise_mib}M" /dev/urandom > "$work/data/docker/noise"
ext4 resin-data $data_at "$data_mib" "$work/data"

# The boot partition.
tree=$work/boot
grub() {
    mkdir -p "$tree/EFI/BOOT"
    cp "$kit/bootx64.efi" "$tree/EFI/BOOT/BOOTX64.EFI"
    cat > "$tree/EFI/BOOT/grub.cfg" <<'EOF'
serial --unit=0 --speed=115200
terminal_output console serial
search --no-floppy --label --set=root resin-rootA
echo "GRUB of the new system"
linux /boot/bzImage console=tty0 console=ttyS0,115200 no_timer_check panic=30 quiet
initrd /boot/initrd.gz
boot
EOF
    [ "$table" = dos ] || return 0
    mkdir "$tree/grub"
    cp "$tree/EFI/BOOT/grub.cfg" "$tree/grub/"
}
config_txt() {
    cp "$kit"/{bootcode.bin,start.elf,fixup.dat} "$kit"/*.dtb "$tree/"
    cp "$kit"/{kernel,initramfs}[78]* "$tree/"
    local is_64=0
    [ ! -e "$kit/kernel8.img" ] || is_64=1
    printf 'arm_64bit=%s\nenable_uart=1\nupstream_kernel=1\nauto_initramfs=1\n' $is_64 > "$tree/config.txt"
    echo "console=$(cat "$kit/console"),115200 root=LABEL=resin-rootA rootwait panic=30 quiet" > "$tree/cmdline.txt"
}
mkdir -p "$tree"/{splash,system-connections,system-proxy}
case $loader in
    grub) grub ;;
    config.txt) config_txt ;;
esac
os_release > "$tree/os-release"
arch=amd64
[ ! -e "$kit/kernel8.img" ] || arch=aarch64
[ ! -e "$kit/kernel7.img" ] || arch=armv7hf
cat > "$tree/device-type.json" <<EOF
{"slug":"$slug","version":1,"aliases":["$slug"],"name":"$slug","arch":"$arch","state":"released","yocto":{"machine":"$slug","image":"balena-image","fstype":"balenaos-img","version":"yocto-kirkstone","deployArtifact":"balena-image-$slug.balenaos-img","compressed":true}}
EOF
echo "balena-image-$slug" > "$tree/image-version-info"
: > "$tree/balena-image"
echo "splash" > "$tree/splash/balena-logo.png"
echo "# redsocks" > "$tree/system-proxy/redsocks.conf.ignore"
cat > "$tree/system-connections/balena-sample.ignore" <<'EOF'
[connection]
id=balena-sample
type=wifi

[wifi]
mode=infrastructure
ssid=I_Love_Unicorns

[wifi-security]
key-mgmt=wpa-psk
psk=superpassword
EOF
echo "Copy balena-sample.ignore to a name without .ignore and edit it." > "$tree/system-connections/README.ignore"
fingerprint "$tree"
mkfs.vfat -F 16 -n resin-boot --offset $((boot_at * 2048)) "$out" $((boot_mib * 1024)) > /dev/null
mcopy -s -i "$out@@${boot_at}M" "$tree"/* ::/
