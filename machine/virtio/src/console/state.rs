//! Saved form of a console.

use minicbor::{Decode, Encode};
use statecodec::{Saved, SectionError};

/// Version 1.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(super) struct ConsoleState {
    #[n(0)]
    pub(super) columns: u16,
    #[n(1)]
    pub(super) rows: u16,
    /// Typed and not yet read by the guest.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub(super) input: Vec<u8>,
}

impl Saved for ConsoleState {
    const KIND: &'static str = "virtio-console";
    const VERSION: u16 = 1;
}

impl ConsoleState {
    pub(super) fn impossible(reason: String) -> SectionError {
        SectionError::Impossible { kind: Self::KIND, reason }
    }
}
