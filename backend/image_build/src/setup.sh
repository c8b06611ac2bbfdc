# Runs where the packages were installed, as whoever is root there. $1 is the tree.
#
# From the environment: TRINE_OUT, a folder for results; TRINE_ROOT_OFFSET, bytes, and
# TRINE_ROOT_KIB: where the root file system goes in TRINE_OUT/disk; TRINE_SOURCES.
set -eu
r=$1
cd "$TRINE_OUT"

# What the disk is, and so what its UUIDs are (`Identity` has the same rule).
chroot "$r" dpkg-query -W > packages
uuid() {
  { echo "$1"; cat packages; } | sha256sum | sed -E \
    's/^(.{8})(.{4}).(.{3})(.)(.{3})(.{12}).*/\1 \2 8\3 \4 \5 \6/' | {
    read -r a b c d e f
    echo "$a-$b-$c-$(printf '%x' $((0x$d & 3 | 8)))$e-$f"
  }
}
root_uuid=$(uuid root-fs)

# --- nothing of the host -----------------------------------------------------------------------
echo debian > "$r/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 debian\n::1 localhost ip6-localhost ip6-loopback\n' \
  > "$r/etc/hosts"
rm -f "$r"/etc/apt/apt.conf.d/99mmdebstrap "$r"/etc/dpkg/dpkg.cfg.d/99mmdebstrap
rm -f "$r"/etc/apt/sources.list.d/*
printf '%s\n' "$TRINE_SOURCES" > "$r/etc/apt/sources.list"
rm -f "$r"/etc/resolv.conf "$r"/etc/ssh/ssh_host_* "$r/var/lib/dbus/machine-id"
ln -s ../run/systemd/resolve/stub-resolv.conf "$r/etc/resolv.conf"
: > "$r/etc/machine-id"

# --- what the first boot configures ------------------------------------------------------------
printf 'UUID=%s / ext4 errors=remount-ro 0 1\nLABEL=EFI /boot/efi vfat umask=0077,nofail 0 1\n' \
  "$root_uuid" > "$r/etc/fstab"
cat > "$r/etc/cloud/cloud.cfg.d/90_image.cfg" <<'CFG'
datasource_list: [NoCloud, ConfigDrive, None]
locale: C.UTF-8
# The image's sources are right, or were chosen when it was built.
apt_preserve_sources_list: true
ssh_genkeytypes: [ed25519, ecdsa]
CFG
# Also without a seed, the network and the SSH server's keys are to be made.
echo 'policy: enabled' > "$r/etc/cloud/ds-identify.cfg"
chroot "$r" systemctl -q enable systemd-networkd systemd-resolved

# --- boot loaders ------------------------------------------------------------------------------
mkdir -p "$r/boot/efi" "$r/boot/grub/i386-pc"
cat > "$r/etc/default/grub" <<'CFG'
GRUB_DEFAULT=0
GRUB_TIMEOUT=1
GRUB_DISTRIBUTOR=Debian
GRUB_CMDLINE_LINUX_DEFAULT=""
GRUB_CMDLINE_LINUX="console=tty0 console=ttyS0,115200"
GRUB_TERMINAL="console serial"
GRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"
GRUB_DISABLE_OS_PROBER=true
CFG
# The package grub-cloud-amd64 then keeps both loaders up to date.
touch "$r/etc/grub.d/enable_cloud"
# Until the first update-grub, which wants a device to look at.
cat > "$r/boot/grub/grub.cfg" <<CFG
serial --unit=0 --speed=115200
terminal_input console serial
terminal_output console serial
set timeout=1
search --no-floppy --set=root --fs-uuid $root_uuid
menuentry "Debian GNU/Linux" {
  linux /vmlinuz root=UUID=$root_uuid ro console=tty0 console=ttyS0,115200
  initrd /initrd.img
}
menuentry "Debian GNU/Linux, single user" {
  linux /vmlinuz root=UUID=$root_uuid ro console=tty0 console=ttyS0,115200 single
  initrd /initrd.img
}
CFG
cp "$r"/usr/lib/grub/i386-pc/*.mod "$r"/usr/lib/grub/i386-pc/*.lst "$r/boot/grub/i386-pc/"
chroot "$r" grub-mkimage -O i386-pc -p '(hd0,gpt3)/boot/grub' -o /tmp/core.img \
  biosdisk part_gpt part_msdos ext2 search search_fs_uuid normal configfile linux serial \
  terminal echo test ls cat boot halt reboot minicmd all_video
cat "$r/tmp/core.img" > core.img
rm "$r/tmp/core.img"
cat "$r/usr/lib/grub/i386-pc/boot.img" > boot.img
cat "$r/usr/lib/shim/shimx64.efi.signed" > shim
cat "$r/usr/lib/shim/mmx64.efi.signed" > mok_manager
cat "$r/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed" > grub

# --- the file system ---------------------------------------------------------------------------
rm -rf "$r"/var/cache/apt/* "$r"/var/lib/apt/lists/* "$r"/var/tmp/*
find "$r/var/log" -type f -delete
rm -f "$r"/var/cache/ldconfig/aux-cache "$r"/etc/*- "$r"/var/lib/dpkg/*-old
rm -f "$r"/var/cache/debconf/*-old
# A plain bind shows the tree without what is mounted on it for now.
mkdir tree
mount --bind "$r" tree
# mmdebstrap keeps the settings of its apt here: it would take the host's without.
mount -t tmpfs -o mode=1777 tmpfs tree/tmp
mke2fs -q -F -t ext4 -L root -U "$root_uuid" \
  -E "offset=$TRINE_ROOT_OFFSET,hash_seed=$(uuid hash-seed)" -d tree disk "${TRINE_ROOT_KIB}k"
umount tree/tmp
umount tree
rmdir tree
