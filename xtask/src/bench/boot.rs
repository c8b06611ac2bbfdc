//! Boot of Debian's kernel to user space, beside QEMU.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use clap::Args;
use guests::{Init, UP, host};

use super::median;
use super::subject::{Measured, measure};

/// How to measure.
#[derive(Args)]
pub struct Options {
    /// Interleaved runs of each subject
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Debian's kernel flavour: cloud, rt, or empty for the general one
    #[arg(long, default_value = "cloud")]
    flavour: String,
}

const MEMORY_MIB: u64 = 512;
const CMDLINE: &str = "console=ttyS0 quiet panic=-1";

/// How to start a VMM with a kernel and a RAM disk.
type Start = Box<dyn Fn(&Path, &Path) -> anyhow::Result<Command>>;

/// A VMM in one configuration.
struct Subject {
    name: &'static str,
    command: Start,
    results: Vec<Measured>,
}

/// Measures `emu` beside QEMU TCG.
pub fn run(options: &Options) -> anyhow::Result<()> {
    host::need_packages(&["qemu-system-x86", "busybox-static", "xz-utils"])?;
    host::run(&mut host::cargo(&["build", "--release", "--bin", "trine", "--bin", "trinevm"]))?;
    let kernel = guests::kernel(&options.flavour)?;
    let initrd = guests::initrd(&kernel, &[], Init::PowerOff)?;
    let mut subjects = [
        Subject { name: "trine emu", command: Box::new(trine), results: Vec::new() },
        qemu("qemu tcg, qemu64", "qemu64"),
        qemu("qemu tcg, max", "max"),
    ];
    for round in 1..=options.runs {
        for subject in &mut subjects {
            let command = (subject.command)(&kernel.image, &initrd)?;
            let measured = measure(command, UP, Duration::from_secs(120))?;
            eprintln!("{round}/{} {:18} {:6.2} s", options.runs, subject.name, measured.seconds);
            subject.results.push(measured);
        }
    }
    report(&mut subjects);
    Ok(())
}

fn trine(kernel: &Path, initrd: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(host::release_program("trine")?);
    command.args(["run", "--engine", "emu", "--memory", &format!("{MEMORY_MIB}M")]);
    command.arg("--kernel").arg(kernel).arg("--initrd").arg(initrd).args(["--cmdline", CMDLINE]);
    Ok(command)
}

fn qemu(name: &'static str, cpu: &'static str) -> Subject {
    let command = move |kernel: &Path, initrd: &Path| {
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-accel", "tcg", "-cpu", cpu, "-m", &MEMORY_MIB.to_string()]);
        command.args(["-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"]);
        command.arg("-kernel").arg(kernel).arg("-initrd").arg(initrd).args(["-append", CMDLINE]);
        Ok(command)
    };
    Subject { name, command: Box::new(command), results: Vec::new() }
}

fn report(subjects: &mut [Subject]) {
    let seconds =
        |s: &Subject| median(&mut s.results.iter().map(|r| r.seconds).collect::<Vec<_>>());
    let peer = subjects[1..].iter().map(&seconds).fold(f64::INFINITY, f64::min);
    println!("| VMM | to user space, median s | smallest s | against TCG | own memory, MiB |");
    println!("| --- | ---: | ---: | ---: | ---: |");
    for subject in subjects {
        let median = seconds(subject);
        let smallest = subject.results.iter().map(|r| r.seconds).fold(f64::INFINITY, f64::min);
        let own = subject.results.iter().map(|r| r.own_kib_max).max().unwrap_or(0);
        let ratio = median / peer;
        println!(
            "| {} | {median:.2} | {smallest:.2} | {ratio:.2} | {:.1} |",
            subject.name,
            own as f64 / 1024.0
        );
    }
    println!("\nQEMU's own memory counts its guest's: it does not keep it in shared memory.");
}
