//! The package in a Debian that has nothing else: installed, upgraded while a VM runs, removed, installed again, purged.
//!
//! That root has no systemd running, so the daemon is started by hand where the unit would.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::Context;
use guests::{Init, host};

use super::{Compression, Programs, make};

/// What is done inside; `$1` is a version that is newer than the first package's.
const SCRIPT: &str = include_str!("trial.sh");
const OLD: &str = "0.0.1~trial";
const NEW: &str = "0.0.2~trial";

/// Runs it.
pub fn run(programs: &Programs) -> anyhow::Result<()> {
    let begin = Instant::now();
    host::need_packages(&["mmdebstrap", "busybox-static", "xz-utils", "binutils"])?;
    let root = clean_root()?;
    let kernel = guests::kernel("cloud")?;
    let initrd = guests::initrd(&kernel, &[], Init::Shell)?;
    for (version, name) in [(OLD, "old.deb"), (NEW, "new.deb")] {
        let package = make(programs, version, Compression::None)?;
        fs::rename(&package, root.join(name))?;
    }
    fs::copy(&kernel.image, root.join("vmlinuz"))?;
    fs::copy(initrd, root.join("initrd"))?;
    fs::write(root.join("trial.sh"), SCRIPT)?;
    let mut inside = Command::new("unshare");
    // With the namespace of processes, all that was started in there ends.
    inside.args(["--mount", "--pid", "--net", "--fork", "--kill-child", "sh", "-ec"]);
    inside.arg(
        "mount -t proc proc \"$0/proc\"; mount -t devtmpfs dev \"$0/dev\"; mount -t tmpfs run \"$0/run\"; \
         exec chroot \"$0\" /bin/sh -eu /trial.sh \"$1\"",
    );
    let said = host::output(inside.arg(&root).arg(NEW));
    fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))?;
    said?;
    eprintln!("xtask: package: installed, upgraded, removed and purged in {:.0?}", begin.elapsed());
    Ok(())
}

/// A Debian of the packages that every one has.
fn clean_root() -> anyhow::Result<PathBuf> {
    let folder = host::cache("package")?;
    let archive = folder.join("clean.tar");
    if !archive.exists() {
        let new = folder.join("clean.new.tar");
        let mut bootstrap = Command::new("mmdebstrap");
        bootstrap.args(["--quiet", "--variant=minbase", "bookworm"]).arg(&new);
        host::output(&mut bootstrap)?;
        fs::rename(new, &archive)?;
    }
    let root = folder.join("clean");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    fs::create_dir_all(&root)?;
    unpack(&archive, &root)?;
    Ok(root)
}

fn unpack(archive: &Path, root: &Path) -> anyhow::Result<()> {
    let mut tar = Command::new("tar");
    tar.arg("-xf").arg(archive).arg("-C").arg(root).args(["--exclude=./dev/*"]);
    host::output(&mut tar).map(drop)
}
