//! `cargo xtask stress`: programs that people use, in a guest and on this machine, with the same results; and
//! loads that look at their own results (memory pressure, processes and modules that come and go, signals, code that
//! changes).

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Args;
use guests::{PASSED, RESULT, RESULTS_END, STRAIN, WORK, host};

/// How the result of a program ends that was stopped by `timeout`.
const TIMED_OUT: &str = " ends with 124";

/// What kernels say when they find something wrong, of themselves or of the CPU.
const COMPLAINTS: &[&str] = &[
    "Kernel panic",
    "BUG:",
    "Oops",
    "[#1]",
    "rcu: INFO",
    "soft lockup",
    "WARNING: CPU",
    "blocked for more than",
];

/// What to run where.
#[derive(Args)]
pub struct Options {
    /// Engine: auto, hw, emu or full
    #[arg(long, default_value = "auto")]
    engine: String,
    /// Number of CPUs
    #[arg(long, default_value_t = 1)]
    cpus: u32,
    /// Memory, for example 2G
    #[arg(long, default_value = "2G")]
    memory: String,
    /// How often the guest does all of it
    #[arg(long, default_value_t = 1)]
    rounds: u32,
    /// How many minutes a round may take in the guest
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// How long each load lasts that looks at its own results
    #[arg(long, default_value_t = 60)]
    strain_seconds: u64,
    /// Which work; all without
    #[arg(value_parser = clap::builder::PossibleValuesParser::new([WORK, STRAIN].concat()))]
    work: Vec<String>,
}

/// Lines of results by the work they are of.
type Results = BTreeMap<String, Vec<String>>;

/// Runs it.
pub fn run(options: &Options) -> anyhow::Result<()> {
    host::need_packages(&["busybox-static", "xz-utils"])?;
    host::build_release()?;
    let kernel = guests::kernel("cloud")?;
    let workshop = guests::workshop()?;
    let mut work: Vec<&str> = options.work.iter().map(String::as_str).collect();
    if work.is_empty() {
        work = [WORK, STRAIN].concat();
    }
    let limit = Duration::from_secs(options.minutes * 60);
    let compared: Vec<&str> = work.iter().copied().filter(|one| WORK.contains(one)).collect();
    let native = watch("native", workshop.native(&compared), limit)?;
    let (initrd, disk) = workshop.guest(&kernel)?;
    let rounds = (1..=options.rounds).try_for_each(|round| {
        eprintln!("round {round} of {} on {}", options.rounds, options.engine);
        let command = guest(options, &work, &kernel.image, &initrd, &disk)?;
        compare(&native, &watch(&options.engine, command, limit)?)
    });
    fs::remove_file(disk)?;
    rounds
}

fn guest(
    options: &Options,
    work: &[&str],
    kernel: &Path,
    initrd: &Path,
    disk: &Path,
) -> anyhow::Result<Command> {
    let mut command = Command::new(host::release_program("trine")?);
    command.args(["run", "--engine", &options.engine, "--memory", &options.memory]);
    command.args(["--cpus", &options.cpus.to_string()]);
    command.arg("--kernel").arg(kernel).arg("--initrd").arg(initrd).arg("--disk").arg(disk);
    let work = work.join(" ");
    let seconds = options.strain_seconds;
    let work = format!("STRESS=\"{work}\" STRAIN_SECONDS={seconds}");
    command.args(["--cmdline", &format!("console=ttyS0 quiet panic=-1 {work}")]);
    Ok(command)
}

