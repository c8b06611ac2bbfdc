//! The basket of small programs on each engine, on QEMU TCG and on this machine, in turns.
//!
//! What the programs compute must be the same everywhere; what differs is told and fails the run.

pub(super) mod one_run;
mod table;

use std::collections::BTreeMap;

use basket::{Line, Timing};
use clap::{Args, ValueEnum};
use guests::{Init, Kernel, UP, host};

use super::median;
use super::subject::{Vm, measure};
use one_run::{Outcome, run_once};

/// How to measure.
#[derive(Args)]
pub struct Options {
    /// What to run; one that cannot run on this machine is told and left out
    #[arg(long, value_enum, value_delimiter = ',', default_value = "native,tcg,full,emu")]
    subjects: Vec<Kind>,
    /// Only rows whose names contain this
    #[arg(long, default_value = "")]
    rows: String,
    /// Runs of each subject, in turns
    #[arg(long, default_value_t = 3)]
    passes: usize,
    /// How many seconds the rows of one run may take together, in a subject that is slow
    #[arg(long, default_value_t = 90)]
    seconds: u64,
    /// Tell what each run of ours took, and why translated code was left, boot and power-off included
    #[arg(long)]
    exits: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// This machine itself; always there, since the others are compared with it
    Native,
    /// QEMU TCG as qemu64 and as max: the better one counts, for each row
    Tcg,
    Full,
    Emu,
    Hw,
}

/// The name of the row for boot, which is not of the basket: no guest can measure it.
const BOOT: &str = "boot";
/// About how many rows share the time.
const ROWS: u64 = 40;
const MEMORY_MIB: u64 = 1024;
const CMDLINE: &str = "console=ttyS0 quiet panic=-1";

/// Who runs the basket.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// The host.
    Native,
    /// An engine of ours.
    Trine(&'static str),
    /// QEMU TCG with this CPU.
    Tcg(&'static str),
}

impl Machine {
    fn all_of(kinds: &[Kind]) -> Vec<Self> {
        // First, because others are compared with it.
        let mut machines = vec![Self::Native];
        for kind in kinds {
            match kind {
                Kind::Native => {}
                Kind::Tcg => machines.extend([Self::Tcg("qemu64"), Self::Tcg("max")]),
                Kind::Full => machines.push(Self::Trine("full")),
                Kind::Emu => machines.push(Self::Trine("emu")),
                Kind::Hw => machines.push(Self::Trine("hw")),
            }
        }
        machines
    }

    /// What it is called in tables: the two of TCG are one there.
    pub fn column(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Trine(engine) => engine,
            Self::Tcg(_) => "TCG",
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcg(cpu) => write!(f, "TCG {cpu}"),
            _ => f.write_str(self.column()),
        }
    }
}

/// A machine with what it has shown so far.
struct Subject {
    machine: Machine,
    times: BTreeMap<String, Vec<Timing>>,
}

/// Measures.
pub fn run(options: &Options) -> anyhow::Result<()> {
    host::need_packages(&["qemu-system-x86", "busybox-static", "xz-utils"])?;
    host::build_release()?;
    let kernel = guests::kernel("cloud")?;
    let basket = guests::basket()?;
    let row_ms = options.seconds * 1000 / ROWS;
    let arguments = format!("--row-ms {row_ms} --rows={}", options.rows);
    let vm = Vm {
        kernel: kernel.image.clone(),
        initrd: basket.initrd.clone(),
        memory_mib: MEMORY_MIB,
        cmdline: format!("{CMDLINE} BASKET=\"{arguments}\""),
    };
    let mut subjects: Vec<Subject> = Machine::all_of(&options.subjects)
        .into_iter()
        .map(|machine| Subject { machine, times: BTreeMap::new() })
        .collect();
    let (mut sums, mut wrong) = (BTreeMap::new(), Vec::new());
    for pass in 1..=options.passes {
        let mut absent = Vec::new();
        for (at, subject) in subjects.iter_mut().enumerate() {
            let machine = subject.machine;
            eprintln!("{pass}/{} {machine}", options.passes);
            let command = match machine {
                Machine::Native => {
                    let mut native = basket.native();
                    native.args(arguments.split(' '));
                    native
                }
                Machine::Trine(engine) => {
                    let mut command = vm.trine(engine)?;
                    command.args(options.exits.then_some("--summary"));
                    command
                }
                Machine::Tcg(cpu) => vm.qemu(cpu),
            };
            let to_the_end = options.exits && matches!(machine, Machine::Trine(_));
            match run_once(command, to_the_end)? {
                Outcome::Absent(why) => {
                    eprintln!("{machine} cannot run here: {why}");
                    absent.push(at);
                }
                Outcome::Ran { lines, complaints, said } => {
                    if to_the_end {
                        eprint!("{said}");
                    }
                    wrong.extend(complaints.iter().map(|text| format!("{machine}: {text}")));
                    compare(machine, &lines, &mut sums, &mut wrong);
                    subject.take(lines);
                    if BOOT.contains(&options.rows) && machine != Machine::Native {
                        subject.boot(&kernel)?;
                    }
                }
            }
        }
        for at in absent.into_iter().rev() {
            subjects.remove(at);
        }
    }
    table::print(&columns(subjects));
    for text in &wrong {
        eprintln!("wrong: {text}");
    }
    anyhow::ensure!(wrong.is_empty(), "{} things went wrong", wrong.len());
    Ok(())
}

