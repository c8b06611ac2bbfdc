//! Debian's packages, unpacked without being installed.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use crate::host;

/// Downloads packages, as the package lists of this machine have them, and unpacks them together
/// into the folder `to`, which is there whole or not at all.
pub fn unpack(packages: &[&str], to: &Path) -> anyhow::Result<()> {
    let (download, partial) = (to.with_extension("download"), to.with_extension("partial"));
    for dir in [&download, &partial] {
        let _ = fs::remove_dir_all(dir);
        fs::create_dir_all(dir)?;
    }
    let get = || {
        let mut get = Command::new("apt-get");
        host::output(get.args(["download", "-qq"]).args(packages).current_dir(&download))
    };
    if get().is_err() {
        // A fresh machine has no package lists, and an old one may have lists that are out of date.
        host::output(Command::new("apt-get").args(["update", "-qq"]))?;
        get().with_context(|| format!("cannot download {}", packages.join(" ")))?;
    }
    for deb in fs::read_dir(&download)? {
        host::output(Command::new("dpkg-deb").arg("-x").arg(deb?.path()).arg(&partial))?;
    }
    let _ = fs::remove_dir_all(to);
    fs::rename(&partial, to)?;
    Ok(fs::remove_dir_all(&download)?)
}
