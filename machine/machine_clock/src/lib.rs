//! The VM's time: the only clock devices and local APICs see.
//!
//! A [`MachineClock`] counts nanoseconds while the VM runs and stands still while it does not, so
//! that pause, snapshot and move need no code in devices. It has three sources: the host's
//! monotonic clock, the guest's instruction count (repeatable runs), or a test's hand.
//!
//! A device that wants to be called at a time makes a [`Timer`]. Whoever owns the clock's thread
//! calls [`MachineClock::fire_due`] when [`MachineClock::next_deadline_ns`] has come; it is told
//! through [`MachineClock::set_waker`] when that deadline moves.
//!
//! *Locks*: the timer table's lock is a leaf and is never held while a callback runs.
//!
//! What this crate may not know: devices, engines, wall-clock time.

mod timer;

pub use timer::Timer;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use timer::TimerTable;

/// Where nanoseconds come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeSource {
    /// The host's monotonic clock.
    Host,
    /// Only [`MachineClock::advance_to`] moves it: instruction count, or a test.
    Counted,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Stands at this time.
    Stopped(u64),
    /// Runs; machine time zero was at this instant (or would have been).
    Running { since: Instant, at_ns: u64 },
}

/// The clock of one VM.
pub struct MachineClock {
    source: TimeSource,
    phase: Mutex<Phase>,
    counted_ns: AtomicU64,
    timers: TimerTable,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MachineClock {
    /// A clock at zero, stopped.
    pub fn new(source: TimeSource) -> Arc<Self> {
        Arc::new(Self {
            source,
            phase: Mutex::new(Phase::Stopped(0)),
            counted_ns: AtomicU64::new(0),
            timers: TimerTable::default(),
        })
    }

    /// Where its nanoseconds come from.
    pub fn source(&self) -> TimeSource {
        self.source
    }

    /// Nanoseconds the VM has run.
    pub fn now_ns(&self) -> u64 {
        match self.source {
            TimeSource::Counted => self.counted_ns.load(Ordering::Acquire),
            TimeSource::Host => match *lock(&self.phase) {
                Phase::Stopped(ns) => ns,
                Phase::Running { since, at_ns } => at_ns + elapsed_ns(since),
            },
        }
    }

    /// Lets time go on. Nothing happens when it does already.
    pub fn start(&self) {
        let mut phase = lock(&self.phase);
        if let Phase::Stopped(at_ns) = *phase {
            *phase = Phase::Running { since: Instant::now(), at_ns };
        }
        drop(phase);
        self.timers.wake();
    }

    /// Makes time stand. Timers that are due by now fire after the next start.
    pub fn stop(&self) {
        let mut phase = lock(&self.phase);
        if let Phase::Running { since, at_ns } = *phase {
            *phase = Phase::Stopped(at_ns + elapsed_ns(since));
        }
    }

    /// Time goes on.
    pub fn is_running(&self) -> bool {
        matches!(*lock(&self.phase), Phase::Running { .. })
    }

    /// Sets a stopped clock, for restoring saved state.
    ///
    /// # Panics
    /// When the clock runs.
    pub fn set_ns(&self, ns: u64) {
        let mut phase = lock(&self.phase);
        assert!(matches!(*phase, Phase::Stopped(_)), "a running clock cannot be set");
        *phase = Phase::Stopped(ns);
        self.counted_ns.store(ns, Ordering::Release);
    }

    /// Moves a counted clock forward to `ns` and fires what has become due, each timer at its own
    /// deadline. Going back is ignored.
    ///
    /// # Panics
    /// When the clock's source is the host.
    pub fn advance_to(&self, ns: u64) {
        assert_eq!(self.source, TimeSource::Counted, "the host's clock moves by itself");
        while let Some(deadline) = self.timers.next().filter(|d| *d <= ns) {
            self.counted_ns.fetch_max(deadline, Ordering::AcqRel);
            self.timers.fire_until(deadline);
        }
        self.counted_ns.fetch_max(ns, Ordering::AcqRel);
    }

    /// A timer that calls `callback` on the clock's thread. It is disarmed.
    ///
    /// The callback must not block. It may arm timers, this one included.
    pub fn timer(self: &Arc<Self>, callback: impl Fn() + Send + Sync + 'static) -> Timer {
        Timer::new(self, Arc::new(callback))
    }

    /// When the earliest armed timer is due; `None` without one.
    pub fn next_deadline_ns(&self) -> Option<u64> {
        self.timers.next()
    }

    /// Calls every timer whose deadline has come. Nothing fires while the clock is stopped.
    pub fn fire_due(&self) {
        if self.source == TimeSource::Counted || self.is_running() {
            self.timers.fire_until(self.now_ns());
        }
    }

    /// `waker` is called whenever the earliest deadline has become earlier, and when the clock
    /// starts. It must not block and not call the clock.
    pub fn set_waker(&self, waker: impl Fn() + Send + Sync + 'static) {
        self.timers.set_waker(Arc::new(waker));
    }
}

fn elapsed_ns(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
