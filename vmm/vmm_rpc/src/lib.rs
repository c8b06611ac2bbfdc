//! What a VM's process can be asked: one closed enum, over a local socket.
//!
//! The socket is `AF_UNIX`, `SOCK_SEQPACKET`: one packet is one message, so nothing has to be
//! framed and a message of impossible length is seen before it is read. A message is a JSON value
//! of at most [`MESSAGE_SIZE_MAX`] bytes. The VM's process speaks first, with a [`Hello`] that
//! says which [`PROTOCOL`] it speaks; then each [`Request`] gets one [`Reply`], but for a
//! program's output, which comes in several.
//!
//! *Invariants*: a message that is too long, not JSON or not in the enum is answered with a
//! refusal and changes nothing. Neither side ever waits for the other while it holds anything the
//! VM needs: the server's sockets never block.
//!
//! What this crate may not know: engines, boards, HTTP. Both the VM's process and the programs
//! that talk to it use it.

mod agent;
mod balloon;
mod client;
mod message;
mod packet;
mod server;

pub use agent::{
    AgentInfo, AgentReply, AgentRequest, Data, Ended, FILE_PIECE_MAX, Interface, Stream,
};
pub use balloon::{BalloonRequest, BalloonStatus};
pub use client::Client;
pub use message::{
    Answer, CageStatus, DeviceKind, EngineName, ExitCount, Files, Hello, KeyPress, Moved,
    PluggedDevice, Refusal, Reply, Request, Room, RunState, Status,
};
pub use packet::RpcError;
pub use server::{Listener, Peer, Received};

/// Version of the protocol. It goes up when an old client would misunderstand a new server.
pub const PROTOCOL: u32 = 2;

/// Longest message in bytes: a client cannot make the VM's process hold more than this.
pub const MESSAGE_SIZE_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests;
