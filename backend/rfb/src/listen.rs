//! Where viewers come in.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::RfbError;

/// A place to listen at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A UNIX socket, for the same user.
    Unix(PathBuf),
    /// A TCP port.
    Tcp(SocketAddr),
    /// A TCP port, for browsers.
    WebSocket(SocketAddr),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix={}", path.display()),
            Self::Tcp(address) => write!(f, "{address}"),
            Self::WebSocket(address) => write!(f, "ws={address}"),
        }
    }
}

impl Place {
    /// Only this host reaches it.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp(address) | Self::WebSocket(address) => is_loopback(address.ip()),
        }
    }
}

pub(crate) fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// A connection.
pub(crate) enum Connection {
    Unix(UnixStream),
    Tcp(TcpStream),
    WebSocket(TcpStream),
}

/// A listening socket. Dropping it takes a UNIX socket's path away.
pub(crate) enum Listener {
    Unix { socket: UnixListener, path: PathBuf, identity: (u64, u64) },
    Tcp { socket: TcpListener, is_web: bool },
}

impl Listener {
    pub fn bind(place: &Place) -> Result<Self, RfbError> {
        let failed = |source| RfbError::Listen { place: place.to_string(), source };
        let listener = match place {
            Place::Unix(path) => bind_unix(path).map_err(|error| match error.kind() {
                io::ErrorKind::AddrInUse => RfbError::InUse(path.display().to_string()),
                _ => failed(error),
            })?,
            Place::Tcp(address) | Place::WebSocket(address) => {
                let socket = TcpListener::bind(address).map_err(failed)?;
                socket.set_nonblocking(true).map_err(failed)?;
                Self::Tcp { socket, is_web: matches!(place, Place::WebSocket(_)) }
            }
        };
        Ok(listener)
    }

    /// Where it listens, with the port the host has chosen for port 0.
    pub fn place(&self) -> Option<Place> {
        Some(match self {
            Self::Unix { path, .. } => Place::Unix(path.clone()),
            Self::Tcp { socket, is_web: true } => Place::WebSocket(socket.local_addr().ok()?),
            Self::Tcp { socket, is_web: false } => Place::Tcp(socket.local_addr().ok()?),
        })
    }

    /// The next connection, if one waits.
    pub fn accept(&self) -> io::Result<Connection> {
        Ok(match self {
            Self::Unix { socket, .. } => Connection::Unix(socket.accept()?.0),
            Self::Tcp { socket, is_web } => {
                let (stream, _) = socket.accept()?;
                stream.set_nodelay(true)?;
                if *is_web { Connection::WebSocket(stream) } else { Connection::Tcp(stream) }
            }
        })
    }
}

fn bind_unix(path: &Path) -> io::Result<Listener> {
    let socket = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_abandoned(path) => {
            fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        other => other?,
    };
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    socket.set_nonblocking(true)?;
    let metadata = fs::symlink_metadata(path)?;
    let identity = (metadata.dev(), metadata.ino());
    Ok(Listener::Unix { socket, path: path.to_owned(), identity })
}

/// A socket left by a process that has died.
fn is_abandoned(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    is_socket && UnixStream::connect(path).is_err_and(refused)
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix { socket, .. } => socket.as_fd(),
            Self::Tcp { socket, .. } => socket.as_fd(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix { path, identity, .. } = self {
            let ours = fs::symlink_metadata(&*path).is_ok_and(|m| (m.dev(), m.ino()) == *identity);
            if ours {
                // When it cannot be removed now, the next one finds it abandoned.
                let _ = fs::remove_file(path);
            }
        }
    }
}
