//! Debian's packages, unpacked without being installed.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use crate::host;

/// Downloads packages, as the package lists of this machine have them, and unpacks them together
/// into the folder `to`, which is there whole or not at all.
pub fn unpack(packages: &[&str], to: &Path) -> anyhow::Result<()> {
    into(to, |download| {
        let get = || {
            let mut get = Command::new("apt-get");
            host::output(get.args(["download", "-qq"]).args(packages).current_dir(download))
        };
        if get().is_err() {
            // A fresh machine has no package lists, and an old one may have lists that are out of date.
            host::output(Command::new("apt-get").args(["update", "-qq"]))?;
            get().with_context(|| format!("cannot download {}", packages.join(" ")))?;
        }
        Ok(())
    })
}

/// The same for packages of the architecture i386, whose lists this machine need not have: what the
/// package `meta` depends on first, and another.
pub fn unpack_i386(meta: &str, other: &str, to: &Path) -> anyhow::Result<()> {
    into(to, |download| {
        let lists = download.join("lists");
        fs::create_dir_all(lists.join("partial"))?;
        let apt = |program: &str| {
            let mut apt = Command::new(program);
            apt.args(["-o", "APT::Architecture=i386", "-o", "APT::Architectures=i386", "-o"]);
            apt.arg(format!("Dir::State::lists={}", lists.display()));
            apt.arg("-o").arg(format!("Dir::Cache={}", lists.display()));
            apt.current_dir(download);
            apt
        };
        // One list of several may be missing where a mirror is being written: the rest will do.
        let _ = host::output(apt("apt-get").args(["update", "-qq"]));
        let depends = host::output(apt("apt-cache").args(["depends", meta]))?;
        let package = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
        let package = package.with_context(|| format!("{meta} depends on nothing"))?;
        host::output(apt("apt-get").args(["download", "-qq", package, other]))?;
        Ok(fs::remove_dir_all(lists)?)
    })
}

/// Unpacks what `get` puts into a folder.
fn into(to: &Path, get: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let (download, partial) = (to.with_extension("download"), to.with_extension("partial"));
    for dir in [&download, &partial] {
        let _ = fs::remove_dir_all(dir);
        fs::create_dir_all(dir)?;
    }
    get(&download)?;
    for deb in fs::read_dir(&download)? {
        host::output(Command::new("dpkg-deb").arg("-x").arg(deb?.path()).arg(&partial))?;
    }
    let _ = fs::remove_dir_all(to);
    fs::rename(&partial, to)?;
    Ok(fs::remove_dir_all(&download)?)
}
