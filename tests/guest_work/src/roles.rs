//! What each process does. It prints the number of each step it has finished, and ends only when
//! something is wrong.

mod clock;
mod compute;
mod disk;
mod signals;

use std::io::Write;

use anyhow::{Context, bail};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

/// Plays a role.
pub fn run(role: &str, arguments: &[&str]) -> anyhow::Result<()> {
    match (role, arguments) {
        ("ticks", []) => clock::ticks(),
        ("clock", [last]) => clock::compare(last.parse()?),
        ("compute", [cpu]) => compute::run(cpu.parse()?),
        ("disk", [path, worker]) => disk::run(path, worker.parse()?),
        ("ping", [last]) => signals::ping(last.parse()?),
        ("pong", [last]) => signals::pong(last.parse()?),
        _ => bail!("there is no such role"),
    }
}

/// Steps that are finished.
#[derive(Default)]
struct Steps(u64);

impl Steps {
    /// One more.
    fn finish(&mut self) -> anyhow::Result<()> {
        self.0 += 1;
        let mut out = std::io::stdout().lock();
        out.write_all(format!("{}\n", self.0).as_bytes())?;
        out.flush().context("nobody counts")
    }
}

/// Keeps the calling thread on one CPU.
fn stay_on(cpu: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).with_context(|| format!("cannot stay on CPU {cpu}"))
}

/// The monotonic clock.
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
