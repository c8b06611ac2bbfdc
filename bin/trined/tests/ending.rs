//! How a daemon ends, and what it leaves. It wants `trinevm` beside it: `cargo build` makes both.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

fn start(home: &Path) -> (Child, BufReader<ChildStderr>) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_trined"))
        .args(["--log", "json", "--home"])
        .arg(home)
        .arg("--socket")
        .arg(home.join("sock"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = BufReader::new(child.stderr.take().unwrap());
    (child, log)
}

/// Reads the log up to a line with this message.
fn wait_for(log: &mut impl BufRead, message: &str) {
    let mut all = String::new();
    while log.read_line(&mut all).unwrap() != 0 {
        if all.lines().last().unwrap_or_default().contains(message) {
            return;
        }
    }
    panic!("no '{message}' in {all}");
}

#[test]
fn it_ends_when_it_is_told_to_and_takes_its_socket_with_it() {
    let home = tempfile::tempdir().unwrap();
    let (mut daemon, mut log) = start(home.path());
    wait_for(&mut log, "ready");
    assert!(home.path().join("sock").exists());
    kill_process(Pid::from_child(&daemon), Signal::TERM).unwrap();
    wait_for(&mut log, "stopped");
    assert!(daemon.wait().unwrap().success());
    assert!(!home.path().join("sock").exists());
}

#[test]
fn a_second_one_of_the_same_home_is_refused_and_the_first_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let (mut first, mut log) = start(home.path());
    wait_for(&mut log, "ready");
    let (mut second, mut says) = start(home.path());
    wait_for(&mut says, "another trined runs with this folder");
    assert_eq!(second.wait().unwrap().code(), Some(4));
    assert!(home.path().join("sock").exists());
    assert!(first.try_wait().unwrap().is_none());
    first.kill().unwrap();
    first.wait().unwrap();
}
