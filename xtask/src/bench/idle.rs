//! What a guest costs that does nothing: CPU time of its VM's process while Debian's kernel waits
//! at a shell.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use guests::{Init, UP, host};
use nested::Machine;

use super::nested::Vmm;
use super::subject::{Vm, measure};

/// From the first line of user space to a guest that is at rest.
const SETTLE: Duration = Duration::from_secs(3);
/// For the boot, and for what is measured.
const LIMIT: Duration = Duration::from_secs(180);
const MEMORY_MIB: u64 = 256;
const CMDLINE: &str = "console=ttyS0 quiet panic=-1";

/// Where to measure.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Engine {
    /// Here.
    Emu,
    /// Here.
    Full,
    /// In a nested machine.
    Hw,
}

/// How to measure.
#[derive(Args)]
pub struct Options {
    /// Which engine: emu or full here, or hw beside QEMU-KVM in a nested machine, where instructions are
    /// counted instead of time
    #[arg(long, value_enum, default_value_t = Engine::Emu)]
    engine: Engine,
    /// CPUs of the guests, one after the other
    #[arg(long, value_delimiter = ',', default_value = "1,4")]
    cpus: Vec<u32>,
    /// How long to look
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// Measures this VM on the machine at hand
    #[arg(last = true, hide = true)]
    vm: Vec<String>,
}

/// Measures, and prints a line for each guest.
pub fn run(options: &Options) -> anyhow::Result<()> {
    if let Some((program, arguments)) = options.vm.split_first() {
        let mut command = Command::new(program);
        command.args(arguments);
        return watch(command, options.seconds);
    }
    host::need_packages(&["busybox-static", "xz-utils"])?;
    host::build_release()?;
    let kernel = guests::kernel("cloud")?;
    let initrd = guests::initrd(&kernel, &[], Init::Shell)?;
    let files = match options.engine {
        Engine::Emu | Engine::Full => Vec::new(),
        Engine::Hw => {
            host::need_packages(nested::PACKAGES)?;
            super::nested::files(&kernel.vmlinux()?, &initrd)?
        }
    };
    let vm = Vm { kernel: kernel.image, initrd, memory_mib: MEMORY_MIB, cmdline: CMDLINE.into() };
    for cpus in &options.cpus {
        match options.engine {
            Engine::Emu | Engine::Full => {
                let engine = if options.engine == Engine::Emu { "emu" } else { "full" };
                print!("{engine}, {cpus} CPUs: ");
                let mut command = vm.trine(engine)?;
                command.args(["--cpus", &cpus.to_string()]);
                watch(command, options.seconds)?;
            }
            Engine::Hw => {
                for vmm in [Vmm::Trine, Vmm::QemuQ35] {
                    print!("{}, {cpus} CPUs, nested: ", vmm.name());
                    match watch_nested(vmm, *cpus, options.seconds, &files) {
                        // QEMU's guests with several CPUs hang where instructions are counted.
                        Err(error) if !matches!(vmm, Vmm::Trine) => {
                            println!("not measured: {}", error.to_string().trim_end());
                        }
                        measured => measured?,
                    }
                }
            }
        }
    }
    Ok(())
}

/// Starts a VM, and looks at its process once its guest is at rest.
fn watch(command: Command, seconds: u64) -> anyhow::Result<()> {
    let mut used = None;
    measure(command, UP, LIMIT, LIMIT, &mut |pid| {
        thread::sleep(SETTLE);
        let (before, begin) = (cpu_ns(pid), Instant::now());
        thread::sleep(Duration::from_secs(seconds));
        used = before.and_then(|ns| Some((cpu_ns(pid)? - ns, begin.elapsed())));
    })?;
    let (ns, elapsed) = used.context("the VM's process has no CPU time to look at")?;
    let (ms, seconds) = (ns as f64 / 1e6, elapsed.as_secs_f64());
    println!("{ms:.1} ms in {seconds:.1} s, {:.2} % of a CPU", ms / seconds / 10.0);
    Ok(())
}

/// CPU time of all of a process's threads (proc(5), Linux's sched-stats documentation).
fn cpu_ns(pid: u32) -> Option<u64> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let of = |thread: fs::DirEntry| -> Option<u64> {
        let stat = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        stat.split_whitespace().next()?.parse().ok()
    };
    threads.map(of).sum()
}

/// The same in a machine with KVM that executes an instruction a nanosecond, whatever the time is
/// here: CPU time is instructions of the guest, KVM and the VMM.
fn watch_nested(vmm: Vmm, cpus: u32, seconds: u64, files: &[String]) -> anyhow::Result<()> {
    let words = vmm.command(cpus).into_iter().map(|word| format!("'{word}'"));
    let words = words.collect::<Vec<_>>().join(" ");
    let script = format!("exec /job/xtask bench idle --seconds {seconds} -- {words}");
    let mut machine = Machine::new(["sh", "-c", &script].map(str::to_owned).to_vec());
    machine.files = files.to_vec();
    machine.count_instructions = true;
    machine.timeout = LIMIT * 2;
    let mut said = String::new();
    let code = machine.run(&mut |text| said.push_str(text))?;
    ensure!(code == 0, "{said}");
    print!("{said}");
    Ok(())
}
