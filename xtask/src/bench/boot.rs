//! Boot of Debian's kernel to user space, beside QEMU.

use std::process::Command;
use std::time::Duration;

use clap::{Args, ValueEnum};
use guests::{Init, UP, host};

use super::subject::{OwnMemory, Vm, measure};
use super::{median, nested};

/// How to measure.
#[derive(Args)]
pub struct Options {
    /// Which engine: emu beside QEMU TCG here, or hw beside QEMU-KVM in a nested machine, where
    /// instructions are counted instead of time
    #[arg(long, value_enum, default_value_t = Engine::Emu)]
    engine: Engine,
    /// Interleaved runs of each subject
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Debian's kernel flavour: cloud, rt, or empty for the general one
    #[arg(long, default_value = "cloud")]
    flavour: String,
}

/// Where to measure.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Engine {
    /// Here.
    Emu,
    /// In a nested machine.
    Hw,
}

const MEMORY_MIB: u64 = 512;
const CMDLINE: &str = "console=ttyS0 quiet panic=-1";

/// How to start a VMM.
type Start = fn(&Vm) -> anyhow::Result<Command>;

/// A VMM in one configuration.
struct Subject {
    name: &'static str,
    command: Start,
    seconds: Vec<f64>,
    own_kib_max: u64,
}

/// Measures an engine beside QEMU.
pub fn run(options: &Options) -> anyhow::Result<()> {
    host::need_packages(&["qemu-system-x86", "busybox-static", "xz-utils"])?;
    host::build_release()?;
    match options.engine {
        Engine::Emu => run_emu(options),
        Engine::Hw => nested::run(&options.flavour, options.runs),
    }
}

fn run_emu(options: &Options) -> anyhow::Result<()> {
    let kernel = guests::kernel(&options.flavour)?;
    let initrd = guests::initrd(&kernel, &[], Init::PowerOff)?;
    let vm = Vm { kernel: kernel.image, initrd, memory_mib: MEMORY_MIB, cmdline: CMDLINE.into() };
    let mut subjects = [
        subject("trine emu", |vm| vm.trine("emu")),
        subject("qemu tcg, qemu64", |vm| Ok(vm.qemu("qemu64"))),
        subject("qemu tcg, max", |vm| Ok(vm.qemu("max"))),
    ];
    for round in 1..=options.runs {
        for subject in &mut subjects {
            let command = (subject.command)(&vm)?;
            let (limit, interval) = (Duration::from_secs(120), Duration::from_millis(10));
            let seconds = measure(command, UP, limit, interval, &mut |pid| {
                let own = OwnMemory::of(pid, MEMORY_MIB << 10);
                subject.own_kib_max = subject.own_kib_max.max(own.kib);
            })?;
            eprintln!("{round}/{} {:18} {seconds:6.2} s", options.runs, subject.name);
            subject.seconds.push(seconds);
        }
    }
    report(&mut subjects);
    Ok(())
}

fn subject(name: &'static str, command: Start) -> Subject {
    Subject { name, command, seconds: Vec::new(), own_kib_max: 0 }
}

fn report(subjects: &mut [Subject]) {
    let medians: Vec<_> = subjects.iter_mut().map(|s| median(&mut s.seconds)).collect();
    let peer = medians[1..].iter().copied().fold(f64::INFINITY, f64::min);
    println!("| VMM | to user space, median s | smallest s | against TCG | own memory, MiB |");
    println!("| --- | ---: | ---: | ---: | ---: |");
    for (subject, median) in subjects.iter().zip(medians) {
        let smallest = subject.seconds.iter().copied().fold(f64::INFINITY, f64::min);
        println!(
            "| {} | {median:.2} | {smallest:.2} | {:.2} | {:.1} |",
            subject.name,
            median / peer,
            subject.own_kib_max as f64 / 1024.0
        );
    }
}
