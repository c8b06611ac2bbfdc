//! Saved form.

use bus::Saved;
use minicbor::{Decode, Encode};

use super::spec::{FAST_RESET, RST_MASK};

/// What changes while the guest runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct State {
    pub rst_cnt: u8,
    pub port_a: u8,
}

#[derive(Encode, Decode)]
#[cbor(map)]
pub(super) struct SavedResetControl {
    #[n(0)]
    rst_cnt: u8,
    #[n(1)]
    port_a: u8,
}

impl Saved for SavedResetControl {
    const KIND: &'static str = "reset_control";
    const VERSION: u16 = 1;
}

impl From<State> for SavedResetControl {
    fn from(State { rst_cnt, port_a }: State) -> Self {
        Self { rst_cnt, port_a }
    }
}

impl From<SavedResetControl> for State {
    fn from(SavedResetControl { rst_cnt, port_a }: SavedResetControl) -> Self {
        Self { rst_cnt: rst_cnt & RST_MASK, port_a: port_a & FAST_RESET }
    }
}
