//! The asking side.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect,
    socket_with,
};

use crate::packet::{receive_message, send_message};
use crate::{Hello, PROTOCOL, Reply, Request, RpcError};

/// A conversation with a VM's process.
pub struct Client {
    socket: OwnedFd,
    hello: Hello,
}

impl Client {
    /// Connects, and makes sure that both speak the same protocol.
    ///
    /// # Errors
    /// When nobody listens at `path`, or speaks otherwise.
    pub fn connect(path: &Path) -> Result<Self, RpcError> {
        Self::connect_within(path, None)
    }

    /// As [`Client::connect`], and no wait for the other side, now or later, is longer than `limit`.
    ///
    /// # Errors
    /// As there, and when the limit is passed.
    pub fn connect_within(path: &Path, limit: Option<Duration>) -> Result<Self, RpcError> {
        let no_vm = |error: rustix::io::Errno| RpcError::NoVm {
            path: path.display().to_string(),
            source: error.into(),
        };
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(no_vm)?;
        for side in [Timeout::Recv, Timeout::Send] {
            set_socket_timeout(&socket, side, limit).map_err(no_vm)?;
        }
        let address = SocketAddrUnix::new(path).map_err(no_vm)?;
        connect(&socket, &address).map_err(no_vm)?;
        let (hello, _): (Hello, _) = receive_message(&socket, RecvFlags::empty())?;
        if hello.protocol != PROTOCOL {
            return Err(RpcError::Protocol { theirs: hello.protocol, ours: PROTOCOL });
        }
        Ok(Self { socket, hello })
    }

    /// Who answers.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// When the conversation fails. A refusal is no error but a [`Reply`].
    pub fn ask(&mut self, request: &Request) -> Result<Reply, RpcError> {
        self.ask_for_file(request).map(|(reply, _)| reply)
    }

    /// Waits for the reply after one that others follow.
    ///
    /// # Errors
    /// When the conversation fails.
    pub fn next_reply(&mut self) -> Result<Reply, RpcError> {
        receive_message(&self.socket, RecvFlags::empty()).map(|(reply, _)| reply)
    }

    /// As [`Client::ask`], for the file that comes with the answer.
    ///
    /// # Errors
    /// When the conversation fails.
    pub fn ask_for_file(
        &mut self,
        request: &Request,
    ) -> Result<(Reply, Option<OwnedFd>), RpcError> {
        let files: Vec<_> = request.files().iter().map(AsFd::as_fd).collect();
        send_message(&self.socket, request, &files, SendFlags::empty())?;
        let (reply, files) = receive_message(&self.socket, RecvFlags::empty())?;
        Ok((reply, files.into_iter().next()))
    }
}
