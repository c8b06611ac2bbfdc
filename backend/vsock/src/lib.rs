//! The host's end of a guest's sockets (AF_VSOCK): each stream is a UNIX socket of the host.
//!
//! A program of the host connects to the socket's path and says `CONNECT PORT`, a line, to be let
//! through to the guest's port; it is answered `OK PORT`, a line, with the port it has itself. A
//! program of the guest that connects to port N of the host (CID 2) reaches who listens at the
//! path with `_N` after it. So do Firecracker and Cloud Hypervisor.
//!
//! [`Host`] takes the guest's packets and makes those for it; what carries them is the device's
//! business.
//!
//! *Invariants*: the guest is hostile. There are [`CONNECTIONS_MAX`] connections, and each holds
//! [`BUFFER`] bytes at most that the host's program has not taken: what a guest sends beyond the
//! credit it was given ends the connection. Bytes for the guest stay in the host's kernel until the
//! guest has a buffer for them.
//!
//! *Lock*: one for all connections; nothing else is called under it.
//!
//! What this crate may not know: virtio's queues, guest memory.
//!
//! Follows VIRTIO 1.2, section 5.10.

mod connection;
mod host;
mod packet;
mod socket;
#[cfg(test)]
mod tests;

pub use host::Host;
pub use packet::{HEADER_SIZE, Header};
pub use socket::VsockError;

/// The host's address.
pub const HOST_CID: u64 = 2;
/// The first address a guest can have.
pub const GUEST_CID_MIN: u64 = 3;

/// Connections at a time. Each costs a descriptor, and a buffer.
pub const CONNECTIONS_MAX: usize = 512;
/// What a connection buffers of what the guest sends: the credit the guest gets. A packet carries
/// no more.
pub const BUFFER: usize = 64 << 10;
