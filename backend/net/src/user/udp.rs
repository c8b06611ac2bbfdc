//! UDP: one host socket for each of the guest's, and name service.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::dns;
use super::spec::{DNS_PORT, GATEWAY, GATEWAY6, inside, is_dns, outside};

/// Host sockets for a guest's. Each is a descriptor.
const FLOWS_MAX: usize = 256;
/// Senders through forwards that are remembered.
const PEERS_MAX: usize = 256;
/// A flow without traffic is forgotten (RFC 4787 asks for two minutes).
const IDLE: Duration = Duration::from_secs(120);
/// Name servers answer sooner or not at all, and each query may come from another port.
const DNS_IDLE: Duration = Duration::from_secs(15);
/// Datagrams taken from one socket before the others have their turn.
const BATCH: usize = 32;
/// Ports of the gateway that stand for senders through forwards.
const FIRST_PORT: u16 = 40000;
const DATAGRAM_MAX: usize = 65535;

/// A datagram for the guest: from where, to where, what.
pub(super) type Deliver<'a> = dyn FnMut(SocketAddr, SocketAddr, &[u8]) + 'a;

struct Flow {
    socket: UdpSocket,
    used: Instant,
    /// The name server's address as the guest knows it, and the last query.
    dns: Option<(IpAddr, Vec<u8>)>,
}

/// A forward of datagrams.
struct Forwarded {
    socket: UdpSocket,
    guest: SocketAddr,
}

fn is_gateway(address: IpAddr) -> bool {
    address == GATEWAY || address == GATEWAY6
}

/// All of a guest's UDP.
pub(super) struct Udp {
    flows: HashMap<(SocketAddr, bool), Flow>,
    forwards: Vec<Forwarded>,
    /// The gateway's port to the forward and sender it stands for.
    peers: HashMap<u16, (usize, SocketAddr)>,
    next_port: u16,
    buffer: Box<[u8]>,
    /// Datagrams that could not go out.
    pub(super) lost: u64,
}

impl Udp {
    pub(super) fn new(forwards: Vec<(UdpSocket, SocketAddr)>) -> Self {
        let forward = |(socket, guest)| Forwarded { socket, guest };
        Self {
            flows: HashMap::new(),
            forwards: forwards.into_iter().map(forward).collect(),
            peers: HashMap::new(),
            next_port: FIRST_PORT,
            buffer: vec![0; DATAGRAM_MAX].into(),
            lost: 0,
        }
    }

    /// The guest has sent a datagram.
    pub(super) fn send(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        payload: &[u8],
        now: Instant,
        deliver: &mut Deliver<'_>,
    ) {
        let forward = self.peers.get(&to.port()).filter(|_| is_gateway(to.ip()));
        if let Some((forward, peer)) = forward
            && self.forwards[*forward].guest == from
        {
            if self.forwards[*forward].socket.send_to(payload, peer).is_err() {
                self.lost += 1;
            }
            return;
        }
        let is_dns = is_dns(to.ip()) && to.port() == DNS_PORT;
        let sent = match is_dns {
            true => self.query(from, to.ip(), payload, now),
            false => self.pass_on(from, to, payload, now),
        };
        if sent.is_err() {
            self.lost += 1;
            if let (true, Some(answer)) = (is_dns, dns::failure(payload)) {
                deliver(to, from, &answer);
            }
        }
    }

