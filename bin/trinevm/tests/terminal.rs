//! A terminal: raw while the VM runs, and as it was before, whatever happens.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod rig;

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rig::{Rig, until, wait};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// A pseudo-terminal, with someone who reads all that comes.
struct Terminal {
    keyboard: File,
    /// Kept open, so that it can be asked for its mode at any time.
    line: File,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn new() -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let line = File::options().read(true).write(true).open(name).unwrap();
        let mut mode = tcgetattr(&line).unwrap();
        mode.special_codes[rustix::termios::SpecialCodeIndex::VINTR] = 0x1d; // not the default
        tcsetattr(&line, OptionalActions::Now, &mode).unwrap();
        let keyboard = File::from(master);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (mut screen, shown) = (keyboard.try_clone().unwrap(), seen.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 256];
            while let Ok(length @ 1..) = screen.read(&mut bytes) {
                shown.lock().unwrap().extend(&bytes[..length]);
            }
        });
        Self { keyboard, line, seen }
    }

    /// Runs with this as its controlling terminal, and with no signal ignored, whatever the tests were started by.
    fn spawn(&self, vm: &Command) -> Child {
        let line = || Stdio::from(self.line.try_clone().unwrap());
        let mut command = Command::new("setsid");
        command.args(["--ctty", "env", "--default-signal"]);
        command.arg(vm.get_program()).args(vm.get_args());
        command.stdin(line()).stdout(line()).stderr(line()).spawn().unwrap()
    }

    fn mode(&self) -> Termios {
        tcgetattr(&self.line).unwrap()
    }

    fn is_raw(&self) -> bool {
        !self
            .mode()
            .local_modes
            .intersects(LocalModes::ICANON | LocalModes::ISIG | LocalModes::ECHO)
    }

    fn types(&mut self, bytes: &[u8]) {
        self.keyboard.write_all(bytes).unwrap();
    }

    fn wait_for(&self, text: &str) {
        let seen = || String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned();
        until(text, || seen().contains(text).then_some(()));
    }
}

fn assert_same(now: &Termios, before: &Termios) {
    assert_eq!(
        (now.input_modes, now.output_modes, now.control_modes, now.local_modes),
        (before.input_modes, before.output_modes, before.control_modes, before.local_modes)
    );
    let intr = rustix::termios::SpecialCodeIndex::VINTR;
    assert_eq!(now.special_codes[intr], before.special_codes[intr]);
}

/// A VM that echoes, once the terminal is raw.
fn echoing(rig: &Rig, terminal: &Terminal) -> Child {
    let child = terminal.spawn(&rig.vm(&tinyguest::echo()));
    until("raw mode", || terminal.is_raw().then_some(()));
    child
}

#[test]
fn every_key_goes_to_the_guest_and_the_terminal_comes_back() {
    let (rig, mut terminal) = (Rig::new(), Terminal::new());
    let before = terminal.mode();
    let mut child = echoing(&rig, &terminal);
    terminal.wait_for("Ctrl-A x ends the VM");
    // Ctrl-C, the key that is the interrupt here, and Ctrl-A: one higher each.
    terminal.types(b"abc\x03\x1d\x01\x01y");
    terminal.wait_for("bcd\x04\x1e\x02z");
    terminal.types(b"!");
    assert_eq!(wait(&mut child).code(), Some(0));
    assert_same(&terminal.mode(), &before);
}

#[test]
fn the_escape_ends_the_vm() {
    let (rig, mut terminal) = (Rig::new(), Terminal::new());
    let before = terminal.mode();
    let mut child = echoing(&rig, &terminal);
    terminal.types(b"\x01h");
    terminal.wait_for("send Ctrl-A to the guest");
    terminal.types(b"\x01x");
    assert_eq!(wait(&mut child).code(), Some(6));
    assert_same(&terminal.mode(), &before);
}

#[test]
fn signals_put_the_terminal_back_and_are_what_ended_the_process() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
        let (rig, terminal) = (Rig::new(), Terminal::new());
        let before = terminal.mode();
        let mut child = echoing(&rig, &terminal);
        kill_process(Pid::from_child(&child), signal).unwrap();
        let status = wait(&mut child);
        assert_eq!(status.signal(), Some(signal.as_raw()), "{status}");
        assert!(!status.core_dumped());
        assert_same(&terminal.mode(), &before);
    }
}

#[test]
fn a_terminal_that_a_shell_has_used_meanwhile_is_raw_again_after_a_stop() {
    let (rig, mut terminal) = (Rig::new(), Terminal::new());
    let before = terminal.mode();
    let mut child = echoing(&rig, &terminal);
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::STOP).unwrap();
    tcsetattr(&terminal.line, OptionalActions::Now, &before).unwrap();
    kill_process(pid, Signal::CONT).unwrap();
    until("raw mode", || terminal.is_raw().then_some(()));
    terminal.types(b"\x01x");
    assert_eq!(wait(&mut child).code(), Some(6));
    assert_same(&terminal.mode(), &before);
}
