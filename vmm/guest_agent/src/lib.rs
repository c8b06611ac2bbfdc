//! Asks the QEMU guest agent of a guest, over a channel that is bytes.
//!
//! An [`Agent`] serves the [`AgentRequest`]s of the control socket, one command each. The channel
//! outlives agents and guests, so a conversation begins with `guest-sync-delimited`, and whatever is
//! not understood, late or too long ends it: the next request begins a new one.
//!
//! *Invariants*: the guest is hostile. No reply makes this crate hold more than [`OUTPUT_MAX`]
//! bytes, wait beyond a request's limit, or panic; what it says of itself is cut to what a message
//! of the control socket can carry.
//!
//! What this crate may not know: virtio, threads, sockets.
//!
//! Follows the QEMU Guest Agent Protocol Reference, 7.2.

mod agent;
mod commands;
mod line;
#[cfg(test)]
mod tests;

use std::time::Instant;

pub use agent::Agent;
pub use vmm_rpc::AgentRequest;

/// Longest reply but for a program's output.
pub const REPLY_MAX: usize = 1 << 20;
/// Longest reply with a program's output: the agent keeps 16 MiB of each of two streams, and sends
/// them in base64.
pub const OUTPUT_MAX: usize = 48 << 20;

/// The way to an agent.
pub trait Channel {
    /// Forgets what has come so far.
    fn forget(&mut self);

    /// Sends all bytes.
    ///
    /// # Errors
    /// When nobody takes them in time.
    fn send(&mut self, bytes: &[u8], until: Instant) -> Result<(), ChannelError>;

    /// Waits for bytes, and says how many came; not 0.
    ///
    /// # Errors
    /// When none come in time.
    fn receive(&mut self, into: &mut [u8], until: Instant) -> Result<usize, ChannelError>;
}

/// Why a channel gives nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// Nobody is at the other end.
    #[error("no guest agent is running in the guest: install qemu-guest-agent there")]
    NobodyThere,
    /// It takes too long.
    #[error("the guest agent does not answer in time")]
    TooLate,
}

/// Why a request fails.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Nothing comes.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The agent says no.
    #[error("the guest agent refuses: {0}")]
    Refused(String),
    /// It is not what an agent says.
    #[error("the guest agent's reply makes no sense: {0}")]
    Nonsense(String),
    /// A reply has no end.
    #[error("the guest agent's reply is longer than {0} bytes")]
    TooLong(usize),
}
