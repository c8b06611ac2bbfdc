//! A guest made of the same library's stack, and host sockets on the loopback.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::wire::{
    DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    HardwareAddress, IpCidr, IpProtocol, Ipv4Packet, UdpPacket,
};

use super::spec::*;
use super::wire::{ETHERNET_SIZE, ip_frame, udp_frame};
use super::*;
use crate::{FRAME_MAX, HEADER_SIZE};

pub(super) const GUEST_MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);
const LIMIT: Duration = Duration::from_secs(60);

/// The guest's card.
struct Card {
    network: Arc<UserNetwork>,
    offloads: Offloads,
    ready: Receiver<Ready>,
    /// The largest frame that came.
    largest: usize,
}

struct Frame(Vec<u8>);
struct Out<'a>(&'a UserNetwork);

impl RxToken for Frame {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0[HEADER_SIZE..])
    }
}

impl TxToken for Out<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, size: usize, f: F) -> R {
        let mut frame = vec![0; HEADER_SIZE + size];
        let result = f(&mut frame[HEADER_SIZE..]);
        // A full queue loses it: the guest's TCP sends it again.
        let _ = self.0.send(0, &frame);
        result
    }
}

impl Card {
    fn new(forwards: Vec<Forward>, offloads: Offloads) -> Self {
        let network = UserNetwork::new(&UserConfig { mac: GUEST_MAC, forwards }).unwrap();
        let (sender, ready) = channel();
        network.attach(Arc::new(move |what| sender.send(what).unwrap_or_default()));
        network.configure(offloads, 1);
        Self { network, offloads, ready, largest: 0 }
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut frame = vec![0; FRAME_MAX];
        let size = self.network.receive(0, &mut frame)?;
        self.largest = self.largest.max(size);
        frame.truncate(size);
        Some(frame)
    }

    /// Waits for the frame that `wanted` finds.
    fn expect<T>(&mut self, mut wanted: impl FnMut(&[u8]) -> Option<T>) -> T {
        let end = Instant::now() + LIMIT;
        loop {
            while let Some(frame) = self.next() {
                if let Some(found) = wanted(&frame[HEADER_SIZE..]) {
                    return found;
                }
            }
            assert!(Instant::now() < end, "no such frame");
            let _ = self.ready.recv_timeout(Duration::from_millis(50));
        }
    }

    fn silence(&mut self, time: Duration) {
        std::thread::sleep(time);
        assert_eq!(self.next(), None);
    }

    fn datagram(&self, from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) {
        let frame = udp_frame(Mac(MAC), from.into(), to.into(), payload, (MTU, false)).unwrap();
        // Others may wait to be handled still.
        let end = Instant::now() + LIMIT;
        while self.network.send(0, &frame) == Sent::Later {
            assert!(Instant::now() < end, "it is not taken");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits for a datagram to the guest: from where, to which port, what.
    fn expect_datagram(&mut self) -> (SocketAddr, u16, Vec<u8>) {
        self.expect(|frame| {
            let ethernet = EthernetFrame::new_checked(frame).unwrap();
            let ip = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
            if ethernet.ethertype() != EthernetProtocol::Ipv4 || ip.next_header() != IpProtocol::Udp
            {
                return None;
            }
            let udp = UdpPacket::new_checked(ip.payload()).unwrap();
            assert!(udp.verify_checksum(&ip.src_addr().into(), &ip.dst_addr().into()));
            let from = SocketAddr::new(ip.src_addr().into(), udp.src_port());
            Some((from, udp.dst_port(), udp.payload().to_vec()))
        })
    }
}

impl Device for Card {
    type RxToken<'a> = Frame;
    type TxToken<'a> = Out<'a>;

    fn receive(&mut self, _now: smoltcp::time::Instant) -> Option<(Frame, Out<'_>)> {
        let frame = self.next()?;
        Some((Frame(frame), Out(&self.network)))
    }

    fn transmit(&mut self, _now: smoltcp::time::Instant) -> Option<Out<'_>> {
        Some(Out(&self.network))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = ETHERNET_SIZE + MTU;
        // One that left checksums to others must not look at them.
        if self.offloads.contains(Offloads::CHECKSUM) {
            capabilities.checksum = ChecksumCapabilities::ignored();
        }
        capabilities
    }
}

/// A guest with an address.
struct Guest {
    card: Card,
    interface: Interface,
    sockets: SocketSet<'static>,
    begun: Instant,
    next_port: u16,
}

impl Guest {
    fn new(forwards: Vec<Forward>, offloads: Offloads) -> Self {
        let mut card = Card::new(forwards, offloads);
        let config = Config::new(HardwareAddress::Ethernet(EthernetAddress(GUEST_MAC.0)));
        let zero = smoltcp::time::Instant::ZERO;
        let mut interface = Interface::new(config, &mut card, zero);
        interface.update_ip_addrs(|a| {
            a.push(IpCidr::new(GUEST.into(), PREFIX)).unwrap();
            a.push("fec0::15/64".parse().unwrap()).unwrap();
            a.push("fe80::15/64".parse().unwrap()).unwrap();
        });
        interface.routes_mut().add_default_ipv4_route(GATEWAY).unwrap();
        let sockets = SocketSet::new(Vec::new());
        Self { card, interface, sockets, begun: Instant::now(), next_port: 2000 }
    }

