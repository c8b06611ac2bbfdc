//! One message, one packet.

use std::io;
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::MESSAGE_SIZE_MAX;

/// Why a conversation fails.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// Nobody listens there.
    #[error("there is no VM to talk to at {path}: is it running, with this --control?")]
    NoVm {
        /// The path.
        path: String,
        /// What the host says.
        source: io::Error,
    },
    /// The path for a new socket is taken.
    #[error("{path} is in use: another VM listens there, or it is not a socket")]
    InUse {
        /// The path.
        path: String,
    },
    /// The socket cannot be made.
    #[error("cannot make the control socket {path}")]
    Bind {
        /// The path.
        path: String,
        /// What the host says.
        source: io::Error,
    },
    /// The other side has gone.
    #[error("the other side closed the control socket")]
    Closed,
    /// The other side speaks otherwise.
    #[error("the VM speaks version {theirs} of the control protocol, this program version {ours}")]
    Protocol {
        /// The VM's.
        theirs: u32,
        /// This program's.
        ours: u32,
    },
    /// A message is not what it should be.
    #[error("bad message on the control socket: {0}")]
    Message(String),
    /// The host refuses.
    #[error("the control socket fails")]
    Socket(#[source] io::Error),
}

/// Sends one message.
pub(crate) fn send_message(
    socket: impl AsFd,
    message: &impl Serialize,
    flags: SendFlags,
) -> Result<(), RpcError> {
    let bytes = serde_json::to_vec(message).map_err(|e| RpcError::Message(e.to_string()))?;
    if bytes.len() > MESSAGE_SIZE_MAX {
        return Err(RpcError::Message(format!("{} bytes are too many to send", bytes.len())));
    }
    match rustix::io::retry_on_intr(|| send(&socket, &bytes, flags | SendFlags::NOSIGNAL)) {
        Ok(_) => Ok(()),
        Err(Errno::PIPE | Errno::CONNRESET) => Err(RpcError::Closed),
        Err(error) => Err(RpcError::Socket(error.into())),
    }
}

/// Receives one message. With `DONTWAIT`, a socket without one fails with `WouldBlock`.
pub(crate) fn receive_message<T: DeserializeOwned>(
    socket: impl AsFd,
    flags: RecvFlags,
) -> Result<T, RpcError> {
    let mut buffer = vec![0; MESSAGE_SIZE_MAX];
    let flags = flags | RecvFlags::TRUNC;
    let received = rustix::io::retry_on_intr(|| recv(&socket, &mut buffer[..], flags));
    match received {
        Ok((_, 0)) | Err(Errno::CONNRESET) => Err(RpcError::Closed),
        Ok((_, length)) => {
            let bytes = buffer.get(..length).ok_or_else(|| {
                RpcError::Message(format!("{length} bytes are more than {MESSAGE_SIZE_MAX}"))
            })?;
            serde_json::from_slice(bytes).map_err(|e| RpcError::Message(e.to_string()))
        }
        Err(error) => Err(RpcError::Socket(error.into())),
    }
}
