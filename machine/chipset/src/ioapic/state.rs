//! The IOAPIC's state, and its saved form.

use bus::{Saved, SectionError};
use minicbor::{Decode, Encode};

use super::spec::*;

/// What changes while the guest runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub id: u8,
    pub select: u8,
    pub table: [u64; INPUTS],
    /// Levels of the inputs, a bit each.
    pub lines: u32,
}

impl State {
    /// The state after power-up. The levels are the wires'.
    pub fn at_reset(lines: u32) -> Self {
        Self { id: 0, select: 0, table: [RTE_MASK; INPUTS], lines }
    }
}

#[derive(Encode, Decode)]
#[cbor(map)]
pub(super) struct SavedIoApic {
    #[n(0)]
    id: u8,
    #[n(1)]
    select: u8,
    #[n(2)]
    table: Vec<u64>,
    #[n(3)]
    lines: u32,
}

impl Saved for SavedIoApic {
    const KIND: &'static str = "ioapic";
    const VERSION: u16 = 1;
}

impl From<&State> for SavedIoApic {
    fn from(state: &State) -> Self {
        let State { id, select, table, lines } = state.clone();
        Self { id, select, table: table.to_vec(), lines }
    }
}

impl TryFrom<SavedIoApic> for State {
    type Error = SectionError;

    fn try_from(saved: SavedIoApic) -> Result<Self, SectionError> {
        let SavedIoApic { id, select, table, lines } = saved;
        let table = <[u64; INPUTS]>::try_from(table).map_err(|table| SectionError::Impossible {
            kind: SavedIoApic::KIND,
            reason: format!("{} entries instead of {INPUTS}", table.len()),
        })?;
        Ok(Self {
            id: id & 0xf,
            select,
            table: table.map(|entry| entry & (RTE_WRITABLE | RTE_REMOTE_IRR)),
            lines: lines & ((1 << INPUTS) - 1),
        })
    }
}
