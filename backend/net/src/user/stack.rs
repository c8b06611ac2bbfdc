//! What one guest's frames mean, and what it is answered. One thread's, without locks.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use smoltcp::iface::{Config, Interface, PollIngressSingleResult, SocketSet};
use smoltcp::wire::{
    ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, HardwareAddress, IpCidr,
    IpProtocol, Ipv4Packet, Ipv6Address, Ipv6Packet, TcpPacket, UdpPacket,
};

use super::device::Link;
use super::icmp::{self, Pings};
use super::spec::*;
use super::tcp::{Tcp, Wanted};
use super::udp::Udp;
use super::wire::udp_frame;
use super::{Listening, UserCounters, dhcp, router};
use crate::{HEADER_SIZE, Mac, Offloads};

/// Types of ICMPv6 that neighbours exchange (RFC 4861).
const NEIGHBOR_SOLICITATION: u8 = 135;
const NEIGHBOR_ADVERTISEMENT: u8 = 136;

/// How often flows that are quiet are looked for.
const EXPIRE_EVERY: Duration = Duration::from_secs(5);

/// The network of one guest.
pub(super) struct Stack {
    // Wiring.
    link: Link,
    interface: Interface,
    sockets: SocketSet<'static>,
    tcp: Tcp,
    udp: Udp,
    pings: Pings,
    // State.
    begun: Instant,
    expired: Instant,
    guest: Mac,
    offloads: Offloads,
    /// Bytes wait that need no event to go on.
    busy: bool,
    /// Frames that say nothing this network understands.
    lost: u64,
}

impl Stack {
    pub(super) fn new(guest: Mac, listening: Listening, now: Instant) -> Self {
        let mut link = Link::new(Offloads::empty());
        let interface = interface(&mut link);
        Self {
            link,
            interface,
            sockets: SocketSet::new(Vec::new()),
            tcp: Tcp::new(listening.tcp),
            udp: Udp::new(listening.udp),
            pings: Pings::default(),
            begun: now,
            expired: now,
            guest,
            offloads: Offloads::empty(),
            busy: false,
            lost: 0,
        }
    }

    /// The guest begins anew, with these offloads: nothing is left of what it had.
    pub(super) fn restart(&mut self, offloads: Offloads) {
        self.offloads = offloads;
        self.link = Link::new(offloads);
        self.interface = interface(&mut self.link);
        self.sockets = SocketSet::new(Vec::new());
        self.tcp.restart();
        self.udp.restart();
        self.pings.restart();
        self.busy = false;
    }

    pub(super) fn counters(&self) -> UserCounters {
        UserCounters {
            frames_lost: self.lost,
            connections_refused: self.tcp.refused,
            datagrams_lost: self.udp.lost,
            pings_lost: self.pings.lost,
        }
    }

    /// Frames wait for room for their answers: others had better wait outside.
    pub(super) fn is_behind(&self) -> bool {
        !self.link.inward.is_empty()
    }

    /// Waits until there is something to do, and notes what.
    pub(super) fn wait(&mut self, event: BorrowedFd<'_>, now: Instant) -> Incoming {
        let time = self.time(now);
        let delay = self.interface.poll_delay(time, &self.sockets).map(Duration::from);
        let blocked = self.link.room == 0;
        let delay = match delay {
            _ if self.busy && !blocked => Duration::ZERO,
            // Frames wait for the guest, which signals the event.
            Some(Duration::ZERO) | None if blocked || delay.is_none() => EXPIRE_EVERY,
            Some(delay) => delay.min(EXPIRE_EVERY),
            None => EXPIRE_EVERY,
        };
        let mut fds = vec![PollFd::from_borrowed_fd(event, PollFlags::IN)];
        let mut flows = Vec::new();
        for (index, fd, Wanted { read, write }) in self.tcp.sockets(&self.sockets) {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, read);
            flags.set(PollFlags::OUT, write);
            fds.push(PollFd::from_borrowed_fd(fd, flags));
            flows.push(index);
        }
        let from_flows = 1..fds.len();
        let input = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        fds.extend(self.tcp.listeners().map(input));
        let from_listeners = from_flows.end..fds.len();
        fds.extend(self.udp.sockets().map(input));
        let from_udp = from_listeners.end..fds.len();
        fds.extend(self.pings.sockets().map(input));
        let from_pings = from_udp.end..fds.len();
        let timeout = Timespec {
            tv_sec: i64::try_from(delay.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: delay.subsec_nanos().into(),
        };
        // Interrupted, or without memory: nothing is ready, and the next turn asks again.
        if poll(&mut fds, Some(&timeout)).is_err() {
            return Incoming::default();
        }
        let is = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let any = |range: std::ops::Range<usize>| fds[range].iter().any(is);
        let incoming = Incoming {
            connections: any(from_listeners),
            datagrams: any(from_udp),
            pings: any(from_pings),
        };
        let failed = PollFlags::HUP | PollFlags::ERR;
        let ready: Vec<_> = std::iter::zip(flows, &fds[from_flows])
            .map(|(index, fd)| {
                let is = |flag| fd.revents().intersects(flag | failed);
                (index, Wanted { read: is(PollFlags::IN), write: is(PollFlags::OUT) })
            })
            .collect();
        drop(fds);
        ready.into_iter().for_each(|(index, is)| self.tcp.ready(index, is));
        incoming
    }

