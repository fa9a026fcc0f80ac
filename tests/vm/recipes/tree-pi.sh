#!/bin/bash
# Builds the files of a Raspberry Pi that the tests migrate: Debian's kernel and modules with BusyBox
# around them, and a boot partition as Debian's raspi-firmware makes it.
#
#   tree-pi.sh OUTDIR SUITE ARCH KERNEL DEVICETREE CONSOLE AGENT
#
# DEVICETREE is the name of the board's in the kernel's package; CONSOLE and AGENT are the serial lines
# for the kernel's messages and for the harness. The packages are only unpacked: none of their scripts
# run, which would need an emulator. Leaves in OUTDIR
#   root/      the files of the root file system
#   firmware/  those of the boot partition
#   kit/       what osimage.sh takes for the new system
# from the scripts pi-init.sh and pi-initramfs.sh beside this one.
set -euo pipefail

out=$1 suite=$2 arch=$3 kernel=$4 devicetree=$5 console=$6 agent=$7
here=$(dirname "$0")
packages=$out/packages root=$out/root firmware=$out/firmware kit=$out/kit

# apt refuses the indexes of security updates of some foreign architectures, for their size: the main
# suite alone, from where this machine gets it.
# shellcheck disable=SC2016 # apt's own variable
place=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Release: $suite" | head -n 1)
mmdebstrap --quiet --mode=root --variant=extract --architectures="$arch" \
    --include="$kernel,busybox-static,klibc-utils,base-files" \
    "$suite" "$packages" ${place:+"deb $place $suite main"}

release=$(ls "$packages/lib/modules")
# Drivers that no board of the bench has.
rm -rf "$packages/lib/modules/$release"/kernel/{sound,net}
drivers=$packages/lib/modules/$release/kernel/drivers
find "$drivers" -mindepth 1 -maxdepth 1 ! -name mmc ! -name watchdog ! -name block -exec rm -rf {} +

applets() { # folder: a link for each of BusyBox's programs, as this machine's own lists them
    local name
    mkdir -p "$1/bin"
    cp "$packages/bin/busybox" "$1/bin/"
    for name in $(busybox --list); do
        [ -e "$1/bin/$name" ] || ln -s busybox "$1/bin/$name"
    done
}

mkdir -p "$root"/{boot/firmware,dev,etc,lib,proc,root/migratecfg,run,sbin,sys,tmp,var/lib,usr/lib,home/user/data}
applets "$root"
cp -a "$packages/lib/modules" "$packages"/lib/klibc-* "$root/lib/"
cp "$packages"/usr/lib/os-release "$root/usr/lib/"
ln -s ../usr/lib/os-release "$root/etc/os-release"
depmod -b "$root" "$release"
install -m 755 "$here/pi-init.sh" "$root/sbin/init"
# BusyBox's own does not pass the argument on.
cp "$packages/usr/lib/klibc/bin/reboot" "$root/sbin/reboot.klibc"
cat > "$root/sbin/reboot" <<'END'
#!/bin/sh
sync
umount /boot/firmware
mount -o remount,ro /
exec /sbin/reboot.klibc "$@"
END
chmod 755 "$root/sbin/reboot"
rm "$root/bin/reboot"
echo "$agent" > "$root/etc/bench-agent"
echo old-pi > "$root/etc/hostname"
echo 7c1f40d2b0a94f0e8d6a3b5e91c2d4f6 > "$root/etc/machine-id"
printf '127.0.0.1 localhost\n127.0.1.1 old-pi\n' > "$root/etc/hosts"
printf '/dev/mmcblk0p2 / ext4 rw 0 1\n/dev/mmcblk0p1 /boot/firmware vfat rw 0 2\n' > "$root/etc/fstab"
mkdir "$root/etc/wpa_supplicant"
cat > "$root/etc/wpa_supplicant/wpa_supplicant.conf" <<'END'
ctrl_interface=DIR=/var/run/wpa_supplicant GROUP=netdev
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
END
chmod 600 "$root/etc/wpa_supplicant/wpa_supplicant.conf"
echo 'hello from the old system' > "$root/home/user/data/greeting"
cp "$packages/boot/config-$release" "$root/boot/"

# What both systems' initramfs loads: for the card, and to restart the board.
mkdir -p "$kit/modules"
modules() {
    local name
    for name in bcm2835 sdhci_iproc bcm2835_wdt ext4 crc32c_generic vfat nls_cp437 nls_ascii; do
        modprobe -d "$root" -S "$release" --show-depends "$name" 2> /dev/null || true
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }'
}
modules > "$kit/modules/order"
while read -r path; do cp "$path" "$kit/modules/"; done < "$kit/modules/order"
sed -i 's,.*/,,' "$kit/modules/order"
initrd=$out/initrd
bits=7
[ "$arch" != arm64 ] || bits=8
mkdir -p "$initrd"/{proc,sys,dev,root,modules}
applets "$initrd"
cp "$kit"/modules/* "$initrd/modules/"
install -m 755 "$here/pi-initramfs.sh" "$initrd/init"
(cd "$initrd" && find . | busybox cpio -o -H newc 2> /dev/null) | gzip -6 > "$kit/initramfs$bits"

# The makers' firmware is in the part of Debian that is not free, and QEMU could not run it. The harness
# does its work; the files only tell what it can do, as the true ones do.
mkdir "$firmware"
for name in bootcode.bin start.elf; do
    echo "A stand-in of the test bench; it reads config.txt, and tryboot.txt too." > "$firmware/$name"
done
echo "A stand-in of the test bench." > "$firmware/fixup.dat"
cp "$packages/boot/vmlinuz-$release" "$firmware/"
cp "$kit/initramfs$bits" "$firmware/initrd.img-$release"
cp "$packages"/usr/lib/linux-image-*/"${devicetree}" "$firmware/"
cat > "$firmware/config.txt" <<END
# Do not modify this file!
#
# It is generated upon install/update of the kernel.

arm_64bit=$([ $bits = 8 ] && echo 1 || echo 0)
enable_uart=1
upstream_kernel=1

kernel=vmlinuz-$release
# For details on the initramfs directive, see
# https://www.raspberrypi.org/forums/viewtopic.php?f=63&t=10532
initramfs initrd.img-$release
END
echo "console=tty0 console=$console,115200 root=/dev/mmcblk0p2 rw fsck.repair=yes net.ifnames=0 cma=64M rootwait" \
    > "$firmware/cmdline.txt"

# By the names that the firmware looks for itself. It unpacks a kernel of 64 bits.
case $arch in
    arm64) gzip -9n < "$packages/boot/vmlinuz-$release" > "$kit/kernel8.img" ;;
    *) cp "$packages/boot/vmlinuz-$release" "$kit/kernel7.img" ;;
esac
cp "$firmware"/{bootcode.bin,start.elf,fixup.dat,"${devicetree##*/}"} "$kit/"
cp "$packages/bin/busybox" "$kit/"
echo "$console" > "$kit/console"
rm -rf "$packages" "$initrd"
[ -z "${SUDO_UID-}" ] || chown -R "$SUDO_UID:$SUDO_GID" "$out"
