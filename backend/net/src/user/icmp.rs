//! Echo requests to the outside, through the kernel's unprivileged ping sockets (Linux, icmp(7),
//! `ping_group_range`). Where the host has them switched off, pings are lost as in any firewall.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, ipproto, recv, send,
    socket_with,
};
use smoltcp::wire::{IpProtocol, checksum};

use super::spec::{inside, outside};
use super::wire::ip_frame;
use crate::Mac;

/// Targets at a time. Each is a descriptor.
const FLOWS_MAX: usize = 32;
const IDLE: Duration = Duration::from_secs(30);
const HOP_LIMIT: u8 = 64;
const HEADER_SIZE: usize = 8;
const MESSAGE_MAX: usize = 65535;
const BATCH: usize = 16;

const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST6: u8 = 128;
const ECHO_REPLY6: u8 = 129;

/// Guest, target, identifier.
type Key = (IpAddr, IpAddr, [u8; 2]);

struct Flow {
    socket: OwnedFd,
    used: Instant,
}

/// A guest's pings.
#[derive(Default)]
pub(super) struct Pings {
    flows: HashMap<Key, Flow>,
    /// Requests that could not go out.
    pub(super) lost: u64,
}

/// It is a request for an echo.
pub(super) fn is_request(message: &[u8]) -> bool {
    message.len() >= HEADER_SIZE && matches!(message[0], ECHO_REQUEST | ECHO_REQUEST6)
}

impl Pings {
    /// The guest has sent a request.
    pub(super) fn send(&mut self, from: IpAddr, to: IpAddr, message: &[u8], now: Instant) {
        let key = (from, to, [message[4], message[5]]);
        if !self.flows.contains_key(&key) {
            if self.flows.len() >= FLOWS_MAX {
                let oldest = self.flows.iter().min_by_key(|(_, flow)| flow.used).map(|(k, _)| *k);
                oldest.and_then(|key| self.flows.remove(&key));
            }
            match open(to) {
                Some(socket) => self.flows.insert(key, Flow { socket, used: now }),
                None => return self.lost += 1,
            };
        }
        if let Some(flow) = self.flows.get_mut(&key) {
            flow.used = now;
            if send(&flow.socket, message, SendFlags::empty()).is_err() {
                self.lost += 1;
            }
        }
    }

    /// Sockets to wait for.
    pub(super) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.flows.values().map(|flow| flow.socket.as_fd())
    }

    /// Takes replies to the guest.
    pub(super) fn receive(&mut self, guest: Mac, deliver: &mut dyn FnMut(Vec<u8>)) {
        let mut buffer = vec![0; MESSAGE_MAX];
        for ((from, to, ident), flow) in &self.flows {
            for _ in 0..BATCH {
                let Ok((size, _)) = recv(&flow.socket, &mut buffer[..], RecvFlags::empty()) else {
                    break;
                };
                let message = &mut buffer[..size];
                if size >= HEADER_SIZE && matches!(message[0], ECHO_REPLY | ECHO_REPLY6) {
                    message[4..6].copy_from_slice(ident);
                    seal(message, inside(*to), *from);
                    let addresses = (inside(*to), *from);
                    let protocol = match from {
                        IpAddr::V4(_) => IpProtocol::Icmp,
                        IpAddr::V6(_) => IpProtocol::Icmpv6,
                    };
                    deliver(ip_frame(guest, addresses, (protocol, HOP_LIMIT), size, |bytes| {
                        bytes.copy_from_slice(message);
                    }));
                }
            }
        }
    }

    /// Forgets what has been quiet for long.
    pub(super) fn expire(&mut self, now: Instant) {
        self.flows.retain(|_, flow| now.saturating_duration_since(flow.used) < IDLE);
    }

    /// Forgets the guest's flows: it has begun anew.
    pub(super) fn restart(&mut self) {
        self.flows.clear();
    }
}

fn open(to: IpAddr) -> Option<OwnedFd> {
    let (family, protocol) = match to {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::DGRAM, flags, Some(protocol)).ok()?;
    connect(&socket, &SocketAddr::new(outside(to)?, 0)).ok()?;
    Some(socket)
}

/// Computes the checksum: the identifier has changed.
fn seal(message: &mut [u8], from: IpAddr, to: IpAddr) {
    message[2..4].fill(0);
    let data = checksum::data(message);
    let size = message.len() as u32; // at most MESSAGE_MAX
    let sum = match (from, to) {
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let pseudo = checksum::pseudo_header_v6(&from, &to, IpProtocol::Icmpv6, size);
            checksum::combine(&[pseudo, data])
        }
        _ => data,
    };
    message[2..4].copy_from_slice(&(!sum).to_be_bytes());
}
