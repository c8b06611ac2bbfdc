//! A SATA controller: the AHCI of an ICH9 (82801IR), with ATA disks and ATAPI CD-ROM drives, for
//! guests and firmware without virtio drivers.
//!
//! [`Ahci`] is the controller as a PCI function; what is behind its ports are [`Drive`]s. Queued
//! commands (NCQ) run side by side on the port's [`storage::Lane`].
//!
//! *Invariants*: the guest is hostile. What it says about memory is checked where it is used; a
//! command list that lies ends the command or stops the port, and never panics, hangs or
//! allocates by the guest's numbers. While paused, nothing in guest memory changes.
//!
//! *Locks*: the controller's one lock, then MSI. Lanes are pushed to under it and submitted and
//! drained without it.
//!
//! *Deviations*: there is no IDE mode, no port multiplier, no power management and no command
//! completion coalescing, as CAP says. Interrupts are MSI only.
//!
//! What this crate may not know: engines, the board, where images come from.
//!
//! Follows "Serial ATA Advanced Host Controller Interface 1.3.1", ACS-3, MMC-6 and SPC-3.

mod ata;
mod atapi;
mod hba;
mod memory;
mod port;
mod spec;
mod state;

pub use hba::{Ahci, AhciWiring, Drive, PORTS_MAX};

#[cfg(test)]
mod tests;
