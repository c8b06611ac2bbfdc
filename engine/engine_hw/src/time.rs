//! The guest's TSC against the machine clock.
//!
//! Both clocks are straight lines while the VM runs, so one number relates them: the host's TSC at
//! machine-clock zero, the *origin*. The canonical TSC offset of a vCPU is the kernel's plus the
//! origin. All vCPUs of a VM use the same origin: two separate samples would set their TSCs apart
//! by the time between them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use machine_clock::{MachineClock, TimeSource};

/// Two readings of the same pair of clocks differ by less than this. A real stop takes longer:
/// every vCPU has to leave guest mode for it.
const JITTER_NS: u64 = 20_000;
/// Readings to choose the best from: a sampling thread may be preempted between two clocks.
const SAMPLES: usize = 8;

#[derive(Clone, Copy)]
struct Sample {
    tsc: u64,
    /// Since [`TscClock::base`].
    host_ns: u64,
    machine_ns: u64,
}

struct Line {
    /// Host monotonic time at machine-clock zero.
    host_zero_ns: i64,
    origin: u64,
}

/// Relates the TSC and the machine clock of one VM.
pub(crate) struct TscClock {
    clock: Arc<MachineClock>,
    khz: u32,
    base: Instant,
    line: Mutex<Option<Line>>,
}

impl TscClock {
    /// For a TSC of this rate.
    pub(crate) fn new(clock: Arc<MachineClock>, khz: u32) -> Self {
        Self { clock, khz, base: Instant::now(), line: Mutex::new(None) }
    }

    /// The origin for vCPUs that are about to run. While the machine clock stood, it has moved.
    pub(crate) fn running_origin(&self) -> u64 {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let sample = self.sample();
        let host_zero_ns = sample.host_ns as i64 - sample.machine_ns as i64;
        let line = line.get_or_insert_with(|| Line {
            host_zero_ns,
            origin: sample.tsc.wrapping_sub(self.ticks(sample.machine_ns as i64)),
        });
        let stood_ns = host_zero_ns - line.host_zero_ns;
        // A clock that does not follow the host's says nothing about how long it stood.
        if self.follows_host() && stood_ns.unsigned_abs() > JITTER_NS {
            line.host_zero_ns = host_zero_ns;
            line.origin = line.origin.wrapping_add(self.ticks(stood_ns));
        }
        line.origin
    }

    /// The origin to save by: where the two clocks have drifted apart since the VM was started,
    /// by the clocks as they are now.
    pub(crate) fn saved_origin(&self) -> u64 {
        let line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let sample = self.sample();
        let Some(line) = &*line else {
            return sample.tsc.wrapping_sub(self.ticks(sample.machine_ns as i64));
        };
        if self.clock.source() != TimeSource::Host {
            return line.origin;
        }
        // The host TSC at the machine clock's reading, on the line the VM last ran on.
        let since_ns = sample.host_ns as i64 - line.host_zero_ns - sample.machine_ns as i64;
        let tsc = sample.tsc.wrapping_sub(self.ticks(since_ns));
        let now = tsc.wrapping_sub(self.ticks(sample.machine_ns as i64));
        let drift = now.wrapping_sub(line.origin) as i64;
        if drift.unsigned_abs() > self.ticks(JITTER_NS as i64) { now } else { line.origin }
    }

    fn follows_host(&self) -> bool {
        self.clock.source() == TimeSource::Host && self.clock.is_running()
    }

    /// TSC ticks of a time, wrapping.
    fn ticks(&self, ns: i64) -> u64 {
        (i128::from(ns) * i128::from(self.khz) / 1_000_000) as u64
    }

    fn sample(&self) -> Sample {
        let mut best: Option<(Duration, Sample)> = None;
        for _ in 0..SAMPLES {
            let before = Instant::now();
            let machine_ns = self.clock.now_ns();
            let tsc = host_tsc();
            let took = before.elapsed();
            let host_ns = (before - self.base + took / 2).as_nanos() as u64;
            if best.is_none_or(|(least, _)| took < least) {
                best = Some((took, Sample { tsc, host_ns, machine_ns }));
            }
            if took < Duration::from_nanos(500) {
                break;
            }
        }
        best.map_or(Sample { tsc: host_tsc(), host_ns: 0, machine_ns: 0 }, |(_, sample)| sample)
    }
}

/// UNSAFETY: RDTSC, which every x86-64 CPU has and which touches no memory.
#[allow(unsafe_code, reason = "an intrinsic")]
fn host_tsc() -> u64 {
    // SAFETY: the instruction has no preconditions; a process for which it is switched off
    // (prctl PR_SET_TSC) is not ours.
    unsafe { std::arch::x86_64::_rdtsc() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running() -> (Arc<MachineClock>, TscClock) {
        let clock = MachineClock::new(TimeSource::Host);
        clock.start();
        let khz = {
            let (tsc, at) = (host_tsc(), Instant::now());
            std::thread::sleep(Duration::from_millis(20));
            ((host_tsc() - tsc) * 1_000_000 / at.elapsed().as_nanos() as u64) as u32
        };
        (clock.clone(), TscClock::new(clock, khz))
    }

    #[test]
    fn all_vcpus_of_a_running_vm_get_one_origin() {
        let (_clock, tsc) = running();
        let first = tsc.running_origin();
        assert!((0..1000).all(|_| tsc.running_origin() == first));
    }

    #[test]
    fn a_stop_moves_the_origin_by_its_length() {
        let (clock, tsc) = running();
        let before = tsc.running_origin();
        clock.stop();
        std::thread::sleep(Duration::from_millis(5));
        let saved = tsc.saved_origin();
        assert!(saved.wrapping_sub(before) as i64 <= tsc.ticks(JITTER_NS as i64 * 5) as i64);
        clock.start();
        let moved = tsc.running_origin().wrapping_sub(before);
        assert!((tsc.ticks(5_000_000)..tsc.ticks(500_000_000)).contains(&moved), "{moved}");
        assert_eq!(tsc.running_origin().wrapping_sub(before), moved);
    }
}
