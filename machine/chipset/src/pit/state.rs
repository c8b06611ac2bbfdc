//! The PIT's state, and its saved form.

use bus::{Saved, SectionError};
use minicbor::{Decode, Encode};

use super::counter::{Counter, Element};
use super::spec::*;

/// What changes while the guest runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub counters: [Counter; 3],
    /// The writable bits of port B.
    pub port_b: u8,
    /// The tick up to which counter 0's edges have reached the line.
    pub told: u64,
    /// A periodic edge was sent while nobody heard: no more are needed.
    pub hushed: bool,
}

impl State {
    pub fn at_reset(now: u64) -> Self {
        Self {
            counters: [true, true, false].map(Counter::at_reset),
            port_b: 0,
            told: now,
            hushed: false,
        }
    }
}

#[derive(Encode, Decode)]
#[cbor(map)]
pub(super) struct SavedPit {
    #[n(0)]
    counters: Vec<SavedCounter>,
    #[n(1)]
    port_b: u8,
    #[n(2)]
    told: u64,
    #[n(3)]
    hushed: bool,
}

impl Saved for SavedPit {
    const KIND: &'static str = "pit";
    const VERSION: u16 = 1;
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct SavedCounter {
    #[n(0)]
    control: u8,
    #[n(1)]
    register: u32,
    #[n(2)]
    count: u32,
    #[n(3)]
    at: u64,
    #[n(4)]
    held: bool,
    #[n(5)]
    reload_at: Option<u64>,
    #[n(6)]
    gate: bool,
    #[n(7)]
    written_low: Option<u8>,
    #[n(8)]
    read_high: bool,
    #[n(9)]
    latched_count: Option<u16>,
    #[n(10)]
    latched_status: Option<u8>,
}

impl From<&State> for SavedPit {
    fn from(state: &State) -> Self {
        let State { counters, port_b, told, hushed } = state.clone();
        Self { counters: counters.map(SavedCounter::from).into(), port_b, told, hushed }
    }
}

impl TryFrom<SavedPit> for State {
    type Error = SectionError;

    fn try_from(saved: SavedPit) -> Result<Self, SectionError> {
        let SavedPit { counters, port_b, told, hushed } = saved;
        let counters: Vec<_> = counters.into_iter().map(Counter::from).collect();
        let counters = <[Counter; 3]>::try_from(counters).map_err(|counters| {
            let reason = format!("{} counters", counters.len());
            SectionError::Impossible { kind: SavedPit::KIND, reason }
        })?;
        Ok(Self { counters, port_b: port_b & PORT_B_WRITABLE, told, hushed })
    }
}

impl From<Counter> for SavedCounter {
    fn from(counter: Counter) -> Self {
        let Counter {
            control,
            register,
            element: Element { count, at, held },
            reload_at,
            gate,
            written_low,
            read_high,
            latched_count,
            latched_status,
        } = counter;
        Self {
            control,
            register,
            count,
            at,
            held,
            reload_at,
            gate,
            written_low,
            read_high,
            latched_count,
            latched_status,
        }
    }
}

impl From<SavedCounter> for Counter {
    fn from(saved: SavedCounter) -> Self {
        let SavedCounter {
            control,
            register,
            count,
            at,
            held,
            reload_at,
            gate,
            written_low,
            read_high,
            latched_count,
            latched_status,
        } = saved;
        Self {
            control: control & 0x3f,
            register: register.min(0x1_0000),
            element: Element { count: count.min(0x1_0000), at, held },
            reload_at,
            gate,
            written_low,
            read_high,
            latched_count,
            latched_status,
        }
    }
}
