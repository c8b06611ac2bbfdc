//! Saved form.

use bus::Saved;
use minicbor::{Decode, Encode};

use super::spec::IRQS;

/// What changes while the guest runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct State {
    pub latch: [u8; 4],
    /// Levels of the interrupt lines, a bit each.
    pub lines: u32,
}

#[derive(Encode, Decode)]
#[cbor(map)]
pub(super) struct SavedTestDevice {
    #[n(0)]
    latch: u32,
    #[n(1)]
    lines: u32,
}

impl Saved for SavedTestDevice {
    const KIND: &'static str = "testdev";
    const VERSION: u16 = 1;
}

impl From<State> for SavedTestDevice {
    fn from(State { latch, lines }: State) -> Self {
        Self { latch: u32::from_le_bytes(latch), lines }
    }
}

impl From<SavedTestDevice> for State {
    fn from(SavedTestDevice { latch, lines }: SavedTestDevice) -> Self {
        Self { latch: latch.to_le_bytes(), lines: lines & ((1 << IRQS) - 1) }
    }
}
