//! The APIC's timer (SDM vol. 3A, 11.5.4).

use x86_state::{APIC_BUS_CYCLE_NS, ApicTimer};

use crate::Lapic;
use crate::spec::*;

/// What time it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Machine clock, in nanoseconds.
    pub ns: u64,
    /// The guest's TSC.
    pub tsc: u64,
    /// Its rate.
    pub tsc_khz: u32,
}

impl Now {
    /// When the TSC reaches `tsc`, in nanoseconds of machine clock; now, when it has.
    pub(crate) fn ns_at_tsc(&self, tsc: u64) -> u64 {
        let ticks = tsc.wrapping_sub(self.tsc);
        if ticks as i64 <= 0 {
            return self.ns;
        }
        let ns = (u128::from(ticks) * 1_000_000).div_ceil(u128::from(self.tsc_khz));
        self.ns.saturating_add(u64::try_from(ns).unwrap_or(u64::MAX))
    }
}

/// The timer's phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Timer {
    /// When it fires, in nanoseconds of machine clock.
    pub(crate) deadline_ns: Option<u64>,
    /// IA32_TSC_DEADLINE.
    pub(crate) tsc_deadline: u64,
}

impl Lapic {
    /// When [`Lapic::tick`] is due; `None` when the timer stands.
    pub fn next_deadline_ns(&self) -> Option<u64> {
        self.timer.deadline_ns
    }

    /// The timer's time may have come. A periodic timer that lags fires once and goes on in its
    /// phase: ticks lost to a busy host are not made up for.
    pub fn tick(&mut self, now: Now) {
        let Some(deadline) = self.timer.deadline_ns.filter(|d| *d <= now.ns) else { return };
        self.timer.tsc_deadline = 0;
        self.timer.deadline_ns = match self.timer_period_ns() {
            Some(period) if self.reg(LVT_TIMER) & TIMER_MODE == TIMER_PERIODIC => {
                Some(deadline + ((now.ns - deadline) / period + 1) * period)
            }
            _ => None,
        };
        self.fire_lvt(LVT_TIMER);
    }

    /// Nanoseconds a count of the timer lasts.
    fn timer_count_ns(&self) -> u64 {
        // SDM vol. 3A, figure 11-10: bits 3, 1 and 0; 0b111 divides by one.
        let bits = self.reg(DIVIDE);
        let shift = ((bits & 3) | (bits >> 1 & 4)).wrapping_add(1) & 7;
        APIC_BUS_CYCLE_NS << shift
    }

    fn timer_period_ns(&self) -> Option<u64> {
        let count = u64::from(self.reg(INITIAL_COUNT));
        (count != 0).then(|| count * self.timer_count_ns())
    }

    pub(crate) fn is_tsc_deadline_mode(&self) -> bool {
        self.reg(LVT_TIMER) & TIMER_MODE == TIMER_TSC_DEADLINE
    }

    /// The current-count register.
    pub(crate) fn current_count(&self, now: Now) -> u32 {
        if self.is_tsc_deadline_mode() {
            return 0;
        }
        let left = self.timer.deadline_ns.map_or(0, |d| d.saturating_sub(now.ns));
        u32::try_from(left.div_ceil(self.timer_count_ns())).unwrap_or(u32::MAX)
    }

    /// The initial-count register was written.
    pub(crate) fn start_timer(&mut self, now: Now) {
        if !self.is_tsc_deadline_mode() {
            self.timer.deadline_ns = self.timer_period_ns().map(|period| now.ns + period);
        }
    }

    /// The divide register changes: the count goes on from where it is.
    pub(crate) fn set_divide(&mut self, value: u32, now: Now) {
        let left = u64::from(self.current_count(now));
        self.set_reg(DIVIDE, value & 0xb);
        if !self.is_tsc_deadline_mode() && self.timer.deadline_ns.is_some() {
            self.timer.deadline_ns = Some(now.ns + left * self.timer_count_ns());
        }
    }

    /// The mode bits of LVT timer changed from `old`: changes from and to TSC-deadline disarm.
    pub(crate) fn timer_mode_changed(&mut self, old: u32) {
        let new = self.reg(LVT_TIMER);
        if (old ^ new) & TIMER_TSC_DEADLINE != 0 {
            self.timer = Timer::default();
            self.set_reg(INITIAL_COUNT, 0);
        }
    }

    /// IA32_TSC_DEADLINE was written. Ignored in other modes.
    pub(crate) fn set_tsc_deadline(&mut self, value: u64, now: Now) {
        if self.is_tsc_deadline_mode() {
            self.timer.tsc_deadline = value;
            self.timer.deadline_ns = (value != 0).then(|| now.ns_at_tsc(value));
        }
    }

    pub(crate) fn save_timer(&self, now: Now) -> ApicTimer {
        let remaining = self.timer.deadline_ns.map(|d| d.saturating_sub(now.ns));
        ApicTimer {
            remaining_ns: remaining.filter(|_| !self.is_tsc_deadline_mode()),
            tsc_deadline: self.timer.tsc_deadline,
        }
    }

    pub(crate) fn load_timer(&mut self, saved: &ApicTimer, now: Now) {
        self.timer = Timer {
            deadline_ns: saved.remaining_ns.map(|left| now.ns.saturating_add(left)),
            tsc_deadline: 0,
        };
        self.set_tsc_deadline(saved.tsc_deadline, now);
    }
}
