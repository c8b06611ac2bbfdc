//! The IOAPIC's state, and its saved form.

use bus::{Saved, SectionError, saved_form};

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

saved_form! {
    pub(super) struct SavedIoApic: State {
        #[n(0)] id: u8, loaded id & 0xf;
        #[n(1)] select: u8;
        #[n(2)] table: Vec<u64>, saved table.into(), loaded table_of(&table)?;
        #[n(3)] lines: u32, loaded lines & ((1 << INPUTS) - 1);
    }
}

impl Saved for SavedIoApic {
    const KIND: &'static str = "ioapic";
    const VERSION: u16 = 1;
}

fn table_of(entries: &[u64]) -> Result<[u64; INPUTS], SectionError> {
    let table = <[u64; INPUTS]>::try_from(entries).map_err(|_| SectionError::Impossible {
        kind: SavedIoApic::KIND,
        reason: format!("{} entries instead of {INPUTS}", entries.len()),
    })?;
    Ok(table.map(|entry| entry & (RTE_WRITABLE | RTE_REMOTE_IRR)))
}
