//! The state, and its saved form.

use bus::Saved;
use minicbor::{Decode, Encode};

use super::spec::*;

/// What changes while the guest runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct State {
    pub pm1_sts: u16,
    pub pm1_en: u16,
    pub pm1_cnt: u16,
    pub gpe0_sts: u16,
    pub gpe0_en: u16,
    /// Machine time up to which the timer's overflows are in `pm1_sts`.
    pub seen_ns: u64,
}

#[derive(Encode, Decode)]
#[cbor(map)]
pub(super) struct SavedPm {
    #[n(0)]
    pm1_sts: u16,
    #[n(1)]
    pm1_en: u16,
    #[n(2)]
    pm1_cnt: u16,
    #[n(3)]
    gpe0_sts: u16,
    #[n(4)]
    gpe0_en: u16,
    #[n(5)]
    seen_ns: u64,
}

impl Saved for SavedPm {
    const KIND: &'static str = "pm";
    const VERSION: u16 = 1;
}

impl From<State> for SavedPm {
    fn from(state: State) -> Self {
        let State { pm1_sts, pm1_en, pm1_cnt, gpe0_sts, gpe0_en, seen_ns } = state;
        Self { pm1_sts, pm1_en, pm1_cnt, gpe0_sts, gpe0_en, seen_ns }
    }
}

impl From<SavedPm> for State {
    fn from(saved: SavedPm) -> Self {
        let SavedPm { pm1_sts, pm1_en, pm1_cnt, gpe0_sts, gpe0_en, seen_ns } = saved;
        Self {
            pm1_sts: pm1_sts & PM1_STS_MASK,
            pm1_en: pm1_en & PM1_EN_MASK,
            pm1_cnt: pm1_cnt & PM1_CNT_MASK,
            gpe0_sts,
            gpe0_en,
            seen_ns,
        }
    }
}
