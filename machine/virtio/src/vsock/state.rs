//! Saved form of a socket device.

use minicbor::{Decode, Encode};
use statecodec::{Saved, SectionError};

/// Version 1.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(super) struct VsockState {
    #[n(0)]
    pub(super) guest_cid: u64,
    /// The guest has not yet been told that its connections are over.
    #[n(1)]
    pub(super) reset_due: bool,
}

impl Saved for VsockState {
    const KIND: &'static str = "virtio-vsock";
    const VERSION: u16 = 1;
}

impl VsockState {
    pub(super) fn impossible(reason: String) -> SectionError {
        SectionError::Impossible { kind: Self::KIND, reason }
    }
}
