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
struct Subject {
    name: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
    results: Vec<Value>,
}

fn subjects() -> [Subject; 3] {
    let subject = |name, program, arguments| Subject { name, program, arguments, results: vec![] };
    [
        subject(
            "trine hw",
            "/job/trine",
            &["run", "--engine", "hw", "--memory", "256M", "--cmdline"],
        ),
        subject(
            "qemu kvm, microvm",
            "/job/qemu",
            &["-M", "microvm,accel=kvm,pic=off,pit=off,rtc=on", "-append"],
        ),
        subject("qemu kvm, q35", "/job/qemu", &["-M", "q35,accel=kvm", "-append"]),
    ]
}

impl Subject {
    fn command(&self) -> Vec<String> {
        let cmdline = format!("console=ttyS0 reboot=k panic=-1 quiet {GUEST_CMDLINE}");
        let mut command = vec![self.program];
        if self.program == "/job/qemu" {
            command.extend(["-cpu", "host", "-m", "256", "-nodefaults", "-no-user-config"]);
            command.extend(["-no-reboot", "-display", "none", "-serial", "stdio"]);
            command.extend(["-L", "/usr/share/qemu", "-kernel", "/job/vmlinux"]);
            command.extend(["-initrd", "/job/initrd"]);
        }
        command.extend(self.arguments);
        command.push(&cmdline);
        if self.program != "/job/qemu" {
            command.extend(["--kernel", "/job/vmlinux", "--initrd", "/job/initrd"]);
        }
        command.into_iter().map(str::to_owned).collect()
    }

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
    let mut subjects = subjects();
    for round in 1..=runs {
        for subject in &mut subjects {
            let result = measure(subject, &files)?;
            let up_ms = result["up_ms"].as_f64().unwrap_or(f64::NAN);
            eprintln!("{round}/{runs} {:18} {up_ms:8.1} Mi", subject.name);
            subject.results.push(result);
        }
    }
    report(&subjects);
    Ok(())
}

fn files(kernel: &Path, initrd: &Path) -> anyhow::Result<Vec<String>> {
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
fn measure(subject: &Subject, files: &[String]) -> anyhow::Result<Value> {
    let (name, line) = (subject.name, UP);
    let guest_mib = MEMORY_MIB.to_string();
    let watch = ["/job/xtask", "bench", "inside", "--name", name, "--line", line, "--guest-mib"];
    let words = watch.into_iter().chain([&*guest_mib, "--"]).map(str::to_owned);
    let quoted = words.chain(subject.command()).map(|word| format!("'{word}'"));
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
            subject.name,
            of("up_ms"),
            of("entry_ms"),
            of("accesses"),
            of("own_kib"),
            of("anonymous_kib")
        );
    }
}
