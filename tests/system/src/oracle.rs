//! Runs a guest on both, and compares.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Layout, Record, bochs};

const LIMIT: Duration = Duration::from_secs(300);
const QEMU: &str = "qemu-system-x86_64";

/// Engines that are compared with oracles. `full` translates 64-bit code, and interprets the rest.
const ENGINES: [&str; 2] = ["emu", FULL];
const FULL: &str = "full";
/// Cases in which TCG is wrong and `full` does the same: a near branch to an address that is not
/// canonical faults there (ADR 8).
const FULL_AS_TCG: [&str; 2] = ["jump, not canonical", "ret, not canonical"];
/// How `trine` says that the host is not what the engine needs.
const UNSUPPORTED: &str = "cannot run this VM here";

/// Whom the engines are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Oracle {
    /// QEMU's TCG: fast, without segment limits.
    Tcg,
    /// Bochs: one CPU, with all of segmentation, debug registers, PCIDs and the APIC's timers.
    Bochs,
}

/// What came of a comparison.
#[derive(Debug)]
pub enum Outcome {
    /// The cases that differ, described.
    Compared(Vec<String>),
    /// There is no oracle, for this reason.
    NotRun(String),
}

/// Runs the guest on the engines and on the oracle; `known` names cases in which the oracle is wrong,
/// and how. A case named there must differ.
///
/// # Panics
/// When the guest does not run to its end.
pub fn compare(
    oracle: Oracle,
    (image, names): &(Vec<u8>, Vec<String>),
    layout: &Layout,
    known: &[(&str, &str)],
) -> Outcome {
    let dir = tempfile::tempdir().expect("a folder for the guest");
    let path = |name: &str| dir.path().join(name);
    fs::write(path("guest"), image).expect("room for the guest");

    if let Some(folder) = std::env::var_os("SYSTEM_KEEP") {
        fs::write(Path::new(&folder).join(&names[0]), image).expect("a folder for guests");
    }
    let program = if oracle == Oracle::Tcg { QEMU } else { bochs::PROGRAM };
    if Command::new(program).arg("--help").output().is_err() {
        return Outcome::NotRun(format!("{program} is not installed"));
    }
    let (mut theirs, _alone) = match oracle {
        Oracle::Tcg => (tcg(&path("guest"), &path("theirs")), None),
        Oracle::Bochs => (bochs::command(dir.path(), &path("theirs")), Some(bochs::alone())),
    };
    theirs.stderr(Stdio::null());
    let theirs = records(theirs, &path("theirs"), layout, names.len());
    assert!(
        theirs.len() == names.len(),
        "{oracle:?} ends in {:?}\n{}",
        names.get(theirs.len()),
        fs::read_to_string(path("log")).unwrap_or_default()
    );

    let mut reports = Vec::new();
    let wanted = std::env::var("SYSTEM_ENGINE").unwrap_or_default();
    for engine in ENGINES.into_iter().filter(|engine| engine.starts_with(&wanted)) {
        let Some(ours) = run_on(engine, dir.path(), layout, names.len()) else { continue };
        assert!(ours.len() == names.len(), "{engine} ends in {:?}", names.get(ours.len()));
        for (name, (mut ours, mut theirs)) in names.iter().zip(ours.into_iter().zip(theirs.clone()))
        {
            layout.forgive(oracle, &mut ours);
            layout.forgive(oracle, &mut theirs);
            let mut wrong = known.iter().find(|(case, _)| name.starts_with(case));
            if engine == FULL {
                layout.forgive_full(&mut ours);
                layout.forgive_full(&mut theirs);
                wrong = wrong.filter(|(case, _)| !FULL_AS_TCG.contains(case));
            }
            match (ours == theirs, wrong) {
                (false, None) => {
                    let differences = layout.differences(&ours, &theirs);
                    reports.push(format!("{engine}: {name}:{differences}"));
                }
                (true, Some((_, how))) => {
                    reports.push(format!("{engine}: {name}: {oracle:?} is right, not: {how}"));
                }
                _ => {}
            }
        }
    }
    Outcome::Compared(reports)
}

/// What the guest in `dir` sends on this engine, unless that cannot run here.
fn run_on(engine: &str, dir: &Path, layout: &Layout, count: usize) -> Option<Vec<Record>> {
    let (serial, said) = (dir.join(engine), dir.join("said"));
    let mut command = Command::new(trine());
    command.args(["run", "--engine", engine, "--memory", "64M", "--cpus", "2"]);
    command.args(["--debug-exit", "--kernel"]);
    command.arg(dir.join("guest")).arg(format!("--serial=file={}", serial.display()));
    command.stderr(fs::File::create(&said).expect("room for what it says"));
    let ours = records(command, &serial, layout, count);
    let said = fs::read_to_string(&said).unwrap_or_default();
    if ours.is_empty() && said.contains(UNSUPPORTED) {
        eprintln!("NOT RUN: {engine}: {said}");
        return None;
    }
    Some(ours)
}

/// Compares several guests.
///
/// # Panics
/// When any case differs.
pub fn check(
    oracle: Oracle,
    guests: impl IntoIterator<Item = (Vec<u8>, Vec<String>)>,
    layout: &Layout,
    known: &[(&str, &str)],
) {
    let mut reports = Vec::new();
    for guest in guests {
        match compare(oracle, &guest, layout, known) {
            Outcome::Compared(more) => reports.extend(more),
            Outcome::NotRun(why) => return eprintln!("NOT RUN: {why}"),
        }
    }
    assert!(reports.is_empty(), "{} differ:\n{}", reports.len(), reports.join("\n"));
}

fn tcg(guest: &Path, serial: &Path) -> Command {
    let mut command = Command::new(QEMU);
    command.args(["-machine", "pc,accel=tcg", "-cpu", "max,vendor=GenuineIntel", "-m", "64M"]);
    // The second CPU waits; it makes TCG's locked instructions atomic, as to faults too.
    command.args(["-smp", "2"]);
    command.args(["-display", "none", "-nodefaults", "-no-reboot", "-kernel"]).arg(guest);
    command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-serial"]);
    command.arg(format!("file:{}", serial.display()));
    command
}

/// The `trine` program that was built with this test.
fn trine() -> PathBuf {
    let test = std::env::current_exe().expect("a path of this test");
    let program = test.ancestors().nth(2).expect("the test is in target/").join("trine");
    assert!(program.exists(), "no {}: run `cargo build --workspace` first", program.display());
    program
}

/// What the guest sends until it ends or has sent so many records.
fn records(mut command: Command, serial: &Path, layout: &Layout, count: usize) -> Vec<Record> {
    let sent = || fs::read(serial).unwrap_or_default();
    let whole = (count * layout.size()) as u64;
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("a process");
    let begin = Instant::now();
    while child.try_wait().expect("a child").is_none() {
        let complete = fs::metadata(serial).is_ok_and(|file| file.len() >= whole);
        if complete || begin.elapsed() > LIMIT {
            child.kill().expect("a child");
            child.wait().expect("a child");
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    layout.parse(&sent())
}
