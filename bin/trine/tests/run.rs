//! `trine run` with a stand-in for the VM's process beside it, and questions to VMs that are not
//! there.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(60);

/// A program that was just written cannot be run while another test's child still has it open,
/// which it has from its fork to its exec: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// A copy of `trine` with this shell script as its `trinevm`.
struct Installed(TempDir, #[allow(dead_code, reason = "held")] MutexGuard<'static, ()>);

impl Installed {
    fn new(script: &str) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().unwrap();
        fs::copy(env!("CARGO_BIN_EXE_trine"), folder.path().join("trine")).unwrap();
        let trinevm = folder.path().join("trinevm");
        fs::write(&trinevm, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&trinevm, Permissions::from_mode(0o755)).unwrap();
        Self(folder, alone)
    }

    fn trine(&self) -> PathBuf {
        self.0.path().join("trine")
    }
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < LONG, "{what} did not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn wait(child: &mut Child) -> ExitStatus {
    let mut status = None;
    until("the end", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}

/// A pseudo-terminal: who holds it open, and its line.
fn terminal() -> (File, File) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    (master.into(), File::options().read(true).write(true).open(name).unwrap())
}

fn is_cooked(line: &File) -> bool {
    tcgetattr(line).unwrap().local_modes.contains(LocalModes::ICANON | LocalModes::ECHO)
}

fn run_on(line: &File, installed: &Installed) -> Child {
    let stdio = || Stdio::from(line.try_clone().unwrap());
    let mut command = Command::new("setsid");
    command.arg("--ctty").arg(installed.trine()).args(["run", "--kernel", "k"]);
    command.stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().unwrap()
}

#[test]
fn without_a_terminal_it_becomes_the_vms_process() {
    let installed = Installed::new("echo $$ \"$@\"; exit 9");
    let mut command = Command::new(installed.trine());
    command.args(["run", "--engine", "emu", "--kernel", "a b"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let id = child.id();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said, format!("{id} --engine emu --kernel a b\n"));
    assert_eq!(output.status.code(), Some(9));
}

#[test]
fn a_terminal_comes_back_from_a_vm_that_was_killed() {
    let installed = Installed::new("stty raw -echo; kill -KILL $$");
    let (_screen, line) = terminal();
    let status = wait(&mut run_on(&line, &installed));
    assert_eq!(status.code(), Some(128 + 9));
    assert!(is_cooked(&line));
}

#[test]
fn on_a_terminal_the_status_is_the_vms() {
    let installed = Installed::new("stty raw -echo; exit 10");
    let (_screen, line) = terminal();
    assert_eq!(wait(&mut run_on(&line, &installed)).code(), Some(10));
    assert!(is_cooked(&line));
}

#[test]
fn a_signal_reaches_the_vm_and_then_ends_this_process_too() {
    let installed = Installed::new("stty raw -echo; while :; do sleep 0.01; done");
    let (_screen, line) = terminal();
    let mut child = run_on(&line, &installed);
    until("raw mode", || !is_cooked(&line));
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(wait(&mut child).signal(), Some(Signal::TERM.as_raw()));
    assert!(is_cooked(&line));
}

#[test]
fn a_wrong_command_line_is_said_in_one_line() {
    let installed = Installed::new("");
    for args in [
        &["frob"][..],
        &["status"],
        &["status", "--control", "a", "--wings"],
        &["move", "--control", "a", "--engine", "warp"],
        &["move", "--control", "a"],
    ] {
        let mut command = Command::new(installed.trine());
        let output = command.args(args).env_remove("TRINE_CONTROL").output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.starts_with("trine: ") && said.contains("--help"), "{said}");
        assert_eq!(output.status.code(), Some(2));
    }
}

#[test]
fn a_missing_part_and_a_missing_vm_are_said_in_one_line() {
    let installed = Installed::new("");
    fs::remove_file(installed.0.path().join("trinevm")).unwrap();
    for args in [
        &["run", "--kernel", "k"][..],
        &["status", "--control", "/nonexistent/vm.sock"],
        &["move", "--engine", "emu", "--control", "/nonexistent/vm.sock"],
    ] {
        let output = Command::new(installed.trine()).args(args).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.starts_with("trine: "), "{said}");
        assert_eq!(output.status.code(), Some(4));
    }
}
