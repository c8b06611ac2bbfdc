//! `trine run`: one VM is one process, `trinevm`, found beside this program.
//!
//! With a terminal, this process stays: should the VM's be killed, someone must put the terminal
//! back. Without one there is nothing to put back, and this process becomes `trinevm`.

use std::ffi::OsString;
use std::io::{IsTerminal, stdin};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::{Arc, Mutex};

use anyhow::Context;
use clap::Args;
use evloop::{EventLoop, Interest, Signal, Signals};
use rustix::process::{Pid, kill_process};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// Signals that end a VM: passed on.
const PASSED_ON: [(Signal, rustix::process::Signal); 4] = [
    (Signal::Term, rustix::process::Signal::TERM),
    (Signal::Int, rustix::process::Signal::INT),
    (Signal::Hup, rustix::process::Signal::HUP),
    (Signal::Quit, rustix::process::Signal::QUIT),
];

#[derive(Args)]
pub struct Options {
    /// As for trinevm
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
    options: Vec<OsString>,
}

/// Runs a VM; the exit status is that of its process.
pub fn run(options: Options) -> anyhow::Result<ExitCode> {
    let trinevm = beside_us()?;
    let mut command = Command::new(&trinevm);
    // What its help and its errors call it.
    command.arg0("trine run").args(options.options);
    let failed = || format!("cannot start {}", trinevm.display());
    if !stdin().is_terminal() {
        return Err(command.exec()).with_context(failed);
    }
    let before = tcgetattr(stdin()).context("cannot ask the terminal for its mode")?;
    // Before there is a child, so that none is missed.
    let signals = [Signal::Term, Signal::Int, Signal::Hup, Signal::Quit];
    let signals = Signals::take_over(&[&signals[..], &[Signal::Child, Signal::Ttou]].concat())
        .context("cannot take signals over")?;
    let child = command
        .args(["--tied-to", &std::process::id().to_string()])
        .spawn()
        .with_context(failed)?;
    let status = wait(child, signals)?;
    put_back(&before);
    Ok(leave_as(status))
}

fn beside_us() -> anyhow::Result<PathBuf> {
    let us = std::env::current_exe().context("cannot find this program's own file")?;
    let trinevm = us.with_file_name("trinevm");
    if !trinevm.is_file() {
        anyhow::bail!("{} is missing: build or install it beside trine", trinevm.display());
    }
    Ok(trinevm)
}

/// Waits for the child and passes signals on to it.
fn wait(child: Child, signals: Signals) -> anyhow::Result<ExitStatus> {
    let pid = Pid::from_child(&child);
    let of = EventLoop::new().context("cannot wait for the VM")?;
    let child = Mutex::new(child);
    let ended = Arc::new(Mutex::new(None));
    let (signals, stop, result) = (Arc::new(signals), of.clone(), ended.clone());
    let source = signals.clone();
    let handler = move || {
        while let Some(signal) = signals.take() {
            if let Some((_, number)) = PASSED_ON.iter().find(|(name, _)| *name == signal) {
                // It may have ended already.
                let _ = kill_process(pid, *number);
            }
        }
        let (Ok(mut child), Ok(mut result)) = (child.lock(), result.lock()) else { return };
        if let Ok(Some(status)) = child.try_wait() {
            *result = Some(status);
            stop.stop();
        }
    };
    let _waiting = of.add(source, Interest::Read, handler).context("cannot wait for signals")?;
    of.run().context("cannot wait for the VM")?;
    let status = ended.lock().ok().and_then(|status| *status);
    status.context("the VM's process ended without a status")
}

/// A process that was killed has left the terminal as it was.
fn put_back(before: &Termios) {
    if let Err(error) = tcsetattr(stdin(), OptionalActions::Now, before) {
        eprintln!("trine: cannot put the terminal back: {error}: try 'stty sane'");
    }
}

/// Ends this process as the VM's did.
fn leave_as(status: ExitStatus) -> ExitCode {
    let Some(number) = status.signal() else {
        return ExitCode::from(u8::try_from(status.code().unwrap_or(4)).unwrap_or(4));
    };
    let known = PASSED_ON.iter().find(|(signal, _)| signal.number() == number);
    match known {
        Some((signal, _)) => signal.die_of(),
        None => eprintln!("trine: the VM's process was killed by signal {number}"),
    }
    ExitCode::from(u8::try_from(128 + number).unwrap_or(4))
}