    /// Does what there is to do. `room` is how many frames the guest's queue takes; those for it
    /// are returned.
    pub(super) fn turn(
        &mut self,
        frames: impl Iterator<Item = Vec<u8>>,
        room: usize,
        incoming: Incoming,
        now: Instant,
    ) -> Vec<Vec<u8>> {
        self.link.room = room;
        for frame in frames {
            self.take(frame, now);
        }
        if incoming.connections {
            self.tcp.accept(&mut self.interface, &mut self.sockets);
        }
        // What came goes on to the host before it is acknowledged: one answer for all of it, which
        // offers the whole window again.
        self.ingest(now);
        self.busy = self.tcp.splice(&mut self.sockets);
        self.poll(now);
        self.tcp.reap(&mut self.sockets);
        let (guest, large) = (self.guest, self.offloads.contains(Offloads::UFO));
        let link = &mut self.link;
        if incoming.datagrams {
            self.udp.receive(now, &mut |from, to, payload| {
                if let Some(frame) = udp_frame(guest, from, to, payload, (MTU, large)) {
                    link.put(frame);
                }
            });
        }
        if incoming.pings {
            self.pings.receive(guest, &mut |frame| link.put(frame));
        }
        if now.saturating_duration_since(self.expired) >= EXPIRE_EVERY {
            self.expired = now;
            self.udp.expire(now);
            self.pings.expire(now);
        }
        let frames = std::mem::take(&mut self.link.outward);
        self.link.room -= frames.len().min(self.link.room);
        frames
    }

    fn time(&self, now: Instant) -> smoltcp::time::Instant {
        let elapsed = now.saturating_duration_since(self.begun).as_micros();
        smoltcp::time::Instant::from_micros(i64::try_from(elapsed).unwrap_or(i64::MAX))
    }

    /// Gives the stack what has come for it, as far as there is room for answers.
    fn ingest(&mut self, now: Instant) {
        let time = self.time(now);
        let Self { interface, link, sockets, .. } = self;
        while interface.poll_ingress_single(time, link, sockets) != PollIngressSingleResult::None {}
    }

    fn poll(&mut self, now: Instant) {
        let time = self.time(now);
        self.interface.poll(time, &mut self.link, &mut self.sockets);
    }

    /// Looks at a frame of the guest's: what is for the stack goes there, the rest is done here.
    fn take(&mut self, frame: Vec<u8>, now: Instant) {
        let Some(known) = self.look(&frame, now) else {
            self.lost += 1;
            return;
        };
        match known {
            For::Done => {}
            For::Stack => self.link.inward.push_back(frame),
            For::Connection { guest, to } => {
                self.tcp.open(&mut self.sockets, guest, to);
                self.link.inward.push_back(frame);
                // Before another that is for the same listener.
                self.ingest(now);
            }
        }
    }