/// Runs a command to the line after the last result, and shows what comes and when.
fn watch(machine: &str, mut command: Command, limit: Duration) -> anyhow::Result<Results> {
    let begin = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let out = child.stdout.take().context("no output")?;
    let (sender, lines) = mpsc::channel();
    let reader = thread::spawn(move || {
        for line in BufReader::new(out).split(b'\n').map_while(Result::ok) {
            let _ = sender.send(String::from_utf8_lossy(&line).trim().to_owned());
        }
    });
    let (mut results, mut is_whole, mut complaint) = (Results::new(), false, None);
    while let Ok(line) = lines.recv_timeout(limit.saturating_sub(begin.elapsed())) {
        eprintln!("{machine} {:7.1} s  {line}", begin.elapsed().as_secs_f64());
        if line == RESULTS_END {
            is_whole = true;
            break;
        }
        if let Some((work, result)) = result(&line) {
            results.entry(work.to_owned()).or_default().push(result.to_owned());
        } else if is_complaint(&line) {
            complaint.get_or_insert(line);
        }
    }
    let _ = child.kill();
    child.wait()?;
    let _ = reader.join();
    ensure!(is_whole, "{machine} did not finish its work within {limit:?}");
    if let Some(complaint) = complaint {
        bail!("the kernel of {machine} complained: {complaint}");
    }
    Ok(results)
}

fn is_complaint(line: &str) -> bool {
    COMPLAINTS.iter().any(|complaint| line.contains(complaint))
}

fn result(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix(RESULT)?.strip_prefix(' ')?.split_once(' ')
}

/// Tells every line that is not on both sides.
fn compare(native: &Results, guest: &Results) -> anyhow::Result<()> {
    let mut differences = 0;
    let nothing = Vec::new();
    for work in native.keys().chain(guest.keys().filter(|work| !native.contains_key(*work))) {
        let of = |results: &Results| results.get(work).unwrap_or(&nothing).clone();
        let (mut native, mut guest) = (of(native), of(guest));
        if STRAIN.contains(&work.as_str()) {
            let wrong = guest.iter().filter(|line| !line.ends_with(PASSED));
            differences += wrong.map(|line| eprintln!("{work}: {line}")).count();
            println!("{work}: {} results in the guest", guest.len());
            continue;
        }
        // A host that is a guest itself may hang in what is right here: no measure for the guest.
        for line in native.extract_if(.., |line| line.ends_with(TIMED_OUT)).collect::<Vec<_>>() {
            eprintln!("{work}, not compared, natively without an end: {line}");
            let what = line.trim_end_matches(TIMED_OUT);
            guest.retain(|line| !line.starts_with(what));
        }
        let only = |here: &[String], there: &[String], machine: &str| {
            let lines = here.iter().filter(|line| !there.contains(line));
            lines.map(|line| eprintln!("{work}, only {machine}: {line}")).count()
        };
        differences += only(&native, &guest, "natively") + only(&guest, &native, "in the guest");
        println!("{work}: {} results natively, {} in the guest", native.len(), guest.len());
    }
    if differences > 0 {
        bail!("{differences} results are not the same in the guest");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(lines: &[&str]) -> Results {
        Results::from([("node".to_owned(), lines.iter().map(|l| (*l).to_owned()).collect())])
    }

    #[test]
    fn a_result_has_its_work_and_its_text() {
        assert_eq!(result("STRESS node 1 25997"), Some(("node", "1 25997")));
        assert_eq!(result("STRESS-END"), None);
        assert_eq!(result("[ 1.0] STRESS node 1"), None);
    }

    #[test]
    fn what_does_not_end_natively_is_not_compared() {
        let (native, guest) = (results(&["a ends with 124"]), results(&["a ends with 0"]));
        assert!(compare(&native, &guest).is_ok());
        assert!(compare(&guest, &native).is_err());
    }

    #[test]
    fn what_looks_at_itself_is_not_compared_but_must_have_passed() {
        let of = |line: &str| Results::from([("strain".to_owned(), vec![line.to_owned()])]);
        assert!(compare(&Results::new(), &of("forks passed")).is_ok());
        assert!(compare(&Results::new(), &of("forks ends with 2")).is_err());
    }

    #[test]
    fn what_a_kernel_complains_of_is_no_result() {
        assert!(is_complaint("[   99.1] watchdog: BUG: soft lockup - CPU#1 stuck for 26s!"));
        assert!(!is_complaint("STRESS node 1 25997"));
    }

    #[test]
    fn a_missing_result_is_a_difference() {
        assert!(compare(&results(&["1", "2"]), &results(&["1", "2"])).is_ok());
        assert!(compare(&results(&["1", "2"]), &results(&["1"])).is_err());
        assert!(compare(&results(&["1"]), &Results::new()).is_err());
    }
}
