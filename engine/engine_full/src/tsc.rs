//! The guest's TSC as a multiple of the host's, so that translated code reads it by itself.
//!
//! A [`Line`] says what the guest's is by the host's. It is drawn so that it keeps to the machine's
//! clock, and drawn anew now and then: each begins where the last one has come to, a little steeper
//! or less steep, so that no guest sees its TSC go back.
//!
//! UNSAFETY: executes RDTSC, which every host of this engine has.
#![allow(unsafe_code, reason = "the instruction has no safe name")]

use std::fs;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use engine_soft::TscSource;
use machine_clock::MachineClock;

/// How long the host's TSC is compared with its clock before the first line is drawn.
const FIRST: Duration = Duration::from_millis(2);
/// A line is good for this many nanoseconds.
const GOOD_FOR_NS: f64 = 1e9;
/// What a new line may make up for in that time, in nanoseconds: more is not drift.
const DRIFT_MAX_NS: f64 = 200_000.0;
/// Who waits for the clock waits no longer.
const AHEAD_MAX: Duration = Duration::from_millis(1);
/// A new line is no less steep than this part of the true one.
const STEEP_MIN: f64 = 0.5;
/// One host tick's guest ticks are a number below two, in units of `1 / ONE`.
const ONE: f64 = (1u64 << 63) as f64;

/// From the host's TSC to the guest's, of no offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Line {
    /// Twice the host's TSC where it begins, negative.
    pub(crate) bias: u64,
    /// Guest ticks there.
    pub(crate) base: u64,
    /// Guest ticks a host tick, in units of 2^-63. Zero where there is no line.
    pub(crate) rate: u64,
}

impl Line {
    fn new(host: u64, base: u64, rate: f64) -> Self {
        Self { bias: host.wrapping_mul(2).wrapping_neg(), base, rate: (rate * ONE) as u64 }
    }

    /// As translated code computes it.
    fn at(&self, host: u64) -> u64 {
        let doubled = u128::from(host.wrapping_mul(2).wrapping_add(self.bias));
        let ticks = (doubled * u128::from(self.rate)) >> 64;
        self.base.wrapping_add(ticks as u64)
    }
}

struct State {
    line: Line,
    /// vCPUs that run: while there are none, the machine's clock may stand.
    running: usize,
}

/// The TSC of a machine.
pub(crate) struct GuestTsc {
    clock: Arc<MachineClock>,
    khz: u32,
    state: Mutex<State>,
    /// Host's TSC at which another line is to be drawn.
    until: AtomicU64,
    /// Grows with each line.
    version: AtomicU32,
}

fn host_tsc() -> u64 {
    // SAFETY: every x86-64 CPU has it; a process that has forbidden it to itself gets a signal.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// The host's TSC and something else at one time, as nearly as can be.
fn beside<T>(read: impl Fn() -> T) -> (u64, T) {
    let once = || {
        let before = host_tsc();
        let value = read();
        let after = host_tsc();
        (after.wrapping_sub(before), before.wrapping_add(after.wrapping_sub(before) / 2), value)
    };
    let best = (0..4).map(|_| once()).min_by_key(|(took, ..)| *took);
    best.map_or_else(|| (host_tsc(), read()), |(_, at, value)| (at, value))
}

/// The host's TSC counts time, on all CPUs alike. Asked once: later, the process may open nothing.
pub(crate) fn is_steady() -> bool {
    static STEADY: LazyLock<bool> = LazyLock::new(counts_time);
    *STEADY
}

fn counts_time() -> bool {
    let invariant = std::arch::x86_64::__cpuid(0x8000_0000).eax >= 0x8000_0007
        && std::arch::x86_64::__cpuid(0x8000_0007).edx & 1 << 8 != 0;
    let source = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    invariant || fs::read_to_string(source).is_ok_and(|name| name.trim() == "tsc")
}

/// When this process first compared the two.
fn began() -> &'static (u64, Instant) {
    static BEGAN: OnceLock<(u64, Instant)> = OnceLock::new();
    BEGAN.get_or_init(|| beside(Instant::now))
}

/// Host ticks a nanosecond, as measured since then.
fn host_rate() -> f64 {
    let (first, then) = began();
    loop {
        let (host, now) = beside(Instant::now);
        let passed = now.saturating_duration_since(*then);
        if passed >= FIRST {
            return host.wrapping_sub(*first) as f64 / passed.as_nanos() as f64;
        }
        std::thread::sleep(FIRST.saturating_sub(passed));
    }
}

