//! Virtio 1.2 devices over PCI: transport, queues, balloon, block, console, named ports, entropy, network, sockets.
//!
//! - [`VirtioDevice`] is what a device is: features, configuration, and what it does with one
//!   request ([`Chain`]). It knows no queue, no transport and no thread.
//! - [`VirtioPci`] is the transport (4.1, modern only): registers, MSI-X, doorbells. The board
//!   plugs its [`VirtioPci::function`] into a bus and saves, restores and resets it as a
//!   [`bus::Device`].
//! - Between them, the queues' runner takes requests off the rings on the event loops the board
//!   gave ([`Dispatch`]), hands them to the device one at a time, and interrupts once a batch.
//!
//! *Invariants*: the guest is hostile. What it says about memory is checked where it is used. A
//! ring that lies (wild addresses, loops, jumping indices) stops the device with
//! DEVICE_NEEDS_RESET; it never panics, hangs or allocates by the guest's numbers. While paused,
//! nothing in guest memory changes.
//!
//! *Locks*: the transport's registers, then a queue's ring, then what a device has, then MSI-X.
//! A device's work runs under its ring's lock, so a reset waits for it.
//!
//! What this crate may not know: engines, the board, where host files come from.
//!
//! Follows "Virtual I/O Device (VIRTIO) Version 1.2"; section numbers are of that document.

mod balloon;
mod block;
mod chain;
mod console;
mod device;
mod entropy;
mod input;
mod net;
mod pci;
mod ports;
mod ring;
mod runner;
pub mod spec;
mod vsock;

pub use self::net::{Net, NetConfig, NetCounters};
pub use self::vsock::Vsock;
pub use balloon::{Balloon, MemoryStats};
pub use block::{Block, BlockConfig, BlockCounters};
pub use chain::{Chain, Fault, Span};
pub use console::{Console, ConsoleConfig, ConsoleOutput};
pub use device::{Broken, DeviceType, Outcome, VirtioDevice};
pub use entropy::{Entropy, EntropySource};
pub use input::{Input, InputKind, TabletMotion};
pub use pci::{Doorbells, NoDoorbells, VirtioPci, Wiring};
pub use ports::{PortConfig, PortPeer, Ports};
pub use runner::{Dispatch, Handle};

#[cfg(test)]
extern crate self as virtio;
#[cfg(test)]
mod testing;
