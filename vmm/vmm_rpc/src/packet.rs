//! One message, one packet.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
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

/// Files that go with one message: more than any disk has.
const FILES_MAX: usize = 160;

/// Sends one message, and files with it.
pub(crate) fn send_message(
    socket: impl AsFd,
    message: &impl Serialize,
    files: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> Result<(), RpcError> {
    let bytes = serde_json::to_vec(message).map_err(|e| RpcError::Message(e.to_string()))?;
    if bytes.len() > MESSAGE_SIZE_MAX {
        return Err(RpcError::Message(format!("{} bytes are too many to send", bytes.len())));
    }
    if files.len() > FILES_MAX {
        return Err(RpcError::Message(format!("{} files are too many to send", files.len())));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let sent = rustix::io::retry_on_intr(|| {
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(files));
        }
        let flags = flags | SendFlags::NOSIGNAL;
        sendmsg(&socket, &[IoSlice::new(&bytes)], &mut ancillary, flags)
    });
    match sent {
        Ok(_) => Ok(()),
        Err(Errno::PIPE | Errno::CONNRESET) => Err(RpcError::Closed),
        Err(error) => Err(RpcError::Socket(error.into())),
    }
}

/// Receives one message, and the files that come with it. With `DONTWAIT`, a socket without one fails with `WouldBlock`.
pub(crate) fn receive_message<T: DeserializeOwned>(
    socket: impl AsFd,
    flags: RecvFlags,
) -> Result<(T, Vec<OwnedFd>), RpcError> {
    let mut buffer = vec![0; MESSAGE_SIZE_MAX];
    let flags = flags | RecvFlags::TRUNC | RecvFlags::CMSG_CLOEXEC;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(&socket, &mut [IoSliceMut::new(&mut buffer)], &mut ancillary, flags)
    });
    let mut files = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(came) = message {
            files.extend(came);
        }
    }
    match received.map(|received| received.bytes) {
        Ok(0) | Err(Errno::CONNRESET) => Err(RpcError::Closed),
        Ok(length) => {
            let bytes = buffer.get(..length).ok_or_else(|| {
                RpcError::Message(format!("{length} bytes are more than {MESSAGE_SIZE_MAX}"))
            })?;
            let message = serde_json::from_slice(bytes);
            Ok((message.map_err(|e| RpcError::Message(e.to_string()))?, files))
        }
        Err(error) => Err(RpcError::Socket(error.into())),
    }
}
