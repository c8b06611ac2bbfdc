//! Networks: where a network card's frames go, and where those it receives come from.
//!
//! [`Network`] is the trait. [`UserNetwork`] is a network of one guest in this process, which
//! reaches the outside through ordinary sockets and needs no privilege; [`Tap`] hands frames to
//! the host's kernel. [`Policed`] puts a rate and a check of source addresses before either.
//!
//! A frame is 12 bytes of [`Header`] (the kernel's `struct virtio_net_hdr_v1`, Linux
//! `include/uapi/linux/virtio_net.h`), which says what is left to be done to it, and then
//! Ethernet. Both ends may leave checksums and segmentation to the other: that is most of the
//! throughput.
//!
//! *Invariants*: what a guest sends is parsed, never trusted: no frame panics, and what is kept
//! for one guest (flows, their buffers, frames in queues) has a bound. A network never waits for
//! the guest; a guest that does not receive loses nothing but its own time.
//!
//! A network whose queues the host's kernel can serve by itself (vhost-net, over a tap) will be a
//! second trait made from [`Tap`], as disks with completions of their own will be for disks;
//! nothing here stands in its way.
//!
//! What this crate may not know: guests, PCI, virtio's rings.

mod error;
mod header;
mod mac;
mod policed;
mod rate;
mod tap;
mod user;

pub use error::{NetError, ParseError};
pub use header::{FRAME_MAX, HEADER_SIZE, Header, NEEDS_CSUM, gso};
pub use mac::Mac;
pub use policed::{Policed, Policy};
pub use rate::{Rate, TokenBucket};
pub use tap::Tap;
pub use user::{Forward, Protocol, UserConfig, UserCounters, UserNetwork, keep_resolver};

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

bitflags::bitflags! {
    /// Work on frames that the other side may leave undone.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct Offloads: u32 {
        /// Checksums of TCP and UDP.
        const CHECKSUM = 1;
        /// Cutting TCP over IPv4 into segments.
        const TSO4 = 2;
        /// Cutting TCP over IPv6 into segments.
        const TSO6 = 4;
        /// Cutting TCP with congestion marks.
        const ECN = 8;
        /// Cutting UDP datagrams into fragments.
        const UFO = 16;
    }
}

/// What does not change while a network is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetworkInfo {
    /// Queues in each direction.
    pub pairs: u16,
    /// What a guest may leave undone in frames it sends.
    pub from_guest: Offloads,
    /// What the network can leave undone in frames a guest receives, if that guest likes.
    pub to_guest: Offloads,
}

/// Why a network calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// [`Network::receive`] may have a frame for this pair again.
    Receive(usize),
    /// [`Network::send`] may take one of this pair again.
    Send(usize),
}

/// Called when a network is ready again, on any thread, without locks that `send` or `receive`
/// take.
pub type OnReady = Arc<dyn Fn(Ready) + Send + Sync>;

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// The network has taken it, or has lost it as networks do.
    Taken,
    /// Not now: to be offered again after [`Ready::Send`].
    Later,
}

/// A network, as one network card sees it.
///
/// Calls for different pairs and directions may come at once, from several threads; those for one
/// pair and direction come one at a time.
pub trait Network: Send + Sync {
    /// What does not change.
    fn info(&self) -> NetworkInfo;

    /// Says whom to call, once, before all else.
    fn attach(&self, on_ready: OnReady);

    /// The guest begins (anew): it receives with these offloads, on this many pairs.
    fn configure(&self, to_guest: Offloads, pairs: u16);

    /// Sends a frame, with its header.
    fn send(&self, pair: usize, frame: &[u8]) -> Sent;

    /// Receives a frame, with its header, into the front of `frame`, which has [`FRAME_MAX`]
    /// bytes, and says how long it is. After `None`, [`Ready::Receive`] tells when to ask again.
    fn receive(&self, pair: usize, frame: &mut [u8]) -> Option<usize>;
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
