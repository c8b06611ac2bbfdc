//! PCI: configuration space, BARs, MSI-X, and one bus of functions.
//!
//! A device hands a [`FunctionSpec`] and a [`FunctionDevice`] to [`Function::new`] and gets
//! configuration space with everything that follows from it: BARs that map themselves where the
//! guest puts them, command register gating, MSI-X with masks and pending bits. The board plugs
//! the function into a [`PciBus`] and maps [`ConfigPorts`] and, through [`host_bridge`], ECAM.
//!
//! *Invariants*: a BAR is mapped exactly while its space is enabled in the command register and
//! it does not collide. Without bus mastering no message is sent; it waits. While messages are on, the
//! interrupt pin is silent.
//!
//! What this crate may not know: what functions do, engines, guest memory.
//!
//! Follows PCI Local Bus 3.0 (configuration space, MSI-X) and PCI Express 7.2.2 (ECAM).

mod assign;
mod bridges;
mod function;
mod intx;
mod msi;
mod msix;
mod pirq;
mod registers;
mod rom;
pub mod spec;
mod state;
mod topology;

pub use assign::{NoRoom, Windows};
pub use bridges::{
    AttributeSink, Attributes, Segment, ecam_base, host_bridge, lpc_bridge, pm_base,
};
pub use function::{
    Bar, BarKind, Capability, Function, FunctionDevice, FunctionSpec, Identity, Inert, MsixPlace,
    Register,
};
pub use intx::{Intx, Pin};
pub use msi::MsiVector;
pub use msix::{Msix, MsixBar};
pub use pirq::{PIRQS, PirqRouter};
pub use registers::ConfigBytes;
pub use topology::{ConfigPorts, DevFn, Ecam, PciBus, Taken};

use std::sync::Arc;

use bus::AddressSpace;

/// Where BARs go.
#[derive(Clone)]
pub struct Spaces {
    /// Guest-physical addresses.
    pub memory: Arc<AddressSpace>,
    /// Ports.
    pub io: Arc<AddressSpace>,
}

#[cfg(test)]
mod tests;
