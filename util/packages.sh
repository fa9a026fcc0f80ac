# Sourced by the other scripts: installs the Debian packages that they need.
# shellcheck shell=bash

# Installs what is missing of the given packages, and says so.
need_packages() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2> /dev/null | grep -q 'ok installed' ||
            missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    echo "installing packages: ${missing[*]}"

    local sudo=()
    [ "$(id -u)" -eq 0 ] || sudo=(sudo)
    "${sudo[@]}" apt-get -qq update
    # qemu-utils must be of qemu-system-x86's version: a newer one that some machines carry would be
    # removed otherwise. Both are named then, with the version that the sources offer, as the others.
    local version wanted=()
    for package in "${missing[@]}"; do
        case $package in
            qemu-*)
                version=$(apt-cache policy qemu-system-x86 | awk '/Candidate/ { print $2 }')
                wanted+=("qemu-system-x86=$version" "qemu-utils=$version" "$package=$version")
                ;;
            *) wanted+=("$package") ;;
        esac
    done
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y \
        --no-install-recommends --allow-downgrades "${wanted[@]}" > /dev/null
}

# What the tests make and read file systems and archives with, the NetworkManager that they load
# keyfiles into, the sshd of pretend devices, and a PostgreSQL for units (the tests start one of their
# own; a cluster that the machine has is let alone).
need_test_packages() {
    need_packages fdisk e2fsprogs dosfstools mtools gzip xz-utils zstd bzip2 zip busybox-static
    need_packages network-manager dbus util-linux xfsprogs btrfs-progs openssh-client openssh-server
    need_packages grub-emu grub-common grub-pc-bin grub-efi-amd64-bin grub-efi-ia32-bin
    need_packages postgresql openssl
    # For migdb's page, and for balena's client; some machines have Node from elsewhere.
    need_packages chromium
    command -v npm > /dev/null || need_packages nodejs npm
}

# What the virtual machines of tests/vm are made with.
need_vm_packages() {
    need_test_packages
    need_packages qemu-system-arm device-tree-compiler kmod
    need_packages qemu-system-x86 qemu-utils ovmf mmdebstrap arch-test gzip systemd-boot-efi
}

# What a build needs beside Rust itself.
need_build_packages() {
    need_packages gcc libc6-dev
}
