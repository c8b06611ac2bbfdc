//! Two processes on two CPUs that signal each other: each signal comes, and comes once.
//!
//! Before a signal, its sender puts its number into a pipe. So a signal that was lost leaves both
//! waiting for ever, and one that was repeated finds no number.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use evloop::{Signal, Signals};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, getppid, kill_process, set_parent_process_death_signal};

use super::{Steps, stay_on};

/// Signals each way in a step.
const ROUNDS: u64 = 16;
const REST: Duration = Duration::from_millis(1);

/// Begins.
pub fn ping(last: usize) -> anyhow::Result<()> {
    stay_on(0)?;
    let signals = Signals::take_over(&[Signal::Hup])?;
    let mut other = Command::new("/proc/self/exe")
        .args(["pong", &last.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let pid = Pid::from_child(&other);
    let mut to = other.stdin.take().context("no pipe")?;
    let mut from = other.stdout.take().context("no pipe")?;
    // It says that it listens.
    expect(&mut from, 0)?;
    let mut steps = Steps::default();
    for round in 1.. {
        send(&mut to, round, pid)?;
        wait(&signals)?;
        expect(&mut from, round)?;
        if round % ROUNDS == 0 {
            steps.finish()?;
            thread::sleep(REST);
        }
    }
    Ok(())
}

/// Answers.
pub fn pong(last: usize) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    stay_on(last)?;
    let signals = Signals::take_over(&[Signal::Hup])?;
    let parent = getppid().context("no parent")?;
    let (mut from, mut to) = (std::io::stdin(), std::io::stdout());
    to.write_all(&0u64.to_ne_bytes())?;
    to.flush()?;
    for round in 1.. {
        wait(&signals)?;
        expect(&mut from, round)?;
        send(&mut to, round, parent)?;
    }
    Ok(())
}

fn send(pipe: &mut impl Write, round: u64, to: Pid) -> anyhow::Result<()> {
    pipe.write_all(&round.to_ne_bytes())?;
    pipe.flush()?;
    Ok(kill_process(to, rustix::process::Signal::HUP)?)
}

/// Exactly one signal.
fn wait(signals: &Signals) -> anyhow::Result<()> {
    poll(&mut [PollFd::new(signals, PollFlags::IN)], None)?;
    ensure!(signals.take() == Some(Signal::Hup), "woken without a signal");
    ensure!(signals.take().is_none(), "a signal came twice");
    Ok(())
}

fn expect(pipe: &mut impl Read, round: u64) -> anyhow::Result<()> {
    let mut number = [0; 8];
    pipe.read_exact(&mut number)?;
    let number = u64::from_ne_bytes(number);
    ensure!(number == round, "signal {number} came instead of {round}");
    Ok(())
}
