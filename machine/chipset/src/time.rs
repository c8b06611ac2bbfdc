//! Oscillators on machine time.

/// The shortest time between two wake-ups of the host for a periodic source. What ticks faster
/// loses ticks; without it a guest could keep the clock's thread busy for ever.
pub(crate) const WAKE_INTERVAL_NS_MIN: u64 = 10_000;

const NS_PER_S: u128 = 1_000_000_000;

/// A frequency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hz(pub u64);

impl Hz {
    /// Ticks done at this time.
    pub(crate) fn ticks(self, ns: u64) -> u64 {
        saturated(u128::from(ns) * u128::from(self.0) / NS_PER_S)
    }

    /// The first time at which this tick is done.
    pub(crate) fn ns(self, tick: u64) -> u64 {
        saturated((u128::from(tick) * NS_PER_S).div_ceil(u128::from(self.0)))
    }
}

fn saturated(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_is_done_at_its_time_and_not_before() {
        for hz in [Hz(1_193_182), Hz(3_579_545), Hz(32_768), Hz(100_000_000)] {
            for tick in [1, 2, 3, 1000, 123_456_789] {
                let ns = hz.ns(tick);
                assert_eq!((hz.ticks(ns), hz.ticks(ns - 1)), (tick, tick - 1));
            }
        }
        assert_eq!(Hz(1_000_000_000).ticks(u64::MAX), u64::MAX);
        assert_eq!(Hz(1).ns(u64::MAX), u64::MAX);
    }
}
