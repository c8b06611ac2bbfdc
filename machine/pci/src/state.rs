//! Saved form of a function.

use minicbor::{Decode, Encode};
use statecodec::{Saved, SectionError};

use crate::registers::{ConfigBytes, Registers};

/// Version 1.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(crate) struct FunctionState {
    /// All of configuration space.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub(crate) config: Vec<u8>,
    /// The MSI-X table; empty without one.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub(crate) table: Vec<u8>,
    /// The pending bits; empty without MSI-X.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub(crate) pending: Vec<u8>,
}

impl Saved for FunctionState {
    const KIND: &'static str = "pci-function";
    const VERSION: u16 = 1;
}

impl FunctionState {
    pub(crate) fn impossible(reason: String) -> SectionError {
        SectionError::Impossible { kind: Self::KIND, reason }
    }

    /// The configuration, when a function with these registers can have it.
    pub(crate) fn check(&self, registers: &Registers) -> Result<ConfigBytes, SectionError> {
        let config = ConfigBytes::try_from(self.config.as_slice()).map_err(|_| {
            Self::impossible(format!("configuration space of {} bytes", self.config.len()))
        })?;
        let differs = |i: &usize| (config[*i] ^ registers.bytes[*i]) & !registers.writable[*i] != 0;
        match (0..config.len()).find(differs) {
            Some(at) => Err(Self::impossible(format!("read-only register {at:#x} differs"))),
            None => Ok(config),
        }
    }
}
