//! A driver that finds ports, opens them and talks.

use std::sync::Mutex;

use bus::Device;

use super::*;
use crate::runner::lock;
use crate::testing::*;

/// Takes so much and no more.
#[derive(Default)]
struct Peer {
    took: Mutex<Vec<u8>>,
    limit: Mutex<Option<usize>>,
    said: Mutex<Vec<&'static str>>,
}

impl PortPeer for Peer {
    fn take(&self, bytes: &[u8]) -> usize {
        let mut took = lock(&self.took);
        let room = lock(&self.limit).map_or(usize::MAX, |limit| limit - took.len());
        let size = bytes.len().min(room);
        took.extend(&bytes[..size]);
        size
    }
    fn room(&self) {
        lock(&self.said).push("room");
    }
    fn opened(&self, open: bool) {
        lock(&self.said).push(if open { "opened" } else { "closed" });
    }
}

struct Bench {
    m: Machine,
    ports: Arc<Ports>,
    peer: Arc<Peer>,
    queues: Vec<Queue>,
}

const RECEIVE: usize = 4;
const TRANSMIT: usize = 5;

fn bench() -> Bench {
    let peer = Arc::new(Peer::default());
    let config = |name: &str| PortConfig { name: name.into(), peer: peer.clone() };
    let ports = Ports::new(vec![config("org.test.0"), config("org.test.1")]);
    let m = Machine::new(ports.clone());
    let queues = m.start(!0);
    lock(&peer.said).clear();
    Bench { m, ports, peer, queues }
}

impl Bench {
    fn say(&mut self, id: u32, event: u16, value: u16) {
        let head = [&id.to_le_bytes()[..], &event.to_le_bytes(), &value.to_le_bytes()].concat();
        self.m.fill(BUFFERS, &head);
        self.queues[CONTROL_TRANSMIT].add(&self.m, &[readable(BUFFERS, 8)]);
        self.queues[CONTROL_TRANSMIT].ring(&self.m);
    }

    /// The next control message, if one is due.
    fn hear(&mut self) -> Option<(u32, u16, u16, Vec<u8>)> {
        let at = BUFFERS + 0x1000;
        self.queues[CONTROL_RECEIVE].add(&self.m, &[writable(at, 64)]);
        self.queues[CONTROL_RECEIVE].ring(&self.m);
        let (_, size) = self.queues[CONTROL_RECEIVE].used(&self.m).pop()?;
        let bytes = self.m.bytes(at, size as usize);
        let id = u32::from_le_bytes(bytes[..4].try_into().unwrap());
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Some((id, half(4), half(6), bytes[8..].to_vec()))
    }

    fn open(&mut self) {
        self.say(1, PORT_OPEN, 1);
    }
}

#[test]
fn a_driver_finds_the_ports_by_name() {
    let mut b = bench();
    assert_eq!(b.m.read(b.m.config + 4, 4), 3, "two ports and port 0, which is not there");
    b.say(u32::MAX, DEVICE_READY, 1);
    assert_eq!(b.hear(), Some((1, PORT_ADD, 1, vec![])));
    assert_eq!(b.hear(), Some((2, PORT_ADD, 1, vec![])));
    b.say(2, PORT_READY, 1);
    assert_eq!(b.hear(), Some((2, PORT_OPEN, 1, vec![])));
    assert_eq!(b.hear(), Some((2, PORT_NAME, 1, b"org.test.1".to_vec())));
    assert_eq!(b.hear(), None);
}

#[test]
fn messages_that_wait_for_a_buffer_come_once() {
    let mut b = bench();
    for _ in 0..100 {
        b.say(0, DEVICE_READY, 1);
    }
    assert_eq!([b.hear(), b.hear(), b.hear()].iter().flatten().count(), 2);
}

#[test]
fn the_host_sends_when_the_guest_has_opened_the_port() {
    let mut b = bench();
    assert_eq!(b.ports.input(0, b"early"), 0);
    b.open();
    assert!(b.ports.is_open(0) && !b.ports.is_open(1));
    assert_eq!(*lock(&b.peer.said), ["opened"]);
    assert_eq!(b.ports.input(0, b"in time"), 7);
    b.queues[RECEIVE].add(&b.m, &[writable(BUFFERS, 100)]);
    b.queues[RECEIVE].ring(&b.m);
    assert_eq!(b.queues[RECEIVE].used(&b.m), [(0, 7)]);
    assert_eq!(b.m.bytes(BUFFERS, 7), b"in time");
}

#[test]
fn a_full_port_refuses_and_says_when_there_is_room() {
    let mut b = bench();
    b.open();
    assert_eq!(b.ports.input(0, &[1; 100_000]), 64 << 10);
    b.queues[RECEIVE].add(&b.m, &[writable(BUFFERS, 5000)]);
    b.queues[RECEIVE].ring(&b.m);
    assert_eq!(b.queues[RECEIVE].used(&b.m), [(0, 5000)]);
    assert_eq!(*lock(&b.peer.said), ["opened", "room"]);
    b.ports.input(0, &[1; 100_000]);
    b.say(1, PORT_OPEN, 0);
    assert_eq!(*lock(&b.peer.said), ["opened", "room", "room", "closed"]);
}

#[test]
fn what_the_peer_has_no_room_for_stays_with_the_guest() {
    let mut b = bench();
    *lock(&b.peer.limit) = Some(5000);
    b.m.fill(BUFFERS, &[7; 9000]);
    b.queues[TRANSMIT].add(&b.m, &[readable(BUFFERS, 9000)]);
    b.queues[TRANSMIT].ring(&b.m);
    assert_eq!(b.queues[TRANSMIT].used(&b.m), []);
    // A machine that is restored now goes on in the middle of the request.
    let saved = b.m.device.save();
    b.m.device.restore(&saved).unwrap();
    assert_eq!(b.m.device.save(), saved);
    *lock(&b.peer.limit) = None;
    b.ports.resume(0);
    assert_eq!(b.queues[TRANSMIT].used(&b.m), [(0, 0)]);
    assert_eq!(*lock(&b.peer.took), [7; 9000]);
}

#[test]
fn impossible_messages_change_nothing_and_wild_buffers_break_the_device() {
    let mut b = bench();
    for (id, event) in [(0, PORT_OPEN), (3, PORT_READY), (u32::MAX, PORT_OPEN), (1, 99)] {
        b.say(id, event, 1);
    }
    assert_eq!(b.hear(), None);
    assert!(lock(&b.peer.said).is_empty() && !b.m.needs_reset());
    b.queues[TRANSMIT].add(&b.m, &[readable(RAM_SIZE - 2, 4)]);
    b.queues[TRANSMIT].ring(&b.m);
    assert!(b.m.needs_reset());
}

#[test]
fn a_state_of_other_ports_is_refused() {
    let b = bench();
    let one = Ports::new(vec![PortConfig { name: "org.test.0".into(), peer: b.peer.clone() }]);
    assert!(b.ports.restore(&one.save()).is_err());
    let other = |name: &str| PortConfig { name: name.into(), peer: b.peer.clone() };
    let others = Ports::new(vec![other("org.test.0"), other("org.test.9")]);
    assert!(b.ports.restore(&others.save()).is_err());
}
