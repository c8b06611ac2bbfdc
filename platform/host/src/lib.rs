//! This host: VMs as processes that are nobody's children.
//!
//! A VM is a folder. Its process holds a lock on the log in it for as long as it lives, by its standard
//! error, and answers at the control socket in it. So whoever comes later finds what runs and takes
//! it on, and nothing depends on who started it.
//!
//! ```text
//! disks/              the pool that is there from the beginning
//! vms/ID/log          what its process says; locked while that lives
//!        control      its process' control socket
//!        screen       where viewers of its screen come in
//!        process      which start that is, since when, and its process ID
//!        end          how it ended, written by itself
//!        console.in   a FIFO: what is typed at the guest's serial port
//!        console.out  a FIFO: what the guest prints there
//! ```
//!
//! Networks are bridges, with rules of nftables and a dnsmasq each, when this process is root; see `networks`.
//!
//! *Invariants*: a VM runs once, since its process needs the lock to start. A guest fills no disk but its own
//! with what it prints. A process ID is only used when its process is known to be the same. What is cut off
//! anywhere leaves a folder that is understood.
//!
//! What this crate may not know: the store, what is wanted of a VM beyond the spec it is given.

mod arguments;
mod cage;
mod consoles;
mod facts;
mod folder;
mod guests;
mod local;
mod networks;
mod process;
mod storage;

pub use consoles::{Console, Consoles};
pub use facts::{Facts, Load};
pub use guests::{Guests, Usage};
pub use local::LocalHost;
pub use networks::subnets_in_use;

/// What images are called that are there for a disk that was sent, until it is made.
pub const UPLOAD: &str = "upload-";
