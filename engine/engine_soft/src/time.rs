//! Machine clock, TSC and instruction count.

use std::sync::Arc;

use machine_clock::{MachineClock, TimeSource};
use x86_lapic::Now;

/// Ticks of a TSC of this rate in so many nanoseconds.
pub fn ticks(ns: u64, khz: u32) -> u64 {
    match ns.checked_mul(u64::from(khz)) {
        Some(product) => product / 1_000_000,
        None => (u128::from(ns) * u128::from(khz) / 1_000_000) as u64,
    }
}

/// Something else than the machine's clock that the TSC is read from, because an engine's own code
/// reads it there, too. It keeps to the clock.
pub trait TscSource: Send + Sync {
    /// Ticks of the TSC since the clock's zero; none while there is no telling.
    fn ticks(&self) -> Option<u64>;
}

/// A vCPU's view of time.
pub struct Time {
    clock: Arc<MachineClock>,
    source: Option<Arc<dyn TscSource>>,
    tsc_khz: u32,
    /// Guest TSC at machine clock zero.
    pub tsc_offset: u64,
    /// Counted clock: the clock has been advanced for this many retired instructions.
    accounted: u64,
}

impl Time {
    /// Over this clock, with no offset.
    pub fn new(clock: Arc<MachineClock>, tsc_khz: u32) -> Self {
        Self { clock, source: None, tsc_khz, tsc_offset: 0, accounted: 0 }
    }

    /// The TSC is read there from now on.
    pub fn set_tsc_source(&mut self, source: Arc<dyn TscSource>) {
        self.source = Some(source);
    }

    /// Instructions drive the clock.
    pub fn is_counted(&self) -> bool {
        self.clock.source() == TimeSource::Counted
    }

    /// Machine clock, in nanoseconds, when `retired` instructions have been executed.
    pub fn now_ns(&self, retired: u64) -> u64 {
        let ahead = if self.is_counted() { retired - self.accounted } else { 0 };
        self.clock.now_ns() + ahead
    }

    /// Counted clock: what was executed has taken its time. Timers fire.
    pub fn account(&mut self, retired: u64) {
        if self.is_counted() {
            let to = self.now_ns(retired);
            self.accounted = retired;
            self.clock.advance_to(to);
        }
    }

    /// Counted clock: nobody has anything to do before this time.
    pub fn skip_to(&self, ns: u64) {
        self.clock.advance_to(ns);
    }

    /// When a device's timer is due next.
    pub fn next_device_deadline_ns(&self) -> Option<u64> {
        self.clock.next_deadline_ns()
    }

    /// What a local APIC wants to know.
    pub fn now(&self, retired: u64) -> Now {
        let ns = self.now_ns(retired);
        Now { ns, tsc: self.tsc_at(ns), tsc_khz: self.tsc_khz }
    }

    fn ticks(&self, ns: u64) -> u64 {
        let own = self.source.as_ref().and_then(|source| source.ticks());
        own.unwrap_or_else(|| ticks(ns, self.tsc_khz))
    }

    fn tsc_at(&self, ns: u64) -> u64 {
        self.ticks(ns).wrapping_add(self.tsc_offset)
    }

    /// The guest's TSC.
    pub fn tsc(&self, retired: u64) -> u64 {
        self.tsc_at(self.now_ns(retired))
    }

    /// Makes the guest's TSC this.
    pub fn set_tsc(&mut self, value: u64, retired: u64) {
        self.tsc_offset = value.wrapping_sub(self.ticks(self.now_ns(retired)));
    }
}