    fn look(&mut self, frame: &[u8], now: Instant) -> Option<For> {
        let ethernet = EthernetFrame::new_checked(frame.get(HEADER_SIZE..)?).ok()?;
        if ethernet.src_addr().is_unicast() {
            self.guest = Mac(ethernet.src_addr().0);
        }
        match ethernet.ethertype() {
            EthernetProtocol::Arp => {
                let repr =
                    ArpRepr::parse(&ArpPacket::new_checked(ethernet.payload()).ok()?).ok()?;
                let ArpRepr::EthernetIpv4 { source_protocol_addr, target_protocol_addr, .. } = repr
                else {
                    return None;
                };
                // The stack would answer for every address, the guest's own included.
                let asks = is_ours(target_protocol_addr.into());
                (asks && is_guests(source_protocol_addr.into())).then_some(For::Stack)
            }
            EthernetProtocol::Ipv4 => {
                let ip = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
                if ip.version() != 4 || ip.more_frags() || ip.frag_offset() != 0 {
                    return None;
                }
                let (from, to) = (ip.src_addr().into(), ip.dst_addr().into());
                match ip.next_header() {
                    IpProtocol::Udp => self.datagram(from, to, ip.payload(), now),
                    IpProtocol::Tcp => segment(from, to, ip.payload()),
                    IpProtocol::Icmp => self.ping(from, to, ip.payload(), now),
                    _ => None,
                }
            }
            EthernetProtocol::Ipv6 => {
                let ip = Ipv6Packet::new_checked(ethernet.payload()).ok()?;
                if ip.version() != 6 {
                    return None;
                }
                let (from, to) = (ip.src_addr().into(), ip.dst_addr().into());
                match ip.next_header() {
                    IpProtocol::Udp => self.datagram(from, to, ip.payload(), now),
                    IpProtocol::Tcp => segment(from, to, ip.payload()),
                    IpProtocol::Icmpv6 => self.neighbor(ip.src_addr(), to, ip.payload(), now),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn datagram(&mut self, from: IpAddr, to: IpAddr, bytes: &[u8], now: Instant) -> Option<For> {
        let packet = UdpPacket::new_checked(bytes).ok()?;
        let (from_port, to_port) = (packet.src_port(), packet.dst_port());
        let (guest, link) = (self.guest, &mut self.link);
        if (from_port, to_port) == (DHCP_CLIENT_PORT, DHCP_SERVER_PORT) && to.is_ipv4() {
            let answer = dhcp::answer(packet.payload())?;
            let server = SocketAddr::new(GATEWAY.into(), DHCP_SERVER_PORT);
            let client = SocketAddr::new(Ipv4Addr::BROADCAST.into(), DHCP_CLIENT_PORT);
            link.put(udp_frame(Mac::BROADCAST, server, client, &answer, (MTU, false))?);
            return Some(For::Done);
        }
        if !is_guests(from) {
            return None;
        }
        let (from, to) = (SocketAddr::new(from, from_port), SocketAddr::new(to, to_port));
        let large = self.offloads.contains(Offloads::UFO);
        self.udp.send(from, to, packet.payload(), now, &mut |from, to, payload| {
            if let Some(frame) = udp_frame(guest, from, to, payload, (MTU, large)) {
                link.put(frame);
            }
        });
        Some(For::Done)
    }

    fn ping(&mut self, from: IpAddr, to: IpAddr, message: &[u8], now: Instant) -> Option<For> {
        if !icmp::is_request(message) || !is_guests(from) {
            return None;
        }
        if is_ours(to) {
            return Some(For::Stack);
        }
        self.pings.send(from, to, message, now);
        Some(For::Done)
    }

    fn neighbor(
        &mut self,
        from: Ipv6Address,
        to: IpAddr,
        message: &[u8],
        now: Instant,
    ) -> Option<For> {
        if router::is_solicitation(message) {
            self.link.put(router::advertisement(self.guest));
            return Some(For::Done);
        }
        match *message.first()? {
            NEIGHBOR_SOLICITATION => {
                let target: [u8; 16] = message.get(8..24)?.try_into().ok()?;
                // As with ARP; a guest without an address yet is not asking us.
                let asks = is_ours(Ipv6Address::from(target).into());
                (asks && !from.is_unspecified()).then_some(For::Stack)
            }
            NEIGHBOR_ADVERTISEMENT => Some(For::Stack),
            _ if is_ours(to) && from.is_unicast_link_local() => {
                icmp::is_request(message).then_some(For::Stack)
            }
            _ => self.ping(from.into(), to, message, now),
        }
    }
}

/// Where events came from.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Incoming {
    connections: bool,
    datagrams: bool,
    pings: bool,
}

/// Whom a frame is for.
enum For {
    /// It has been served.
    Done,
    Stack,
    /// The stack, which must listen first.
    Connection {
        guest: SocketAddr,
        to: SocketAddr,
    },
}

fn segment(from: IpAddr, to: IpAddr, bytes: &[u8]) -> Option<For> {
    let packet = TcpPacket::new_checked(bytes).ok()?;
    if !is_guests(from) {
        return None;
    }
    let guest = SocketAddr::new(from, packet.src_port());
    let to = SocketAddr::new(to, packet.dst_port());
    let opens = packet.syn() && !packet.ack() && !packet.rst() && !packet.fin();
    Some(if opens { For::Connection { guest, to } } else { For::Stack })
}

fn interface(link: &mut Link) -> Interface {
    let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(MAC)));
    let mut seed = [0; 8];
    // Without randomness sequence numbers can be guessed, by the one guest that is here.
    let _ = rustix::rand::getrandom(&mut seed[..], rustix::rand::GetRandomFlags::empty());
    config.random_seed = u64::from_le_bytes(seed);
    let mut interface = Interface::new(config, link, smoltcp::time::Instant::ZERO);
    interface.set_any_ip(true);
    interface.update_ip_addrs(|addresses| {
        let own = [
            IpCidr::new(GATEWAY.into(), PREFIX),
            IpCidr::new(DNS.into(), PREFIX),
            IpCidr::new(GATEWAY6.into(), PREFIX6),
            IpCidr::new(DNS6.into(), PREFIX6),
            IpCidr::new(ROUTER6.into(), PREFIX6),
        ];
        let fits = own.into_iter().all(|address| addresses.push(address).is_ok());
        assert!(fits, "the stack is built for fewer addresses");
    });
    interface
}
