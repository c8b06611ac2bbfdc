//! TCP: each of the guest's connections ends in the stack here, and goes on as one of the host's.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, ipproto, socket_with, sockopt};
use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};

use super::dns;
use super::spec::{DNS_PORT, GATEWAY, GATEWAY6, is_dns, outside};

/// Connections of a guest. With their buffers that is 128 MiB at most, of which what is used
/// takes memory.
const FLOWS_MAX: usize = 256;
/// Bytes under way in each direction.
pub(super) const BUFFER_BYTES: usize = 256 << 10;
/// Connections taken from one forward before others have their turn.
const ACCEPT_BATCH: usize = 16;
/// Bytes moved for one connection before others have their turn.
const TURN_BYTES: usize = 1 << 20;
/// Ports of the gateway for connections through forwards.
const FIRST_PORT: u16 = 49152;

/// What the host's socket waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Wanted {
    pub(super) read: bool,
    pub(super) write: bool,
}

struct Flow {
    handle: SocketHandle,
    host: TcpStream,
    /// Guest's end and the one it asked for; none for a connection through a forward.
    key: Option<(SocketAddr, SocketAddr)>,
    /// The host's connection is not there yet.
    connecting: bool,
    /// The host's socket may have something to read, or room to write.
    readable: bool,
    writable: bool,
    /// The host will send no more, or was told that the guest will not.
    host_ended: bool,
    guest_ended: bool,
    /// The host's connection has failed.
    failed: bool,
}

/// All of a guest's TCP.
pub(super) struct Tcp {
    flows: Vec<Flow>,
    forwards: Vec<(TcpListener, SocketAddr)>,
    next_port: u16,
    /// Connections refused because there were too many.
    pub(super) refused: u64,
}

impl Tcp {
    pub(super) fn new(forwards: Vec<(TcpListener, SocketAddr)>) -> Self {
        Self { flows: Vec::new(), forwards, next_port: FIRST_PORT, refused: 0 }
    }

    /// The guest wants a connection: the stack answers when the host's is there. What cannot be
    /// is left to the stack, which has no such listener and says so.
    pub(super) fn open(&mut self, sockets: &mut SocketSet<'_>, guest: SocketAddr, to: SocketAddr) {
        let key = Some((guest, to));
        if self.flows.iter().any(|flow| flow.key == key) {
            return;
        }
        if self.flows.len() >= FLOWS_MAX {
            self.refused += 1;
            return;
        }
        let target = match is_dns(to.ip()) && to.port() == DNS_PORT {
            true => dns::resolver(),
            false => outside(to.ip()).map(|ip| SocketAddr::new(ip, to.port())),
        };
        let Some(host) = target.and_then(begin) else { return };
        let mut socket = new_socket();
        socket.pause_synack(true);
        if socket.listen((to.ip(), to.port())).is_ok() {
            self.add(sockets.add(socket), host, key);
        }
    }

    fn add(
        &mut self,
        handle: SocketHandle,
        host: TcpStream,
        key: Option<(SocketAddr, SocketAddr)>,
    ) {
        // Small writes are the guest's choice, not to be held back.
        let _ = host.set_nodelay(true);
        self.flows.push(Flow {
            handle,
            host,
            key,
            connecting: key.is_some(),
            readable: key.is_none(),
            writable: key.is_none(),
            host_ended: false,
            guest_ended: false,
            failed: false,
        });
    }

    /// Takes connections from outside through forwards.
    pub(super) fn accept(&mut self, interface: &mut Interface, sockets: &mut SocketSet<'_>) {
        for index in 0..self.forwards.len() {
            for _ in 0..ACCEPT_BATCH {
                let (listener, guest) = &self.forwards[index];
                let (guest, full) = (*guest, self.flows.len() >= FLOWS_MAX);
                let Ok((host, _)) = listener.accept() else { break };
                if full || host.set_nonblocking(true).is_err() {
                    self.refused += 1;
                    continue;
                }
                let gateway: IpAddr = match guest {
                    SocketAddr::V4(_) => GATEWAY.into(),
                    SocketAddr::V6(_) => GATEWAY6.into(),
                };
                let port = self.next_port;
                self.next_port = port.checked_add(1).unwrap_or(FIRST_PORT);
                let mut socket = new_socket();
                let remote = (guest.ip(), guest.port());
                // A guest that never answers does not keep the caller for ever.
                socket.set_timeout(Some(Duration::from_secs(60).into()));
                if socket.connect(interface.context(), remote, (gateway, port)).is_ok() {
                    self.add(sockets.add(socket), host, None);
                }
            }
        }
    }