    fn socket(&mut self) -> SocketHandle {
        let buffer = || SocketBuffer::new(vec![0; 64 << 10]);
        self.sockets.add(Socket::new(buffer(), buffer()))
    }

    fn connect(&mut self, to: SocketAddr) -> SocketHandle {
        let handle = self.socket();
        self.next_port += 1;
        let socket = self.sockets.get_mut::<Socket<'_>>(handle);
        socket.connect(self.interface.context(), (to.ip(), to.port()), self.next_port).unwrap();
        handle
    }

    /// Runs the guest until `done` has something.
    fn until<T>(
        &mut self,
        handle: SocketHandle,
        mut done: impl FnMut(&mut Socket<'_>) -> Option<T>,
    ) -> T {
        let end = Instant::now() + LIMIT;
        loop {
            let now = self.begun.elapsed().as_micros() as i64;
            let now = smoltcp::time::Instant::from_micros(now);
            self.interface.poll(now, &mut self.card, &mut self.sockets);
            if let Some(result) = done(self.sockets.get_mut(handle)) {
                self.interface.poll(now, &mut self.card, &mut self.sockets);
                return result;
            }
            assert!(Instant::now() < end, "the guest waits in vain");
            let _ = self.card.ready.recv_timeout(Duration::from_millis(2));
        }
    }

    fn send_and_close(&mut self, handle: SocketHandle, data: &[u8]) {
        let mut sent = 0;
        self.until(handle, |socket| {
            if socket.can_send() {
                sent += socket.send_slice(&data[sent..]).unwrap();
            }
            (sent == data.len()).then(|| socket.close())
        });
    }

    fn read_to_end(&mut self, handle: SocketHandle) -> Vec<u8> {
        let mut data = Vec::new();
        self.until(handle, |socket| {
            while socket.can_recv() {
                socket.recv(|bytes| (bytes.len(), data.extend_from_slice(bytes))).unwrap();
            }
            (!socket.may_recv() && socket.state() != State::SynSent).then_some(())
        });
        data
    }
}

fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i * 7 + i / 251) as u8).collect()
}

/// Reads all from one connection, then sends as much of its own.
fn exchange_server(listener: TcpListener, answer: Vec<u8>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut data = Vec::new();
        stream.read_to_end(&mut data).unwrap();
        stream.write_all(&answer).unwrap();
        data
    })
}

fn fetches(offloads: Offloads, local: &str, gateway: IpAddr) {
    let Ok(listener) = TcpListener::bind(local) else {
        eprintln!("not run: this host has no {local}");
        return;
    };
    let port = listener.local_addr().unwrap().port();
    let (up, down) = (pattern(300_000), pattern(3_000_000));
    let server = exchange_server(listener, down.clone());
    let mut guest = Guest::new(Vec::new(), offloads);
    let handle = guest.connect(SocketAddr::new(gateway, port));
    guest.send_and_close(handle, &up);
    let got = guest.read_to_end(handle);
    assert!(got == down, "{} of {} bytes", got.len(), down.len());
    assert!(server.join().unwrap() == up);
    let large = guest.card.largest > HEADER_SIZE + ETHERNET_SIZE + MTU;
    assert_eq!(large, offloads.contains(Offloads::TSO4), "{}", guest.card.largest);
    assert_eq!(guest.card.network.counters().connections_refused, 0);
}

#[test]
fn a_guest_that_does_all_work_reaches_the_hosts_loopback() {
    fetches(Offloads::empty(), "127.0.0.1:0", GATEWAY.into());
}

