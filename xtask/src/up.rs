//! `cargo xtask up`: from a fresh machine to a Debian that one can log in to.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;

use guests::{Debian, IMAGE, USER, free_port, host, network};

/// How to boot.
#[derive(Args)]
pub struct Options {
    /// Engine: auto, hw, emu or full
    #[arg(long, default_value = "auto")]
    engine: String,
    /// Number of CPUs
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// Memory, for example 1G
    #[arg(long, default_value = "1G")]
    memory: String,
    /// Firmware: bios or uefi
    #[arg(long, default_value = "bios")]
    firmware: String,
    /// Throw away the disk of the last time
    #[arg(long)]
    fresh: bool,
    /// Boot a new guest, log in to it by ssh, and power it off: for machines without a terminal
    #[arg(long)]
    once: bool,
}

/// How long a guest may take to its SSH server: the interpreter is a hundred times slower than
/// hardware.
const SSH_LIMIT: Duration = Duration::from_secs(1800);
const SSH_AGAIN: Duration = Duration::from_secs(2);

/// Runs it.
pub fn run(options: &Options) -> anyhow::Result<()> {
    host::need_packages(&["gcc", "libc6-dev"])?;
    step("build", host::build_release)?;
    let trine = host::release_program("trine")?;
    let debian = step("image", || guests::debian(&trine))?;
    let port = free_port()?;
    let mut command = Command::new(&trine);
    command
        .env("TRINE_HOME", &debian.home)
        .args(["run", "--engine", &options.engine, "--memory", &options.memory])
        .args(["--cpus", &options.cpus.to_string(), "--firmware", &options.firmware])
        .args(["--cloud-init", &debian.seed(), "--net", &network(port)]);
    if options.once {
        command.args(["--image", IMAGE]).stdin(Stdio::null()).stdout(Stdio::null());
        return once(&debian, port, command.spawn().context("cannot start trine")?);
    }
    let disk = step("disk", || kept_disk(&trine, &debian, options.fresh))?;
    command.arg("--disk").arg(disk);
    eprintln!("xtask: the console follows (user and password are {USER}; Ctrl-A x ends it).");
    eprintln!("xtask: when it asks for a login, paste this into another terminal:\n");
    eprintln!("    {}\n", host::show(&debian.ssh(port)));
    let begin = Instant::now();
    let status = command.status()?;
    eprintln!("xtask: guest ran for {:.1} s", begin.elapsed().as_secs_f64());
    // Whoever leaves by Ctrl-A x has seen the guest (docs/cli.md has the statuses).
    let left_by_key = status.code() == Some(6);
    if !status.success() && !left_by_key {
        bail!("trine run: {status}");
    }
    Ok(())
}

/// A disk that keeps what the guest writes: its first boot, which configures it, is then its
/// longest.
fn kept_disk(trine: &Path, debian: &Debian, fresh: bool) -> anyhow::Result<PathBuf> {
    let disk = host::cache("up")?.join("disk.img");
    if fresh && disk.exists() {
        std::fs::remove_file(&disk)?;
    }
    if !disk.exists() {
        let mut export = Command::new(trine);
        host::output(
            export.args(["image", "export", IMAGE]).arg(&disk).env("TRINE_HOME", &debian.home),
        )?;
    }
    Ok(disk)
}

/// Waits for the guest's SSH server, logs in and powers the guest off.
fn once(debian: &Debian, port: u16, mut guest: Child) -> anyhow::Result<()> {
    let reached = step("ssh", || {
        let begin = Instant::now();
        loop {
            if let Some(status) = guest.try_wait()? {
                bail!("trine run: {status}");
            }
            let mut ssh = debian.ssh(port);
            let words = "uname -r; sudo systemctl poweroff";
            match host::output(ssh.args(["-o", "ConnectTimeout=20", words])) {
                Ok(said) => return Ok(said),
                Err(error) if begin.elapsed() > SSH_LIMIT => return Err(error),
                Err(_) => thread::sleep(SSH_AGAIN),
            }
        }
    });
    if reached.is_err() {
        let _ = guest.kill();
    }
    let status = guest.wait()?;
    println!("guest is up: Linux {}", reached?.trim());
    if status.success() { Ok(()) } else { bail!("trine run: {status}") }
}

/// Runs a step, and says how long it took.
fn step<T>(name: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let begin = Instant::now();
    let result = work()?;
    eprintln!("xtask: {name:8} {:6.1} s", begin.elapsed().as_secs_f64());
    Ok(result)
}
