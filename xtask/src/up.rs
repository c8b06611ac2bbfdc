//! `cargo xtask up`: from a fresh machine to the shell of a guest.

use std::process::Command;
use std::time::Instant;

use anyhow::bail;
use clap::Args;

use guests::{Init, host};

/// How to boot.
#[derive(Args)]
pub struct Options {
    /// Engine: auto, hw, emu or full
    #[arg(long, default_value = "auto")]
    engine: String,
    /// Number of CPUs
    #[arg(long, default_value_t = 1)]
    cpus: u32,
    /// Memory, for example 512M
    #[arg(long, default_value = "512M")]
    memory: String,
    /// Debian's kernel flavour: cloud, rt, or empty for the general one
    #[arg(long, default_value = "cloud")]
    flavour: String,
    /// Boot, say that the guest is up, and power it off: for machines without a terminal
    #[arg(long)]
    once: bool,
}

/// Runs it.
pub fn run(options: &Options) -> anyhow::Result<()> {
    host::need_packages(&["busybox-static", "xz-utils", "gcc", "libc6-dev"])?;
    step("build", host::build_release)?;
    let kernel = step("kernel", || guests::kernel(&options.flavour))?;
    let init = if options.once { Init::PowerOff } else { Init::Shell };
    let initrd = step("initrd", || guests::initrd(&kernel, &[], init))?;
    let trine = host::release_program("trine")?;
    let mut command = Command::new(trine);
    command
        .args(["run", "--engine", &options.engine, "--memory", &options.memory])
        .args(["--cpus", &options.cpus.to_string()])
        .arg("--kernel")
        .arg(&kernel.image)
        .arg("--initrd")
        .arg(&initrd)
        .args(["--cmdline", "console=ttyS0 quiet panic=-1"]);
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

/// Runs a step, and says how long it took.
fn step<T>(name: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let begin = Instant::now();
    let result = work()?;
    eprintln!("xtask: {name:8} {:6.1} s", begin.elapsed().as_secs_f64());
    Ok(result)
}
