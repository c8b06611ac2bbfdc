//! Saved form of an entropy source.

use minicbor::{Decode, Encode};
use statecodec::Saved;

/// Version 1.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(super) struct EntropyState {
    /// Where a seeded source stands.
    #[n(0)]
    pub(super) seed: u64,
}

impl Saved for EntropyState {
    const KIND: &'static str = "virtio-entropy";
    const VERSION: u16 = 1;
}
