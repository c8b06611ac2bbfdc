//! Saved form of a device with named ports.

use minicbor::{Decode, Encode};
use statecodec::{Saved, SectionError};

/// Version 1.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(super) struct PortsState {
    /// By their numbers, from 1 on.
    #[n(0)]
    pub(super) ports: Vec<PortState>,
}

#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(super) struct PortState {
    #[n(0)]
    pub(super) name: String,
    /// The guest has it open.
    #[n(1)]
    pub(super) open: bool,
    /// Control messages that are due: bits by their events.
    #[n(2)]
    pub(super) due: u16,
    /// From the host, not yet read by the guest.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub(super) input: Vec<u8>,
    /// Bytes of the guest's first request that the host has taken already.
    #[n(4)]
    pub(super) sent: u64,
}

impl Saved for PortsState {
    const KIND: &'static str = "virtio-ports";
    const VERSION: u16 = 1;
}

impl PortsState {
    pub(super) fn impossible(reason: String) -> SectionError {
        SectionError::Impossible { kind: Self::KIND, reason }
    }
}
