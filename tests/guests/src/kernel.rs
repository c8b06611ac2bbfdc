//! Debian's own kernels, from its packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::host;

/// An unpacked kernel package.
pub struct Kernel {
    /// The bzImage.
    pub image: PathBuf,
    /// Its modules: the folder named after its version.
    pub modules: PathBuf,
}

/// The kernel of the package `linux-image-FLAVOUR-amd64` (or `linux-image-amd64` for an empty
/// flavour), as the package lists of this machine have it.
pub fn kernel(flavour: &str) -> anyhow::Result<Kernel> {
    let _lock = host::builder_lock()?;
    let meta = match flavour {
        "" => "linux-image-amd64".to_owned(),
        flavour => format!("linux-image-{flavour}-amd64"),
    };
    let dir = host::cache("kernels")?;
    let unpacked = dir.join(&meta);
    if let Ok(kernel) = find(&unpacked) {
        return Ok(kernel);
    }
    let package = real_package(&meta)?;
    eprintln!("xtask: downloading {package}");
    let download = dir.join(format!("{meta}.download"));
    let _ = fs::remove_dir_all(&download);
    fs::create_dir_all(&download)?;
    host::output(
        Command::new("apt-get").args(["download", "-qq", &package]).current_dir(&download),
    )?;
    let deb = only_entry(&download)?;
    let partial = dir.join(format!("{meta}.partial"));
    let _ = fs::remove_dir_all(&partial);
    host::output(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&partial))?;
    let _ = fs::remove_dir_all(&unpacked);
    fs::rename(&partial, &unpacked)?;
    fs::remove_dir_all(&download)?;
    find(&unpacked)
}

/// What a meta package stands for today.
fn real_package(meta: &str) -> anyhow::Result<String> {
    let ask = || -> anyhow::Result<String> {
        let shown = host::output(Command::new("apt-cache").args(["depends", meta]))?;
        let name = shown
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .find(|name| name.starts_with("linux-image-"));
        name.map(str::to_owned).with_context(|| format!("{meta} names no kernel"))
    };
    ask().or_else(|_| {
        host::output(Command::new("apt-get").args(["update", "-qq"]))?;
        ask()
    })
}

fn find(unpacked: &Path) -> anyhow::Result<Kernel> {
    let starts = |dir: &Path, prefix: &str| -> anyhow::Result<PathBuf> {
        let mut entries = fs::read_dir(dir).with_context(|| format!("no {}", dir.display()))?;
        entries
            .find_map(|e| e.ok().filter(|e| e.file_name().to_string_lossy().starts_with(prefix)))
            .map(|e| e.path())
            .with_context(|| format!("no {prefix}* in {}", dir.display()))
    };
    let image = starts(&unpacked.join("boot"), "vmlinuz-")?;
    let modules = ["lib/modules", "usr/lib/modules"]
        .iter()
        .find_map(|dir| starts(&unpacked.join(dir), "").ok())
        .context("the kernel package has no modules")?;
    Ok(Kernel { image, modules })
}

fn only_entry(dir: &Path) -> anyhow::Result<PathBuf> {
    match fs::read_dir(dir)?.next() {
        Some(entry) => Ok(entry?.path()),
        None => bail!("nothing was downloaded"),
    }
}
