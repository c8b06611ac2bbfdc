//! Boot media and firmware that people have, from Debian's packages: nothing of them is ours.

use std::path::{Path, PathBuf};

use crate::cpio::{Archive, Mode};
use crate::{UP, host, packages};

/// A file of a package, which is unpacked once.
pub fn packaged(package: &str, file: &str) -> anyhow::Result<PathBuf> {
    let _lock = host::builder_lock()?;
    let dir = host::cache("media")?.join(package);
    if !dir.join(file).exists() {
        packages::unpack(&[package], &dir)?;
    }
    Ok(dir.join(file))
}

/// Debian's kernel for 32-bit CPUs without PAE, and a RAM disk for it that says it is up, tells what the
/// CPU can do, and powers off.
pub fn i386() -> anyhow::Result<(PathBuf, PathBuf)> {
    let _lock = host::builder_lock()?;
    let dir = host::cache("media")?.join("i386");
    if !dir.join("boot").exists() {
        packages::unpack_i386("linux-image-686", "busybox-static", &dir)?;
    }
    let initrd = host::cache("initrds")?.join("i386.cpio");
    let mut archive = Archive::new(Vec::new());
    for folder in ["bin", "dev", "proc"] {
        archive.add(folder, Mode::DIRECTORY, &[])?;
    }
    archive.add("bin/busybox", Mode::PROGRAM, &std::fs::read(dir.join("bin/busybox"))?)?;
    let init = format!(
        "#!/bin/busybox sh\n\
         /bin/busybox mount -t proc proc /proc\n\
         /bin/busybox grep ^flags /proc/cpuinfo\n\
         echo {UP} $(/bin/busybox uname -m)\n\
         exec /bin/busybox poweroff -f\n"
    );
    archive.add("init", Mode::PROGRAM, init.as_bytes())?;
    let partial = initrd.with_extension("partial");
    std::fs::write(&partial, archive.finish()?)?;
    std::fs::rename(&partial, &initrd)?;
    Ok((find(&dir.join("boot"), "vmlinuz-")?, initrd))
}

fn find(folder: &Path, begins: &str) -> anyhow::Result<PathBuf> {
    let entries = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    let found = entries.iter().find(|e| e.file_name().to_string_lossy().starts_with(begins));
    found.map(|e| e.path()).ok_or_else(|| anyhow::anyhow!("no {begins} in {}", folder.display()))
}
