//! Saved form of a network card. Frames under way are not in it: networks lose frames.

use minicbor::{Decode, Encode};
use statecodec::{Saved, SectionError};

/// Version 1.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(super) struct NetState {
    #[n(0)]
    pub(super) features: u64,
    #[n(1)]
    pub(super) mac: [u8; 6],
    #[n(2)]
    pub(super) link_up: bool,
    #[n(3)]
    pub(super) pairs: u16,
    /// What is received: bits by the number of the RX command.
    #[n(4)]
    pub(super) modes: u8,
    #[n(5)]
    pub(super) unicast: Vec<[u8; 6]>,
    #[n(6)]
    pub(super) multicast: Vec<[u8; 6]>,
    /// The table did not fit: everything of its kind is received.
    #[n(7)]
    pub(super) unicast_overflow: bool,
    #[n(8)]
    pub(super) multicast_overflow: bool,
}

impl Saved for NetState {
    const KIND: &'static str = "virtio-net";
    const VERSION: u16 = 1;
}

impl NetState {
    pub(super) fn impossible(reason: String) -> SectionError {
        SectionError::Impossible { kind: Self::KIND, reason }
    }
}
