//! Time neither stands nor goes back, on whatever CPU, and no tick of a timer is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{bail, ensure};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::{Steps, monotonic_ns, stay_on};

const PERIOD_NS: u64 = 10_000_000;
const SLEEP: Duration = Duration::from_millis(1);
/// Looks at the clock in a step.
const LOOKS: u32 = 256;

/// Counts a periodic timer: at any time, it has ticked as often as its period has passed.
pub fn ticks() -> anyhow::Result<()> {
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::empty())?;
    let begin_ns = monotonic_ns();
    let spec = Itimerspec { it_interval: spec(PERIOD_NS), it_value: spec(begin_ns + PERIOD_NS) };
    timerfd_settime(&timer, TimerfdTimerFlags::ABSTIME, &spec)?;
    let periods = || (monotonic_ns() - begin_ns) / PERIOD_NS;
    let (mut steps, mut ticks) = (Steps::default(), 0);
    loop {
        let before = periods();
        let mut count = [0; 8];
        ensure!(rustix::io::read(&timer, &mut count)? == 8, "a timer without a count");
        ticks += u64::from_ne_bytes(count);
        let after = periods();
        ensure!(
            (before..=after).contains(&ticks),
            "{ticks} ticks after {before} to {after} periods"
        );
        steps.finish()?;
    }
}

fn spec(ns: u64) -> Timespec {
    Timespec { tv_sec: (ns / 1_000_000_000) as i64, tv_nsec: (ns % 1_000_000_000) as i64 }
}

/// Two CPUs look at the clock in turns that they do not agree on: none sees a time before one
/// that the other has seen. Between, they sleep, and not too short.
pub fn compare(last: usize) -> anyhow::Result<()> {
    let seen = Arc::new(AtomicU64::new(0));
    let others = seen.clone();
    thread::spawn(move || {
        let wrong = stay_on(last).and_then(|()| {
            loop {
                if let Err(error) = look(&others) {
                    break Err::<(), _>(error);
                }
            }
        });
        println!("clock: {wrong:?}");
    });
    stay_on(0)?;
    let mut steps = Steps::default();
    loop {
        look(&seen)?;
        steps.finish()?;
    }
}

fn look(seen: &AtomicU64) -> anyhow::Result<()> {
    for _ in 0..LOOKS {
        let before = seen.load(Ordering::SeqCst);
        let now = monotonic_ns();
        if now < before {
            bail!("the clock is at {now} ns after {before} ns");
        }
        seen.fetch_max(now, Ordering::SeqCst);
    }
    let begin = monotonic_ns();
    thread::sleep(SLEEP);
    let slept = Duration::from_nanos(monotonic_ns() - begin);
    ensure!(slept >= SLEEP, "{slept:?} instead of {SLEEP:?} asleep");
    Ok(())
}
