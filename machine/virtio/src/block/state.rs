//! Saved form of a disk device. The disk itself is not in it.

use minicbor::{Decode, Encode};
use statecodec::{Saved, SectionError};

/// Version 1.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(super) struct BlockState {
    #[n(0)]
    pub(super) features: u64,
    #[n(1)]
    pub(super) writeback: bool,
    /// Guards against another disk in its place.
    #[n(2)]
    pub(super) size_bytes: u64,
}

impl Saved for BlockState {
    const KIND: &'static str = "virtio-block";
    const VERSION: u16 = 1;
}

impl BlockState {
    pub(super) fn impossible(reason: String) -> SectionError {
        SectionError::Impossible { kind: Self::KIND, reason }
    }
}