#[test]
fn a_guest_that_leaves_work_gets_large_frames() {
    fetches(Offloads::all(), "127.0.0.1:0", GATEWAY.into());
}

#[test]
fn a_guest_reaches_the_hosts_loopback_by_ipv6() {
    fetches(Offloads::empty(), "[::1]:0", GATEWAY6.into());
}

#[test]
fn a_port_nobody_listens_on_refuses() {
    // Bound and closed again: free.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut guest = Guest::new(Vec::new(), Offloads::empty());
    let mut refused = |to: SocketAddr| {
        let handle = guest.connect(to);
        guest.until(handle, |socket| (socket.state() == State::Closed).then_some(()));
    };
    refused(SocketAddr::new(GATEWAY.into(), port));
    refused("169.254.169.254:80".parse().unwrap());
}

#[test]
fn a_forward_leads_into_the_guest() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let forward = format!("tcp:127.0.0.1:{port}-:22").parse().unwrap();
    let mut guest = Guest::new(vec![forward], Offloads::empty());
    let handle = guest.socket();
    guest.sockets.get_mut::<Socket<'_>>(handle).listen(22).unwrap();
    let client = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(b"hello").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    });
    guest.until(handle, |socket| (socket.state() == State::CloseWait).then_some(()));
    assert_eq!(guest.read_to_end(handle), b"hello");
    guest.send_and_close(handle, b"welcome");
    guest.until(handle, |socket| (!socket.is_open()).then_some(()));
    assert_eq!(client.join().unwrap(), b"welcome");
}

#[test]
fn a_port_in_use_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap();
    let forward = Forward { protocol: Protocol::Tcp, host, guest: "10.0.2.15:22".parse().unwrap() };
    let error = UserNetwork::new(&UserConfig { mac: GUEST_MAC, forwards: vec![forward] }).err();
    assert!(error.is_some_and(|e| e.to_string().contains(&host.to_string())));
}

#[test]
fn datagrams_go_both_ways_and_through_forwards() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(LIMIT)).unwrap();
    let port = server.local_addr().unwrap().port();
    let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let forward = format!("udp:127.0.0.1:{free}-:53").parse().unwrap();
    let mut card = Card::new(vec![forward], Offloads::empty());
    card.datagram((GUEST, 7000), (GATEWAY, port), b"ask");
    let mut buffer = [0; 100];
    let (size, from) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..size], b"ask");
    server.send_to(b"answer", from).unwrap();
    let gateway = SocketAddr::new(GATEWAY.into(), port);
    assert_eq!(card.expect_datagram(), (gateway, 7000, b"answer".to_vec()));

    server.send_to(b"in", ("127.0.0.1", free)).unwrap();
    let (peer, to, payload) = card.expect_datagram();
    assert_eq!((peer.ip(), to, &payload[..]), (GATEWAY.into(), 53, &b"in"[..]));
    card.datagram((GUEST, 53), (GATEWAY, peer.port()), b"out");
    let (size, from) = server.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..size], from.port()), (&b"out"[..], free));
}

#[test]
fn dhcp_gives_the_address_people_know() {
    let mut card = Card::new(Vec::new(), Offloads::empty());
    let mut ask = |message_type, requested_ip| {
        let any = Ipv4Addr::UNSPECIFIED;
        let repr = DhcpRepr {
            message_type,
            transaction_id: 77,
            secs: 0,
            client_hardware_address: EthernetAddress(GUEST_MAC.0),
            client_ip: any,
            your_ip: any,
            server_ip: any,
            router: None,
            subnet_mask: None,
            relay_agent_ip: any,
            broadcast: false,
            requested_ip,
            client_identifier: None,
            server_identifier: None,
            parameter_request_list: None,
            dns_servers: None,
            max_size: None,
            lease_duration: None,
            renew_duration: None,
            rebind_duration: None,
            additional_options: &[],
        };
        let mut bytes = vec![0; repr.buffer_len()];
        repr.emit(&mut DhcpPacket::new_unchecked(&mut bytes)).unwrap();
        card.datagram((any, DHCP_CLIENT_PORT), (Ipv4Addr::BROADCAST, DHCP_SERVER_PORT), &bytes);
        let (from, to, answer) = card.expect_datagram();
        assert_eq!((from, to), (SocketAddr::new(GATEWAY.into(), 67), 68));
        let packet = DhcpPacket::new_checked(&answer[..]).unwrap();
        let got = DhcpRepr::parse(&packet).unwrap();
        assert_eq!(got.transaction_id, 77);
        let dns = got.dns_servers.and_then(|servers| servers.first().copied());
        (got.message_type, got.your_ip, got.router, dns)
    };
    let whole = |kind| (kind, GUEST, Some(GATEWAY), Some(DNS));
    assert_eq!(ask(DhcpMessageType::Discover, None), whole(DhcpMessageType::Offer));
    assert_eq!(ask(DhcpMessageType::Request, Some(GUEST)), whole(DhcpMessageType::Ack));
    let other = Some(Ipv4Addr::new(192, 168, 1, 5));
    assert_eq!(ask(DhcpMessageType::Request, other).0, DhcpMessageType::Nak);
}

