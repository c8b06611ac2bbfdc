//! Requests of 4 KiB to a disk, in a guest on an engine of ours and in the same guest on QEMU.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use basket::Line;
use clap::{Args, ValueEnum};
use guests::{Init, host};
use nested::{GUEST_CMDLINE, Machine};

use super::engines::one_run::{Outcome, run_once};
use super::subject::Vm;

/// Where to measure.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Engine {
    /// Here.
    Full,
    /// Here.
    Emu,
    /// In a nested machine.
    Hw,
}

/// How to measure.
#[derive(Args)]
pub struct Options {
    /// Which engine: full or emu beside QEMU TCG here, or hw beside QEMU-KVM in a nested machine, where
    /// instructions are counted instead of time
    #[arg(long, value_enum, default_value_t = Engine::Full)]
    engine: Engine,
    /// Runs of each subject, in turns
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// The folder for the disk; without it, one of this tree
    #[arg(long)]
    folder: Option<PathBuf>,
    /// What the disk is given besides its path, as in `,cache=none`
    #[arg(long, default_value = "")]
    options: String,
    /// Only rows whose names contain this
    #[arg(long, default_value = "")]
    rows: String,
}

const DISK_BYTES: u64 = 256 << 20;
const MEMORY_MIB: u64 = 512;
const CMDLINE: &str = "console=ttyS0 quiet panic=-1";
const LIMIT: Duration = Duration::from_secs(300);

/// Measures.
pub fn run(options: &Options) -> anyhow::Result<()> {
    host::need_packages(&["qemu-system-x86", "busybox-static", "xz-utils"])?;
    host::build_release()?;
    let kernel = guests::kernel("cloud")?;
    let initrd = guests::initrd(&kernel, &["virtio_pci", "virtio_blk"], Init::DiskLoad)?;
    let cmdline = format!("{CMDLINE} BASKET=\"--rows={}\"", options.rows);
    let mut best = [BTreeMap::new(), BTreeMap::new()];
    if options.engine == Engine::Hw {
        host::need_packages(nested::PACKAGES)?;
        let files = super::nested::files(&kernel.vmlinux()?, &initrd)?;
        for run in 1..=options.runs {
            for (best, is_ours) in best.iter_mut().zip([true, false]) {
                eprintln!("{run}/{} {}", options.runs, if is_ours { "hw" } else { "QEMU" });
                keep(best, inside(is_ours, &format!("{cmdline} {GUEST_CMDLINE}"), &files)?);
            }
        }
        let unit = "thousand instructions a request";
        report("hw", "QEMU-KVM", unit, &best, |ns| ns / 1e3);
        return Ok(());
    }
    let engine = if options.engine == Engine::Full { "full" } else { "emu" };
    let folder = options.folder.clone().map_or_else(|| host::cache("disks"), Ok)?;
    let disk = folder.join("bench.img");
    // As after an installation: there is room for every block, and the host has it in memory.
    let mut file = File::create(&disk)?;
    std::io::copy(&mut std::io::Read::take(std::io::repeat(0x17), DISK_BYTES), &mut file)?;
    file.sync_all()?;
    let vm = Vm { kernel: kernel.image, initrd, memory_mib: MEMORY_MIB, cmdline };
    for run in 1..=options.runs {
        eprintln!("{run}/{}", options.runs);
        let mut ours = vm.trine(engine)?;
        ours.args(["--disk", &format!("{}{}", disk.display(), options.options)]);
        keep(&mut best[0], lines(ours)?);
        let mut peer = vm.qemu("max");
        peer.args(qemu_disk(&disk));
        keep(&mut best[1], lines(peer)?);
    }
    std::fs::remove_file(disk)?;
    report(engine, "TCG", "thousand requests a second", &best, |ns| 1e6 / ns);
    Ok(())
}

fn qemu_disk(disk: &Path) -> [String; 4] {
    let drive = format!("if=none,id=d,format=raw,aio=io_uring,file={}", disk.display());
    ["-drive", &drive, "-device", "virtio-blk-pci,drive=d"].map(str::to_owned)
}

fn lines(command: Command) -> anyhow::Result<Vec<Line>> {
    match run_once(command, false)? {
        Outcome::Absent(why) => anyhow::bail!("it cannot run here: {why}"),
        Outcome::Ran { lines, complaints, .. } => {
            ensure!(complaints.is_empty(), "{}", complaints.join("; "));
            Ok(lines)
        }
    }
}

/// A run in a nested machine that does an instruction a nanosecond.
fn inside(is_ours: bool, cmdline: &str, files: &[String]) -> anyhow::Result<Vec<Line>> {
    let memory = MEMORY_MIB.to_string();
    let vmm = if is_ours {
        format!(
            "/job/trine run --engine hw --memory {memory}M --kernel /job/vmlinux --initrd /job/initrd \
             --cmdline '{cmdline}' --disk /tmp/disk.img"
        )
    } else {
        let disk = qemu_disk(Path::new("/tmp/disk.img")).join(" ");
        format!(
            "/job/qemu -M q35,accel=kvm -cpu host -m {memory} -nodefaults -no-user-config -no-reboot \
             -display none -serial stdio -L /usr/share/qemu -kernel /job/vmlinux -initrd /job/initrd \
             -append '{cmdline}' {disk}"
        )
    };
    let mib = DISK_BYTES >> 22; // a smaller one: it is memory there
    let script = format!(
        "busybox dd if=/dev/zero of=/tmp/disk.img bs=1M count={mib} 2>/dev/null; exec {vmm}"
    );
    let mut machine = Machine::new(["sh", "-c", &script].map(str::to_owned).to_vec());
    machine.files = files.to_vec();
    machine.count_instructions = true;
    machine.timeout = LIMIT;
    let mut said = String::new();
    machine.run(&mut |text| said.push_str(text))?;
    let lines: Vec<Line> = said.lines().filter_map(|line| line.trim().parse().ok()).collect();
    ensure!(!lines.is_empty(), "{said}");
    Ok(lines)
}

/// The smallest time of each row.
fn keep(best: &mut BTreeMap<String, f64>, lines: Vec<Line>) {
    for Line { name, timing, .. } in lines {
        let ns = best.entry(name).or_insert(f64::INFINITY);
        *ns = ns.min(timing.map_or(f64::INFINITY, |timing| timing.smallest_ns));
    }
}

fn report(
    ours: &str,
    peer: &str,
    unit: &str,
    best: &[BTreeMap<String, f64>; 2],
    figure: fn(f64) -> f64,
) {
    println!("| {unit} | `{ours}` | {peer} | {peer}'s time : ours |\n| --- | ---: | ---: | ---: |");
    for (row, ns) in &best[0] {
        let Some(theirs) = best[1].get(row) else { continue };
        println!("| {row} | {:.1} | {:.1} | {:.2} |", figure(*ns), figure(*theirs), theirs / ns);
    }
}
