//! The clock, as a part with state.

use std::sync::Arc;

use bus::{Device, Section, SectionError};
use machine_clock::MachineClock;
use minicbor::{Decode, Encode};
use statecodec::Saved;

pub(super) struct ClockPart(pub(super) Arc<MachineClock>);

/// Version 1.
#[derive(Encode, Decode)]
#[cbor(map)]
struct SavedClock {
    #[n(0)]
    now_ns: u64,
}

impl Saved for SavedClock {
    const KIND: &'static str = "machine-clock";
    const VERSION: u16 = 1;
}

impl Device for ClockPart {
    /// Time goes on through a reset, as it does on a board.
    fn reset(&self) {}

    fn save(&self) -> Section {
        Section::encode(&SavedClock { now_ns: self.0.now_ns() })
    }

    fn restore(&self, section: &Section) -> Result<(), SectionError> {
        let SavedClock { now_ns } = section.decode()?;
        self.0.set_ns(now_ns);
        Ok(())
    }
}