#[test]
fn a_router_solicitation_is_answered_with_a_prefix() {
    let mut card = Card::new(Vec::new(), Offloads::empty());
    let link_local: IpAddr = "fe80::15".parse().unwrap();
    let routers: IpAddr = "ff02::2".parse().unwrap();
    let ends = (link_local, routers);
    let frame = ip_frame(Mac::BROADCAST, ends, (IpProtocol::Icmpv6, 255), 8, |bytes| {
        bytes[0] = 133;
    });
    card.network.send(0, &frame);
    let advertised = card.expect(|frame| {
        let icmp = frame.get(ETHERNET_SIZE + 40..)?;
        (icmp[0] == 134).then(|| icmp.to_vec())
    });
    let has = |bytes: &[u8]| advertised.windows(bytes.len()).any(|window| window == bytes);
    assert!(has(&NET6.octets()) && has(&DNS6.octets()));
}

/// A guest asks who has an address.
pub(super) fn arp(target: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0; HEADER_SIZE];
    frame.extend([0xff; 6]);
    frame.extend(GUEST_MAC.0);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(GUEST_MAC.0);
    frame.extend(GUEST.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

#[test]
fn the_guests_own_address_is_not_answered_for() {
    let mut card = Card::new(Vec::new(), Offloads::empty());
    card.network.send(0, &arp(GUEST));
    card.network.send(0, &arp(Ipv4Addr::new(10, 0, 2, 99)));
    card.silence(Duration::from_millis(200));
    card.network.send(0, &arp(GATEWAY));
    let reply = card.expect(|frame| Some(frame.to_vec()));
    assert_eq!((&reply[6..12], reply[21]), (&MAC[..], 2));
}

#[test]
fn a_guest_that_sends_and_does_not_receive_waits_and_loses_nothing() {
    let mut card = Card::new(Vec::new(), Offloads::empty());
    let mut asked = 0;
    let mut refusals = 0;
    while refusals < 50 {
        match card.network.send(0, &arp(GATEWAY)) {
            Sent::Taken => (asked, refusals) = (asked + 1, 0),
            Sent::Later => refusals += 1,
        }
        assert!(asked < 10 * QUEUE_MAX, "they are kept without bound");
        if refusals > 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    assert!(asked > QUEUE_MAX);
    for _ in 0..asked {
        card.expect(|frame| (frame[21] == 2).then_some(()));
    }
}

#[test]
fn frames_of_any_bytes_are_lost_and_nothing_else() {
    let mut card = Card::new(Vec::new(), Offloads::all());
    let valid = udp_frame(
        Mac(MAC),
        SocketAddr::new(GUEST.into(), 1),
        SocketAddr::new(Ipv4Addr::new(127, 0, 0, 1).into(), 9),
        b"payload",
        (MTU, false),
    )
    .unwrap();
    let mut seed = 1u64;
    for round in 0..20_000usize {
        let mut frame = valid[..valid.len() - round % 30].to_vec();
        for _ in 0..round % 8 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let at = HEADER_SIZE + (seed >> 33) as usize % (frame.len() - HEADER_SIZE);
            // Not the target: nothing here shall reach a real host.
            if !(HEADER_SIZE + 30..HEADER_SIZE + 34).contains(&at) {
                frame[at] = (seed >> 24) as u8;
            }
        }
        while card.network.send(0, &frame) == Sent::Later {
            let _ = card.ready.recv_timeout(Duration::from_millis(5));
            while card.next().is_some() {}
        }
    }
    // It still works.
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(LIMIT)).unwrap();
    card.datagram((GUEST, 7000), (GATEWAY, server.local_addr().unwrap().port()), b"alive");
    let mut buffer = [0; 10];
    assert_eq!(server.recv_from(&mut buffer).unwrap().0, 5);
    assert!(card.network.counters().frames_lost > 1000);
}
