//! An NVMe controller with one namespace, for guests and firmware without virtio drivers.
//!
//! [`Nvme`] is the controller as a PCI function. Commands of a submission queue run side by side on
//! the queue's [`storage::Lane`].
//!
//! *Invariants*: the guest is hostile. What it says about memory is checked where it is used; a
//! list of pages ends where the transfer does, and a transfer where MDTS says. A command is taken
//! from its queue only when there is room for its completion, so nothing grows by the guest's
//! numbers. While paused, nothing in guest memory changes.
//!
//! *Locks*: the controller's one lock, then MSI-X. Lanes are pushed to under it and submitted and
//! drained without it.
//!
//! *Deviations*: pages of 4 KiB only, no SGLs, no firmware download, no namespace management, no
//! interrupts but MSI-X. Asynchronous events never come.
//!
//! What this crate may not know: engines, the board, where images come from.
//!
//! Follows "NVM Express 1.4"; section numbers are of that document.

mod admin;
mod controller;
mod io;
mod prp;
mod spec;
mod state;

pub use controller::{Nvme, NvmeConfig, NvmeWiring};

#[cfg(test)]
mod tests;