    /// Sockets to wait for, and what for.
    pub(super) fn sockets<'a>(
        &'a self,
        sockets: &'a SocketSet<'_>,
    ) -> impl Iterator<Item = (usize, BorrowedFd<'a>, Wanted)> {
        self.flows.iter().enumerate().filter_map(|(index, flow)| {
            let socket = sockets.get::<Socket<'_>>(flow.handle);
            let read = !flow.connecting && !flow.readable && !flow.host_ended && socket.can_send();
            let write = flow.connecting || (!flow.writable && socket.recv_queue() > 0);
            let wanted = Wanted { read, write };
            let waits = !flow.failed && wanted != Wanted::default();
            waits.then(|| (index, flow.host.as_fd(), wanted))
        })
    }

    /// Those that wait for connections.
    pub(super) fn listeners(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.forwards.iter().map(|(listener, _)| listener.as_fd())
    }

    /// What was waited for is there.
    pub(super) fn ready(&mut self, index: usize, is: Wanted) {
        if let Some(flow) = self.flows.get_mut(index) {
            flow.readable |= is.read;
            flow.writable |= is.write;
        }
    }

    /// Moves bytes in both directions. True when something is left to be moved at once.
    pub(super) fn splice(&mut self, sockets: &mut SocketSet<'_>) -> bool {
        let mut more = false;
        for flow in &mut self.flows {
            more |= flow.splice(sockets.get_mut::<Socket<'_>>(flow.handle));
        }
        more
    }

    /// Forgets connections that are over, after the stack has said so.
    pub(super) fn reap(&mut self, sockets: &mut SocketSet<'_>) {
        self.flows.retain(|flow| {
            let socket = sockets.get::<Socket<'_>>(flow.handle);
            let over = match socket.state() {
                State::Closed => flow.failed || socket.recv_queue() == 0,
                State::TimeWait => flow.guest_ended,
                // The SYN that this was made for was not one.
                State::Listen => true,
                _ => false,
            };
            if over {
                if !(flow.host_ended && flow.guest_ended) {
                    // Cut short by one end: the other shall not think that all has arrived.
                    let _ = sockopt::set_socket_linger(&flow.host, Some(Duration::ZERO));
                }
                sockets.remove(flow.handle);
            }
            !over
        });
    }

    /// Forgets the guest's connections: it has begun anew.
    pub(super) fn restart(&mut self) {
        self.flows.clear();
    }
}

impl Flow {
    fn splice(&mut self, socket: &mut Socket<'_>) -> bool {
        if self.failed {
            return false;
        }
        if self.connecting {
            if self.writable {
                self.connecting = false;
                if !matches!(self.host.take_error(), Ok(None)) {
                    self.fail(socket);
                    return false;
                }
                socket.pause_synack(false);
            }
            return false;
        }
        if socket.state() == State::SynSent {
            return false;
        }
        self.guest_to_host(socket) | self.host_to_guest(socket)
    }

    fn guest_to_host(&mut self, socket: &mut Socket<'_>) -> bool {
        let mut moved = 0;
        while self.writable && socket.can_recv() && moved < TURN_BYTES {
            let host = &mut self.host;
            let result = socket.recv(|bytes| match host.write(bytes) {
                Ok(size) => (size, Ok(size)),
                Err(error) => (0, Err(error)),
            });
            match result {
                Ok(Ok(size)) => moved += size,
                Ok(Err(error)) if is_wait(error.kind()) => self.writable = false,
                _ => {
                    self.fail(socket);
                    return false;
                }
            }
        }
        let ended = matches!(
            socket.state(),
            State::CloseWait | State::LastAck | State::Closing | State::TimeWait
        );
        if ended && socket.recv_queue() == 0 && !self.guest_ended {
            self.guest_ended = true;
            // The host may have gone first.
            let _ = self.host.shutdown(Shutdown::Write);
        }
        self.writable && socket.can_recv()
    }

    fn host_to_guest(&mut self, socket: &mut Socket<'_>) -> bool {
        let mut moved = 0;
        while self.readable && !self.host_ended && socket.can_send() && moved < TURN_BYTES {
            let host = &mut self.host;
            let result = socket.send(|room| match host.read(room) {
                Ok(size) => (size, Ok(size)),
                Err(error) => (0, Err(error)),
            });
            match result {
                Ok(Ok(0)) => {
                    self.host_ended = true;
                    socket.close();
                }
                Ok(Ok(size)) => moved += size,
                Ok(Err(error)) if is_wait(error.kind()) => self.readable = false,
                _ => {
                    self.fail(socket);
                    return false;
                }
            }
        }
        self.readable && !self.host_ended && socket.can_send()
    }

    fn fail(&mut self, socket: &mut Socket<'_>) {
        self.failed = true;
        socket.abort();
    }
}

fn is_wait(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

fn new_socket() -> Socket<'static> {
    let buffer = || SocketBuffer::new(vec![0; BUFFER_BYTES]);
    let mut socket = Socket::new(buffer(), buffer());
    // Nothing is gained by waiting for more on a link that is memory.
    socket.set_nagle_enabled(false);
    socket.set_ack_delay(None);
    socket
}

/// Begins a connection of the host's.
fn begin(to: SocketAddr) -> Option<TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP)).ok()?;
    match connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => Some(TcpStream::from(socket)),
        Err(_) => None,
    }
}