    fn pass_on(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        payload: &[u8],
        now: Instant,
    ) -> io::Result<()> {
        let ip = outside(to.ip()).ok_or(ErrorKind::HostUnreachable)?;
        let flow = self.flow((from, false), now, || {
            let any: IpAddr = match from {
                SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            let socket = UdpSocket::bind((any, 0))?;
            Ok((socket, None))
        })?;
        flow.socket.send_to(payload, (ip, to.port())).map(drop)
    }

    /// Name service goes to the host's server, which the socket is connected with: nobody else
    /// can answer, and its refusal comes back.
    fn query(
        &mut self,
        from: SocketAddr,
        server: IpAddr,
        payload: &[u8],
        now: Instant,
    ) -> io::Result<()> {
        let flow = self.flow((from, true), now, || {
            let resolver = dns::resolver().ok_or(ErrorKind::NotFound)?;
            let any: IpAddr = match resolver {
                SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            let socket = UdpSocket::bind((any, 0))?;
            socket.connect(resolver)?;
            Ok((socket, Some((server, Vec::new()))))
        })?;
        flow.dns = Some((server, payload.to_vec()));
        flow.socket.send(payload).map(drop)
    }

    fn flow(
        &mut self,
        key: (SocketAddr, bool),
        now: Instant,
        make: impl FnOnce() -> io::Result<(UdpSocket, Option<(IpAddr, Vec<u8>)>)>,
    ) -> io::Result<&mut Flow> {
        if !self.flows.contains_key(&key) {
            if self.flows.len() >= FLOWS_MAX {
                // The one that was quiet longest makes room, as in any NAT.
                let oldest = self.flows.iter().min_by_key(|(_, flow)| flow.used).map(|(k, _)| *k);
                oldest.and_then(|key| self.flows.remove(&key));
            }
            let (socket, dns) = make()?;
            socket.set_nonblocking(true)?;
            self.flows.insert(key, Flow { socket, used: now, dns });
        }
        let flow = self.flows.get_mut(&key).ok_or(ErrorKind::NotFound)?;
        flow.used = now;
        Ok(flow)
    }

    /// Sockets to wait for.
    pub(super) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let flows = self.flows.values().map(|flow| flow.socket.as_fd());
        flows.chain(self.forwards.iter().map(|forward| forward.socket.as_fd()))
    }

    /// Takes what has come from outside to the guest.
    pub(super) fn receive(&mut self, now: Instant, deliver: &mut Deliver<'_>) {
        for ((guest, _), flow) in &mut self.flows {
            for _ in 0..BATCH {
                let (from, size) = match flow.socket.recv_from(&mut self.buffer) {
                    Ok((size, from)) => (from, size),
                    Err(error) => {
                        let refused = error.kind() != ErrorKind::WouldBlock;
                        if let (true, Some((server, query))) = (refused, &flow.dns)
                            && let Some(answer) = dns::failure(query)
                        {
                            deliver(SocketAddr::new(*server, DNS_PORT), *guest, &answer);
                        }
                        break;
                    }
                };
                flow.used = now;
                let from = match &flow.dns {
                    Some((server, _)) => SocketAddr::new(*server, DNS_PORT),
                    None => SocketAddr::new(inside(from.ip()), from.port()),
                };
                deliver(from, *guest, &self.buffer[..size]);
            }
        }
        self.receive_forwards(deliver);
    }

    fn receive_forwards(&mut self, deliver: &mut Deliver<'_>) {
        let Self { forwards, peers, next_port, buffer, .. } = self;
        for (index, forward) in forwards.iter().enumerate() {
            for _ in 0..BATCH {
                let Ok((size, peer)) = forward.socket.recv_from(buffer) else { break };
                let known = peers.iter().find(|(_, known)| **known == (index, peer));
                let port = known.map(|(port, _)| *port).unwrap_or_else(|| {
                    let port = *next_port;
                    // Round a ring of ports: the oldest sender is forgotten.
                    let next = (port - FIRST_PORT + 1) % PEERS_MAX as u16;
                    *next_port = FIRST_PORT + next;
                    peers.insert(port, (index, peer));
                    port
                });
                let gateway: IpAddr = match forward.guest {
                    SocketAddr::V4(_) => GATEWAY.into(),
                    SocketAddr::V6(_) => GATEWAY6.into(),
                };
                deliver(SocketAddr::new(gateway, port), forward.guest, &buffer[..size]);
            }
        }
    }

    /// Forgets what has been quiet for long.
    pub(super) fn expire(&mut self, now: Instant) {
        self.flows.retain(|_, flow| {
            let idle = if flow.dns.is_some() { DNS_IDLE } else { IDLE };
            now.saturating_duration_since(flow.used) < idle
        });
    }

    /// Forgets the guest's flows: it has begun anew.
    pub(super) fn restart(&mut self) {
        self.flows.clear();
        self.peers.clear();
    }
}
