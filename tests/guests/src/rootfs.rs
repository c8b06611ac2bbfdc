//! A Debian root file system with systemd, as an ext4 image without partitions.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::host;

/// What the image has beyond the smallest Debian.
const INCLUDE: &str = "systemd-sysv,dbus,udev,kmod,iproute2";
const SUITE: &str = "bookworm";
const SIZE: &str = "1G";

/// What it has for tests of guest services, besides.
const SERVICES: &str = "qemu-guest-agent,socat,util-linux";

/// Builds the image, or finds it built. `root` logs in without a password. The image is shared:
/// whoever boots it read-write boots a copy.
pub fn rootfs() -> anyhow::Result<PathBuf> {
    image(SUITE, INCLUDE)
}

/// The same with what talks to the host: the QEMU guest agent and socat.
pub fn services_rootfs() -> anyhow::Result<PathBuf> {
    image(&format!("{SUITE}-services"), &format!("{INCLUDE},{SERVICES}"))
}

fn image(name: &str, include: &str) -> anyhow::Result<PathBuf> {
    let _lock = host::builder_lock()?;
    let path = host::cache("disks")?.join(format!("{name}.ext4"));
    if path.exists() {
        return Ok(path);
    }
    host::need_packages(&["mmdebstrap", "e2fsprogs"])?;
    eprintln!("xtask: making a root file system of Debian {SUITE}");
    let partial = path.with_extension("partial");
    let _ = fs::remove_file(&partial);
    // The bind mount shows the tree without what mmdebstrap has mounted into it.
    let fill = format!(
        "set -e; passwd -R \"$1\" -d root; echo debian > \"$1/etc/hostname\"; \
         b=$(mktemp -d); mount --bind \"$1\" \"$b\"; \
         mke2fs -q -F -t ext4 -L root -d \"$b\" '{}' {SIZE}; umount \"$b\"; rmdir \"$b\"",
        partial.display()
    );
    host::output(
        Command::new("mmdebstrap")
            .args(["--quiet", "--variant=minbase", "--format=null", "--include", include])
            .args(["--aptopt=APT::Install-Recommends \"false\""])
            .args(["--dpkgopt=path-exclude=/usr/share/doc/*"])
            .args(["--dpkgopt=path-exclude=/usr/share/man/*"])
            .args(["--dpkgopt=path-exclude=/usr/share/locale/*"])
            .arg(format!("--customize-hook={fill}"))
            .args([SUITE, "-"]),
    )?;
    fs::rename(&partial, &path)?;
    Ok(path)
}

/// A copy of an image that a test may write to. The test removes it.
pub fn scratch_copy(image: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let copy = host::cache("scratch")?.join(format!("{name}-{}", std::process::id()));
    host::output(Command::new("cp").arg("--sparse=always").arg(image).arg(&copy))?;
    Ok(copy)
}
