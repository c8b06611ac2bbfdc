//! Saved form of a balloon. Statistics are not in it: they are asked for anew.

use minicbor::{Decode, Encode};
use statecodec::Saved;

/// Version 1.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(super) struct BalloonState {
    #[n(0)]
    pub(super) target: u32,
    #[n(1)]
    pub(super) actual: u32,
    /// `free_page_hint_cmd_id`.
    #[n(2)]
    pub(super) hint: u32,
    /// The driver has begun to answer that command.
    #[n(3)]
    pub(super) hinting: bool,
    /// The next ID of such a command.
    #[n(4)]
    pub(super) next_hint: u32,
}

impl Saved for BalloonState {
    const KIND: &'static str = "virtio-balloon";
    const VERSION: u16 = 1;
}
