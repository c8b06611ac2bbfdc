//! `hw` beside QEMU-KVM, in a machine with KVM that is made of software and counts instructions.
//!
//! Figures are instructions of everything that ran there: guest, KVM, VMM and host kernel, in
//! millions, and waiting. They repeat within half a percent at any load, and are work, not time: an
//! exit costs what the kernel executes for it.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use guests::{Init, UP, host};
use nested::{GUEST_CMDLINE, Machine};
use serde_json::Value;

use super::inside::RESULT;
use super::median;

const MEMORY_MIB: u64 = 256;
/// Failed runs of a subject before the benchmark is given up: a nested guest sometimes hangs.
const FAILURES_MAX: usize = 10;
/// QEMU's firmware, and where it looks for it.
const FIRMWARE: [&str; 5] = [
    "/usr/share/seabios/bios-256k.bin",
    "/usr/share/qemu/bios-microvm.bin",
    "/usr/share/qemu/pvh.bin",
    "/usr/share/qemu/linuxboot_dma.bin",
    "/usr/share/qemu/kvmvapic.bin",
];
const QEMU: &str = "/usr/bin/qemu-system-x86_64";

/// A VMM in one configuration.
#[derive(Clone, Copy)]
pub(super) enum Vmm {
    Trine,
    QemuMicrovm,
    QemuQ35,
}

impl Vmm {
    pub const ALL: [Self; 3] = [Self::Trine, Self::QemuMicrovm, Self::QemuQ35];

    pub fn name(self) -> &'static str {
        match self {
            Self::Trine => "trine hw",
            Self::QemuMicrovm => "qemu kvm, microvm",
            Self::QemuQ35 => "qemu kvm, q35",
        }
    }

    /// What starts it in the nested machine, which has [`files`].
    pub fn command(self, cpus: u32) -> Vec<String> {
        let (cpus, memory) = (cpus.to_string(), MEMORY_MIB.to_string());
        let cmdline = format!("console=ttyS0 reboot=k panic=-1 quiet {GUEST_CMDLINE}");
        let machine = match self {
            Self::Trine => {
                let memory = format!("{memory}M");
                let command = ["/job/trine", "run", "--engine", "hw", "--cpus", &cpus]
                    .into_iter()
                    .chain(["--memory", &memory, "--cmdline", &cmdline])
                    .chain(["--kernel", "/job/vmlinux", "--initrd", "/job/initrd"]);
                return command.map(str::to_owned).collect();
            }
            Self::QemuMicrovm => "microvm,accel=kvm,pic=off,pit=off,rtc=on",
            Self::QemuQ35 => "q35,accel=kvm",
        };
        let command = ["/job/qemu", "-cpu", "host", "-m", &memory, "-smp", &cpus]
            .into_iter()
            .chain(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
            .chain(["-serial", "stdio", "-L", "/usr/share/qemu", "-kernel", "/job/vmlinux"])
            .chain(["-initrd", "/job/initrd", "-M", machine, "-append", &cmdline]);
        command.map(str::to_owned).collect()
    }
}

/// A VMM, and what its runs gave.
struct Subject {
    vmm: Vmm,
    results: Vec<Value>,
}

impl Subject {
    /// The middle one of a figure.
    fn median(&self, figure: impl Fn(&Value) -> Option<f64>) -> f64 {
        median(&mut self.results.iter().filter_map(figure).collect::<Vec<_>>())
    }
}

/// Measures, and prints a table.
pub fn run(flavour: &str, runs: usize) -> anyhow::Result<()> {
    host::need_packages(nested::PACKAGES)?;
    let kernel = guests::kernel(flavour)?;
    let files = files(&kernel.vmlinux()?, &guests::initrd(&kernel, &[], Init::Line)?)?;
    let mut subjects = Vmm::ALL.map(|vmm| Subject { vmm, results: Vec::new() });
    for round in 1..=runs {
        for subject in &mut subjects {
            let result = measure(subject.vmm, &files)?;
            let up_ms = result["up_ms"].as_f64().unwrap_or(f64::NAN);
            eprintln!("{round}/{runs} {:18} {up_ms:8.1} Mi", subject.vmm.name());
            subject.results.push(result);
        }
    }
    report(&subjects);
    Ok(())
}

/// What the nested machine needs to run any of them.
pub(super) fn files(kernel: &Path, initrd: &Path) -> anyhow::Result<Vec<String>> {
    let us = std::env::current_exe()?;
    let programs = [("trine", "trine"), ("trinevm", "trinevm")];
    let mut files = vec![file(&us, "xtask"), file(kernel, "vmlinux"), file(initrd, "initrd")];
    for (program, name) in programs {
        files.push(file(&host::release_program(program)?, name));
    }
    files.push(file(Path::new(QEMU), "qemu"));
    for path in FIRMWARE {
        let name = Path::new(path).file_name().unwrap_or_default().to_string_lossy();
        files.push(format!("{path}:/usr/share/qemu/{name}"));
    }
    Ok(files)
}

fn file(source: &Path, name: &str) -> String {
    format!("{}:/job/{name}", source.display())
}

/// One run in a fresh machine, repeated when it fails.
fn measure(vmm: Vmm, files: &[String]) -> anyhow::Result<Value> {
    let (name, line) = (vmm.name(), UP);
    let guest_mib = MEMORY_MIB.to_string();
    let watch = ["/job/xtask", "bench", "inside", "--name", name, "--line", line, "--guest-mib"];
    let words = watch.into_iter().chain([&*guest_mib, "--"]).map(str::to_owned);
    let quoted = words.chain(vmm.command(1)).map(|word| format!("'{word}'"));
    let script = format!("exec {}", quoted.collect::<Vec<_>>().join(" "));
    let mut machine = Machine::new(["sh", "-c", &script].map(str::to_owned).to_vec());
    machine.files = files.to_vec();
    machine.count_instructions = true;
    machine.timeout = Duration::from_secs(240);
    let mut output = String::new();
    for _ in 0..FAILURES_MAX {
        output.clear();
        machine.run(&mut |text| output.push_str(text))?;
        if let Some(result) = output.lines().find_map(|line| line.strip_prefix(RESULT)) {
            return serde_json::from_str(result).context("a result that is none");
        }
        eprintln!("{name}: no result, again: {}", output.trim_end());
    }
    anyhow::bail!("{name} gave no result {FAILURES_MAX} times")
}

fn report(subjects: &[Subject]) {
    let columns = [
        "VMM",
        "exec to user space, Mi",
        "exec to first vCPU entry, Mi",
        "exits for ports and MMIO",
        "all exits to the VMM",
        "own memory, KiB",
        "of it anonymous",
    ];
    println!("| {} |\n| ---{} |", columns.join(" | "), " | ---:".repeat(columns.len() - 1));
    for subject in subjects {
        let of = |name: &'static str| subject.median(move |result| result[name].as_f64());
        let all = subject.median(|result| {
            let exits = result["exits"].as_object()?;
            Some(exits.values().filter_map(Value::as_f64).sum())
        });
        println!(
            "| {} | {:.1} | {:.1} | {} | {all} | {} | {} |",
            subject.vmm.name(),
            of("up_ms"),
            of("entry_ms"),
            of("accesses"),
            of("own_kib"),
            of("anonymous_kib")
        );
    }
}
