//! Programs and packages of the machine at hand.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// The workspace's root.
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// A folder below `target/` for what tasks make and keep.
pub fn cache(name: &str) -> anyhow::Result<PathBuf> {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let dir = target.join("xtask").join(name);
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

/// Makes tests and tasks that build guests at the same time do it one after another, until the
/// file is dropped.
pub fn builder_lock() -> anyhow::Result<File> {
    let lock = File::create(cache("")?.join("lock"))?;
    lock.lock()?;
    Ok(lock)
}

/// Runs a command with its output shown.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let shown = show(command);
    let status = command.status().with_context(|| format!("cannot start {shown}"))?;
    if !status.success() {
        bail!("{shown}: {status}");
    }
    Ok(())
}

/// Runs a command and returns what it prints; its errors are part of ours.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let shown = show(command);
    let done =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {shown}"))?;
    if !done.status.success() {
        bail!("{shown}: {}\n{}", done.status, String::from_utf8_lossy(&done.stderr).trim_end());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// Cargo, in the workspace.
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    command
}

/// Installs the Debian packages that are missing.
///
/// # Errors
/// When that needs rights we do not have: the message is the command to run.
pub fn need_packages(packages: &[&str]) -> anyhow::Result<()> {
    let is_missing = |name: &&str| {
        let query = output(Command::new("dpkg-query").args(["-W", "-f=${Status}", name]));
        !query.is_ok_and(|status| status.contains("install ok installed"))
    };
    let missing: Vec<&str> = packages.iter().copied().filter(|name| is_missing(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let by_hand = format!("apt-get install {}", missing.join(" "));
    if !is_root() {
        bail!("packages are missing; run as root: {by_hand}");
    }
    eprintln!("xtask: installing {}", missing.join(" "));
    let install = || {
        output(
            Command::new("apt-get")
                .args(["install", "-y", "-qq", "--no-install-recommends"])
                .args(&missing)
                .env("DEBIAN_FRONTEND", "noninteractive"),
        )
    };
    // A fresh machine has no package lists, and an old one may have lists that are out of date.
    if install().is_err() {
        output(Command::new("apt-get").args(["update", "-qq"]))?;
        install().with_context(|| format!("cannot install packages; try: {by_hand}"))?;
    }
    Ok(())
}

fn is_root() -> bool {
    output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

/// A command as it would be typed.
pub fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Builds our programs for release, linked statically: a VM's process is then a megabyte smaller,
/// most of it pages of libc that a dynamic linker brings in.
pub fn build_release() -> anyhow::Result<()> {
    for program in ["trine", "trinevm"] {
        let what = ["rustc", "--release", "--package", program, "--bin", program];
        let how = ["--", "-C", "target-feature=+crt-static"];
        run(&mut cargo(&[&what[..], &how].concat()))?;
    }
    Ok(())
}

/// Builds the programs of the platform for release: those of [`build_release`], and the daemon.
///
/// # Errors
/// When the build fails.
pub fn build_platform() -> anyhow::Result<()> {
    build_release()?;
    run(&mut cargo(&["build", "--release", "--package", "trined", "--bin", "trined"]))
}

/// Builds the programs of the platform for tests, and gives the folder they are in.
///
/// # Errors
/// When the build fails.
pub fn build_for_tests() -> anyhow::Result<PathBuf> {
    let programs = ["--bin", "trined", "--bin", "trine", "--bin", "trinevm"];
    run(cargo(&["build", "--quiet"]).args(programs))?;
    let target = cache("")?;
    Ok(target.parent().context("cache is in the target folder")?.join("debug"))
}

/// A program of ours, built for release.
pub fn release_program(name: &str) -> anyhow::Result<PathBuf> {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let path = target.join("release").join(name);
    if !path.exists() {
        bail!("{} is not built", path.display());
    }
    Ok(path)
}

/// The program of the crate of that name, linked so that it needs nothing else in a guest.
pub fn static_program(name: &str) -> anyhow::Result<PathBuf> {
    // Apart from what the caller's own cargo may be building.
    let target = cache(name)?;
    let mut build = cargo(&["rustc", "--quiet", "--release", "--package", name, "--bin", name]);
    build.arg("--target-dir").arg(&target);
    build.args(["--", "-C", "target-feature=+crt-static", "-C", "strip=symbols"]);
    output(&mut build)?;
    Ok(target.join("release").join(name))
}
