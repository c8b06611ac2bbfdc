//! UNIX sockets that never block.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with,
    bind, connect, listen, recv, send, socket_with,
};

const BACKLOG: i32 = 64;

/// Why there is no socket for the guest's host side.
#[derive(Debug, thiserror::Error)]
pub enum VsockError {
    /// The path is taken.
    #[error("{} is in use: another VM listens there, or it is not a socket", .0.display())]
    InUse(PathBuf),
    /// The socket cannot be made.
    #[error("cannot make the socket {}: check its folder, and that the path is short", path.display())]
    Bind {
        /// The path.
        path: PathBuf,
        /// What the host says.
        source: io::Error,
    },
}

fn stream() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// Where programs of the host connect. Dropping it takes its path away.
pub(crate) struct Listener {
    pub(crate) socket: OwnedFd,
    path: PathBuf,
    /// Device and inode of what was bound, so that only that is removed.
    identity: (u64, u64),
}

impl Listener {
    /// Listens at `path`, for the same user only. A socket left by a process that has died is
    /// replaced.
    pub(crate) fn bind(path: &Path) -> Result<Self, VsockError> {
        let failed = |source: io::Error| VsockError::Bind { path: path.to_owned(), source };
        let address = SocketAddrUnix::new(path).map_err(|e| failed(e.into()))?;
        let socket = stream().map_err(|e| failed(e.into()))?;
        match bind(&socket, &address) {
            Err(Errno::ADDRINUSE) => {
                let is_socket = fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
                let probe = stream().map_err(|e| failed(e.into()))?;
                if !is_socket || connect(&probe, &address) != Err(Errno::CONNREFUSED) {
                    return Err(VsockError::InUse(path.to_owned()));
                }
                fs::remove_file(path).map_err(failed)?;
                bind(&socket, &address).map_err(|e| failed(e.into()))?;
            }
            other => other.map_err(|e| failed(e.into()))?,
        }
        // Nobody can connect before `listen`, so the mode is in time.
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
        let metadata = fs::symlink_metadata(path).map_err(failed)?;
        listen(&socket, BACKLOG).map_err(|e| failed(e.into()))?;
        Ok(Self { socket, path: path.to_owned(), identity: (metadata.dev(), metadata.ino()) })
    }

    /// The next program that connects.
    pub(crate) fn accept(&self) -> rustix::io::Result<OwnedFd> {
        accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
    }

    /// Connects to who listens for the guest's connections to this port.
    pub(crate) fn connect(&self, port: u32) -> rustix::io::Result<OwnedFd> {
        let mut path = self.path.clone().into_os_string();
        path.push(format!("_{port}"));
        let socket = stream()?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(socket)
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

/// Bytes that are there; 0 at their end, `None` while there are none. A socket that fails has ended.
pub(crate) fn receive(socket: &OwnedFd, into: &mut [u8]) -> Option<usize> {
    match rustix::io::retry_on_intr(|| recv(socket, &mut *into, RecvFlags::DONTWAIT)) {
        Ok((_, size)) => Some(size),
        Err(Errno::AGAIN) => None,
        Err(_) => Some(0),
    }
}

/// Sends what goes without waiting, and says how much; `None` when nobody will ever take more.
pub(crate) fn transmit(socket: &OwnedFd, bytes: &[u8]) -> Option<usize> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    match rustix::io::retry_on_intr(|| send(socket, bytes, flags)) {
        Ok(size) => Some(size),
        Err(Errno::AGAIN) => Some(0),
        Err(_) => None,
    }
}