/// The first machine's sums are the right ones.
fn compare(
    machine: Machine,
    lines: &[Line],
    sums: &mut BTreeMap<String, u64>,
    wrong: &mut Vec<String>,
) {
    for line in lines {
        let right = *sums.entry(line.name.clone()).or_insert(line.sum);
        if line.sum != right {
            let Line { name, sum, .. } = line;
            wrong.push(format!("{machine}: {name} computes {sum:016x}, not {right:016x}"));
        }
    }
}

impl Subject {
    fn take(&mut self, lines: Vec<Line>) {
        for line in lines {
            self.times.entry(line.name).or_default().extend(line.timing);
        }
    }

    /// From the start of the VMM to user space of a small RAM disk.
    fn boot(&mut self, kernel: &Kernel) -> anyhow::Result<()> {
        let initrd = guests::initrd(kernel, &[], Init::PowerOff)?;
        let image = kernel.image.clone();
        let vm = Vm { kernel: image, initrd, memory_mib: MEMORY_MIB, cmdline: CMDLINE.into() };
        let command = match self.machine {
            Machine::Trine(engine) => vm.trine(engine)?,
            Machine::Tcg(cpu) => vm.qemu(cpu),
            Machine::Native => return Ok(()),
        };
        let limit = one_run::BOOT_LIMIT;
        let ns = measure(command, UP, limit, limit, &mut |_| {})? * 1e9;
        let timing = Timing { smallest_ns: ns, median_ns: ns };
        self.times.entry(BOOT.to_owned()).or_default().push(timing);
        Ok(())
    }
}

/// The smallest of all passes, and the median of the runs' medians, for each row; of machines in
/// one column the better one.
fn columns(subjects: Vec<Subject>) -> Vec<table::Column> {
    let mut columns: Vec<table::Column> = Vec::new();
    for subject in subjects {
        let name = subject.machine.column();
        let index = columns.iter().position(|column| column.name == name).unwrap_or_else(|| {
            columns.push(table::Column { name, rows: BTreeMap::new() });
            columns.len() - 1
        });
        for (row, times) in subject.times.into_iter().filter(|(_, times)| !times.is_empty()) {
            let smallest = times.iter().map(|time| time.smallest_ns).fold(f64::INFINITY, f64::min);
            let mut medians: Vec<f64> = times.iter().map(|time| time.median_ns).collect();
            let timing = Timing { smallest_ns: smallest, median_ns: median(&mut medians) };
            let best = columns[index].rows.entry(row).or_insert(timing);
            if timing.smallest_ns < best.smallest_ns {
                *best = timing;
            }
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(machine: Machine, smallest_ns: f64) -> Subject {
        let timing = Timing { smallest_ns, median_ns: 2.0 * smallest_ns };
        Subject { machine, times: BTreeMap::from([("call".to_owned(), vec![timing])]) }
    }

    #[test]
    fn of_two_tcgs_the_better_counts() {
        let (qemu64, max) = (Machine::Tcg("qemu64"), Machine::Tcg("max"));
        let columns = columns(vec![subject(qemu64, 7.0), subject(max, 6.0)]);
        assert_eq!(columns.len(), 1);
        assert_eq!(columns[0].rows["call"], Timing { smallest_ns: 6.0, median_ns: 12.0 });
    }

    #[test]
    fn a_sum_unlike_the_first_is_wrong() {
        let line = |sum| Line { name: "call".to_owned(), sum, timing: None };
        let (mut sums, mut wrong) = (BTreeMap::new(), Vec::new());
        compare(Machine::Native, &[line(1)], &mut sums, &mut wrong);
        assert!(wrong.is_empty());
        compare(Machine::Trine("emu"), &[line(2)], &mut sums, &mut wrong);
        assert_eq!(wrong.len(), 1);
    }
}
