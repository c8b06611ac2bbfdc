//! The HPET's state, and its saved form.

use bus::{Saved, SectionError, saved_form};

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

saved_form! {
    pub(super) struct SavedHpet: State {
        #[n(0)] configuration: u64, loaded configuration & (ENABLE_CNF | LEG_RT_CNF);
        #[n(1)] status: u64, loaded status & ((1 << TIMERS) - 1);
        #[n(2)] counter_base: u64;
        #[n(3)] seen: u64;
        #[n(4)] timers: Vec<SavedComparator>,
            saved timers.iter().map(Into::into).collect(), loaded timers_of(timers)?;
    }
}

saved_form! {
    struct SavedComparator: Comparator {
        #[n(0)] configuration: u64, loaded configuration & TIMER_WRITABLE;
        #[n(1)] value: u64;
        #[n(2)] period: u64;
        #[n(3)] fsb_route: u64;
    }
}

impl Saved for SavedHpet {
    const KIND: &'static str = "hpet";
    const VERSION: u16 = 1;
}

fn timers_of(saved: Vec<SavedComparator>) -> Result<[Comparator; TIMERS], SectionError> {
    let timers = saved.into_iter().map(TryInto::try_into).collect::<Result<Vec<_>, _>>()?;
    timers.try_into().map_err(|timers: Vec<_>| SectionError::Impossible {
        kind: SavedHpet::KIND,
        reason: format!("{} timers instead of {TIMERS}", timers.len()),
    })
}
