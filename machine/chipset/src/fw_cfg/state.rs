//! Saved form: where the guest reads. The items are fixed configuration.

use bus::Saved;
use minicbor::{Decode, Encode};

/// What changes while the guest runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct State {
    pub selected: u16,
    pub offset: u32,
    /// The upper half of the DMA address.
    pub dma_high: u32,
}

#[derive(Encode, Decode)]
#[cbor(map)]
pub(super) struct SavedFwCfg {
    #[n(0)]
    selected: u16,
    #[n(1)]
    offset: u32,
    #[n(2)]
    dma_high: u32,
}

impl Saved for SavedFwCfg {
    const KIND: &'static str = "fw_cfg";
    const VERSION: u16 = 1;
}

impl From<State> for SavedFwCfg {
    fn from(State { selected, offset, dma_high }: State) -> Self {
        Self { selected, offset, dma_high }
    }
}

impl From<SavedFwCfg> for State {
    fn from(SavedFwCfg { selected, offset, dma_high }: SavedFwCfg) -> Self {
        Self { selected, offset, dma_high }
    }
}
