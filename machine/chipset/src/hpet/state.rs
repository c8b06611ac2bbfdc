//! The HPET's state, and its saved form.

use bus::{Saved, SectionError};
use minicbor::{Decode, Encode};

use super::comparator::Comparator;
use super::spec::*;

/// What changes while the guest runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct State {
    pub configuration: u64,
    /// Level-triggered interrupts pending, a bit a timer.
    pub status: u64,
    /// The main counter while it stands; while it runs, less the clock's ticks.
    pub counter_base: u64,
    /// The counter's value up to which matches have been seen.
    pub seen: u64,
    pub timers: [Comparator; TIMERS],
}

#[derive(Encode, Decode)]
#[cbor(map)]
pub(super) struct SavedHpet {
    #[n(0)]
    configuration: u64,
    #[n(1)]
    status: u64,
    #[n(2)]
    counter_base: u64,
    #[n(3)]
    seen: u64,
    #[n(4)]
    timers: Vec<SavedComparator>,
}

impl Saved for SavedHpet {
    const KIND: &'static str = "hpet";
    const VERSION: u16 = 1;
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct SavedComparator {
    #[n(0)]
    configuration: u64,
    #[n(1)]
    value: u64,
    #[n(2)]
    period: u64,
    #[n(3)]
    fsb_route: u64,
}

impl From<Comparator> for SavedComparator {
    fn from(Comparator { configuration, value, period, fsb_route }: Comparator) -> Self {
        Self { configuration, value, period, fsb_route }
    }
}

impl From<SavedComparator> for Comparator {
    fn from(saved: SavedComparator) -> Self {
        let SavedComparator { configuration, value, period, fsb_route } = saved;
        Self { configuration: configuration & TIMER_WRITABLE, value, period, fsb_route }
    }
}

impl From<&State> for SavedHpet {
    fn from(state: &State) -> Self {
        let State { configuration, status, counter_base, seen, timers } = state.clone();
        let timers = timers.map(SavedComparator::from).into();
        Self { configuration, status, counter_base, seen, timers }
    }
}

impl TryFrom<SavedHpet> for State {
    type Error = SectionError;

    fn try_from(saved: SavedHpet) -> Result<Self, SectionError> {
        let SavedHpet { configuration, status, counter_base, seen, timers } = saved;
        let timers: Vec<_> = timers.into_iter().map(Comparator::from).collect();
        let timers = <[Comparator; TIMERS]>::try_from(timers).map_err(|timers| {
            let reason = format!("{} timers instead of {TIMERS}", timers.len());
            SectionError::Impossible { kind: SavedHpet::KIND, reason }
        })?;
        Ok(Self {
            configuration: configuration & (ENABLE_CNF | LEG_RT_CNF),
            status: status & ((1 << TIMERS) - 1),
            counter_base,
            seen,
            timers,
        })
    }
}
