//! One comparator, in ticks of the main counter.

use super::spec::*;

/// The state of one comparator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Comparator {
    /// The writable bits.
    pub configuration: u64,
    pub value: u64,
    pub period: u64,
    pub fsb_route: u64,
}

impl Comparator {
    pub fn has(&self, bit: u64) -> bool {
        self.configuration & bit != 0
    }

    fn mask(&self) -> u64 {
        if self.has(MODE32_CNF) { u32::MAX.into() } else { u64::MAX }
    }

    /// Ticks from `counter` to the next match, at least 1. `None`: not within the counter's
    /// width's time, which for 64 bits is for ever.
    pub fn ticks_to_match(&self, counter: u64) -> Option<u64> {
        let distance = self.value.wrapping_sub(counter) & self.mask();
        match (distance, self.has(MODE32_CNF)) {
            (0, true) => Some(1 << 32),
            (0, false) => None,
            // Behind the counter: 64 bits will not come round again.
            (distance, false) if distance > i64::MAX as u64 => None,
            (distance, _) => Some(distance),
        }
    }

    /// Goes on to the first match after `counter`, when there was one at or before it.
    pub fn advance(&mut self, counter: u64) {
        let mask = self.mask();
        let period = self.period & mask;
        if !self.has(TYPE_CNF) || period == 0 {
            return;
        }
        let behind = counter.wrapping_sub(self.value) & mask;
        let periods = behind / period + 1;
        self.value = self.value.wrapping_add(periods.wrapping_mul(period)) & mask;
    }

    pub fn read(&self, register: u64) -> u64 {
        match register {
            TIMER_CONFIGURATION => self.configuration | TIMER_CAPABILITIES,
            TIMER_COMPARATOR => self.value,
            TIMER_FSB_ROUTE => self.fsb_route,
            _ => 0,
        }
    }

    /// Writes what `value` has at the bits of `written` (half of a register or all of it).
    pub fn write(&mut self, register: u64, value: u64, written: u64) {
        let merge = |old: u64| old & !written | value & written;
        match register {
            TIMER_CONFIGURATION => {
                self.configuration = merge(self.configuration) & TIMER_WRITABLE;
                if self.has(MODE32_CNF) {
                    self.value &= self.mask();
                    self.period &= self.mask();
                }
            }
            TIMER_COMPARATOR => {
                if self.has(TYPE_CNF) {
                    self.period = merge(self.period) & self.mask();
                }
                if !self.has(TYPE_CNF) || self.has(VAL_SET_CNF) {
                    self.value = merge(self.value) & self.mask();
                }
                self.configuration &= !VAL_SET_CNF;
            }
            TIMER_FSB_ROUTE => self.fsb_route = merge(self.fsb_route),
            _ => {}
        }
    }
}