impl GuestTsc {
    /// None, where the host's TSC is of no use.
    pub(crate) fn new(clock: Arc<MachineClock>, khz: u32) -> Option<Arc<Self>> {
        if !is_steady() {
            return None;
        }
        began();
        let state = Mutex::new(State { line: Line::default(), running: 0 });
        let (until, version) = (AtomicU64::new(0), AtomicU32::new(0));
        Some(Arc::new(Self { clock, khz, state, until, version }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A vCPU begins to run. The first one finds the machine's clock wherever it has been set.
    pub(crate) fn begin(&self) {
        let mut state = self.state();
        state.running += 1;
        if state.running == 1 {
            self.draw(&mut state, false);
        }
    }

    /// A vCPU has stopped. The last one waits until the clock, while it goes, has come to what the
    /// guest has seen: that is where an engine begins that takes over.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        state.running -= 1;
        if state.running > 0 || state.line.rate == 0 {
            return;
        }
        let seen = state.line.at(host_tsc());
        let ahead = || seen.wrapping_sub(engine_soft::ticks(self.clock.now_ns(), self.khz)) as i64;
        let begin = Instant::now();
        while ahead() > 0 && self.clock.is_running() && begin.elapsed() < AHEAD_MAX {
            std::hint::spin_loop();
        }
    }

    /// Which line is in force.
    pub(crate) fn version(&self) -> u32 {
        self.version.load(Ordering::Acquire)
    }

    /// The line in force.
    pub(crate) fn line(&self) -> Line {
        self.state().line
    }

    /// Draws another line when it is time to. True when it has: the other vCPUs are to take it, too.
    pub(crate) fn refresh(&self) -> bool {
        let is_due = || host_tsc().wrapping_sub(self.until.load(Ordering::Relaxed)) as i64 >= 0;
        if !is_due() {
            return false;
        }
        let mut state = self.state();
        let due = is_due() && state.running > 0;
        if due {
            self.draw(&mut state, true);
        }
        due
    }

    /// `on`: where the last one has come to, unless that is far behind the clock.
    fn draw(&self, state: &mut State, on: bool) {
        let host_rate = host_rate();
        let (host, ns) = beside(|| self.clock.now_ns());
        let true_ticks = engine_soft::ticks(ns, self.khz);
        let guest_rate = f64::from(self.khz) / 1e6;
        let at = state.line.at(host);
        let behind = true_ticks.wrapping_sub(at) as i64 as f64 / guest_rate;
        let (base, rate) = if on && behind < DRIFT_MAX_NS {
            (at, guest_rate / host_rate * (1.0 + behind / GOOD_FOR_NS).max(STEEP_MIN))
        } else {
            (true_ticks, guest_rate / host_rate)
        };
        state.line = if rate < 2.0 { Line::new(host, base, rate) } else { Line::default() };
        self.until.store(host.wrapping_add((host_rate * GOOD_FOR_NS) as u64), Ordering::Relaxed);
        self.version.fetch_add(1, Ordering::Release);
    }
}

impl TscSource for GuestTsc {
    fn ticks(&self) -> Option<u64> {
        let line = self.line();
        (line.rate != 0).then(|| line.at(host_tsc()))
    }
}

#[cfg(test)]
mod tests {
    use machine_clock::TimeSource;

    use super::*;

    #[test]
    fn lines_keep_to_the_clock_and_never_go_back() {
        let clock = MachineClock::new(TimeSource::Host);
        clock.start();
        let Some(tsc) = GuestTsc::new(clock.clone(), 2_000_000) else { return };
        tsc.begin();
        let mut last = 0;
        for round in 0..200 {
            let now = tsc.ticks().unwrap();
            assert!(now >= last, "round {round}: {now} after {last}");
            last = now;
            if round % 10 == 0 {
                std::thread::sleep(Duration::from_millis(1));
                tsc.draw(&mut tsc.state(), true);
            }
        }
        let (ticks, ns) = (tsc.ticks().unwrap(), clock.now_ns());
        let off = (ticks as i64 / 2 - ns as i64).abs();
        assert!(off < 2_000_000, "{off} ns away");
        tsc.end();
    }

    #[test]
    fn a_line_before_the_clock_is_waited_for_and_never_drawn_back() {
        let clock = MachineClock::new(TimeSource::Host);
        clock.start();
        let Some(tsc) = GuestTsc::new(clock.clone(), 1_000_000) else { return };
        tsc.begin();
        tsc.state().line.base += 400_000;
        let before = tsc.ticks().unwrap();
        tsc.draw(&mut tsc.state(), true);
        let seen = tsc.ticks().unwrap();
        assert!(seen >= before);
        tsc.end();
        assert!(clock.now_ns() >= seen);
    }

    #[test]
    fn a_stopped_clock_takes_the_next_line_with_it() {
        let clock = MachineClock::new(TimeSource::Host);
        let Some(tsc) = GuestTsc::new(clock.clone(), 1_000_000) else { return };
        clock.set_ns(5_000_000_000);
        clock.start();
        tsc.begin();
        assert!(tsc.ticks().unwrap() >= 5_000_000_000);
        tsc.end();
        clock.stop();
        clock.set_ns(1_000_000_000);
        clock.start();
        tsc.begin();
        assert!(tsc.ticks().unwrap() < 4_000_000_000);
        tsc.end();
    }
}
