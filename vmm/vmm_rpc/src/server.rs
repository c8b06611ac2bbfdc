//! The answering side: nothing here blocks but what says so.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with,
    bind, connect, listen, socket_with,
};

use crate::packet::{receive_message, send_message};
use crate::{Answer, Hello, PROTOCOL, Request, RpcError};

/// Clients that may wait to be accepted.
const BACKLOG: i32 = 8;

/// The socket clients connect to. Dropping it takes its path away.
pub struct Listener {
    socket: OwnedFd,
    path: PathBuf,
    /// Device and inode of what was bound, so that only that is removed.
    identity: (u64, u64),
}

impl Listener {
    /// Listens at `path`, for the same user only. A socket left by a process that has died is
    /// replaced.
    ///
    /// # Errors
    /// When something else is there, or the host refuses.
    pub fn bind(path: &Path) -> Result<Self, RpcError> {
        let failed =
            |source: io::Error| RpcError::Bind { path: path.display().to_string(), source };
        let address = SocketAddrUnix::new(path).map_err(|e| failed(e.into()))?;
        let socket = seqpacket().map_err(|e| failed(e.into()))?;
        match bind(&socket, &address) {
            Err(Errno::ADDRINUSE) => {
                if !is_abandoned(path, &address) {
                    return Err(RpcError::InUse { path: path.display().to_string() });
                }
                fs::remove_file(path).map_err(failed)?;
                bind(&socket, &address).map_err(|e| failed(e.into()))?;
            }
            other => other.map_err(|e| failed(e.into()))?,
        }
        // Nobody can connect before `listen`, so the mode is in time.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let metadata = fs::symlink_metadata(path).map_err(failed)?;
        listen(&socket, BACKLOG).map_err(|e| failed(e.into()))?;
        let identity = (metadata.dev(), metadata.ino());
        Ok(Self { socket, path: path.to_owned(), identity })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the next client in and greets it; `None` when none waits or it has gone again.
    ///
    /// # Errors
    /// When the host refuses, for want of descriptors, say.
    pub fn accept(&self, program: &str) -> Result<Option<Peer>, RpcError> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        match accept_with(&self.socket, flags) {
            Ok(socket) => {
                let hello = Hello { program: program.to_owned(), protocol: PROTOCOL };
                let peer = Peer { socket };
                Ok(peer.send(&hello, None).ok().map(|()| peer))
            }
            Err(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR) => Ok(None),
            Err(error) => Err(RpcError::Socket(error.into())),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity);
        if ours {
            // When it cannot be removed now, the next `bind` finds it abandoned.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn seqpacket() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
}

/// `path` is a socket nobody listens on any more.
fn is_abandoned(path: &Path, address: &SocketAddrUnix) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
    is_socket && seqpacket().is_ok_and(|probe| connect(&probe, address) == Err(Errno::CONNREFUSED))
}

/// What [`Peer::receive`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// A request.
    Request(Request),
    /// Not a request: refuse it with this message.
    Bad(String),
    /// Nothing yet.
    Nothing,
    /// The client has gone.
    Closed,
}

/// One client.
#[derive(Debug)]
pub struct Peer {
    socket: OwnedFd,
}

impl Peer {
    /// The next request, if there is one.
    pub fn receive(&self) -> Received {
        match receive_message(&self.socket, RecvFlags::DONTWAIT) {
            Ok((mut request, files)) => {
                Request::attach(&mut request, files);
                Received::Request(request)
            }
            Err(RpcError::Message(message)) => Received::Bad(message),
            Err(RpcError::Socket(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                Received::Nothing
            }
            Err(_) => Received::Closed,
        }
    }

    /// Answers. A client that does not take its answers loses the conversation, not the VM time.
    ///
    /// # Errors
    /// When the answer cannot be delivered now: drop the peer.
    pub fn reply(&self, answer: &Answer) -> Result<(), RpcError> {
        self.send(&answer.reply, answer.file.as_ref().map(AsFd::as_fd))
    }

    fn send(
        &self,
        message: &impl serde::Serialize,
        file: Option<BorrowedFd<'_>>,
    ) -> Result<(), RpcError> {
        send_message(&self.socket, message, file.as_slice(), SendFlags::DONTWAIT)
    }

    /// Answers, and waits for a client that is slow to take its answers. Not for a thread the VM
    /// needs.
    ///
    /// # Errors
    /// When the client has not taken it by then, or has gone.
    pub fn reply_within(&self, answer: &Answer, limit: Duration) -> Result<(), RpcError> {
        let until = Instant::now() + limit;
        loop {
            match self.reply(answer) {
                Err(RpcError::Socket(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
            let left = until.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).unwrap_or_default();
            let mut room = [PollFd::new(&self.socket, PollFlags::OUT)];
            match poll(&mut room, Some(&left)) {
                Ok(0) => return Err(RpcError::Socket(io::ErrorKind::TimedOut.into())),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(RpcError::Socket(error.into())),
            }
        }
    }
}

impl AsFd for Peer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
