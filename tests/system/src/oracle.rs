//! Runs a guest on both, and compares.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Layout, Record};

const LIMIT: Duration = Duration::from_secs(60);
const QEMU: &str = "qemu-system-x86_64";

/// What came of a comparison.
#[derive(Debug)]
pub enum Outcome {
    /// The cases that differ, described.
    Compared(Vec<String>),
    /// There is no oracle, for this reason.
    NotRun(String),
}

/// Runs the guest on `emu` and on QEMU's TCG; `known` names cases in which TCG is wrong, and how.
/// A case named there must differ.
///
/// # Panics
/// When the guest does not run to its end.
pub fn compare(
    (image, names): &(Vec<u8>, Vec<String>),
    layout: &Layout,
    known: &[(&str, &str)],
) -> Outcome {
    let dir = tempfile::tempdir().expect("a folder for the guest");
    let path = |name: &str| dir.path().join(name);
    fs::write(path("guest"), image).expect("room for the guest");

    let mut ours = Command::new(trine());
    ours.args(["run", "--engine", "emu", "--memory", "64M", "--cpus", "2"]);
    ours.args(["--debug-exit", "--kernel"]);
    ours.arg(path("guest")).arg(format!("--serial=file={}", path("ours").display()));
    let ours = records(ours, &path("ours"), layout);
    assert!(ours.len() == names.len(), "emu ends in {:?}", names.get(ours.len()));

    let mut theirs = Command::new(QEMU);
    theirs.args(["-machine", "pc,accel=tcg", "-cpu", "max,vendor=GenuineIntel", "-m", "64M"]);
    // The second CPU waits; it makes TCG's locked instructions atomic, as to faults too.
    theirs.args(["-smp", "2"]);
    theirs.args(["-display", "none", "-nodefaults", "-no-reboot", "-kernel"]).arg(path("guest"));
    theirs.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-serial"]);
    theirs.arg(format!("file:{}", path("theirs").display()));
    if Command::new(QEMU).arg("--version").output().is_err() {
        return Outcome::NotRun(format!("{QEMU} is not installed"));
    }
    let theirs = records(theirs, &path("theirs"), layout);
    assert!(theirs.len() == names.len(), "TCG ends in {:?}", names.get(theirs.len()));

    let mut reports = Vec::new();
    for (name, (mut ours, mut theirs)) in names.iter().zip(ours.into_iter().zip(theirs)) {
        layout.forgive(&mut ours);
        layout.forgive(&mut theirs);
        let wrong = known.iter().find(|(case, _)| name.starts_with(case));
        match (ours == theirs, wrong) {
            (false, None) => {
                reports.push(format!("{name}:{}", layout.differences(&ours, &theirs)));
            }
            (true, Some((_, how))) => reports.push(format!("{name}: TCG is right, not: {how}")),
            _ => {}
        }
    }
    Outcome::Compared(reports)
}

/// The `trine` program that was built with this test.
fn trine() -> PathBuf {
    let test = std::env::current_exe().expect("a path of this test");
    let program = test.ancestors().nth(2).expect("the test is in target/").join("trine");
    assert!(program.exists(), "no {}: run `cargo build --workspace` first", program.display());
    program
}

fn records(mut command: Command, serial: &Path, layout: &Layout) -> Vec<Record> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("a process");
    let begin = Instant::now();
    while child.try_wait().expect("a child").is_none() {
        if begin.elapsed() > LIMIT {
            child.kill().expect("a child");
            child.wait().expect("a child");
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    layout.parse(&fs::read(serial).unwrap_or_default())
}
