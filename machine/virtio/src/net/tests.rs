//! Frames from a driver's side, to a network that keeps them.

use std::collections::VecDeque;

use bus::Device;
use net::{NetworkInfo, OnReady};

use super::*;
use crate::spec::features;
use crate::testing::*;

const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const OTHER: Mac = Mac([2, 0, 0, 0, 0, 2]);
const GROUP: Mac = Mac([0x33, 0x33, 0, 0, 0, 1]);

#[derive(Default)]
struct Fake {
    pairs: u16,
    sent: Mutex<Vec<(usize, Vec<u8>)>>,
    full: AtomicBool,
    coming: Mutex<VecDeque<Vec<u8>>>,
    configured: Mutex<Option<(Offloads, u16)>>,
    on_ready: OnceLock<OnReady>,
}

impl Network for Fake {
    fn info(&self) -> NetworkInfo {
        let all = Offloads::all();
        NetworkInfo { pairs: self.pairs, from_guest: all, to_guest: all - Offloads::UFO }
    }
    fn attach(&self, on_ready: OnReady) {
        assert!(self.on_ready.set(on_ready).is_ok());
    }
    fn configure(&self, to_guest: Offloads, pairs: u16) {
        *lock(&self.configured) = Some((to_guest, pairs));
    }
    fn send(&self, pair: usize, frame: &[u8]) -> Sent {
        if self.full.load(Ordering::Relaxed) {
            return Sent::Later;
        }
        lock(&self.sent).push((pair, frame.to_vec()));
        Sent::Taken
    }
    fn receive(&self, _pair: usize, frame: &mut [u8]) -> Option<usize> {
        let next = lock(&self.coming).pop_front()?;
        frame[..next.len()].copy_from_slice(&next);
        Some(next.len())
    }
}

impl Fake {
    fn come(&self, frame: Vec<u8>) {
        lock(&self.coming).push_back(frame);
        self.on_ready.get().unwrap()(Ready::Receive(0));
    }
}

struct Bench {
    m: Machine,
    net: Arc<Net>,
    fake: Arc<Fake>,
}

fn bench_with(pairs: u16, mac_changes: bool) -> Bench {
    let fake = Arc::new(Fake { pairs, ..Fake::default() });
    let net = Net::new(fake.clone(), NetConfig { mac: MAC, mac_changes });
    Bench { m: Machine::new(net.clone()), net, fake }
}

fn bench() -> Bench {
    bench_with(1, false)
}

/// A frame to `to` with so many bytes behind the header.
fn frame(to: Mac, size: usize) -> Vec<u8> {
    let mut frame = vec![0; HEADER_SIZE];
    frame.extend(to.0);
    frame.extend((0..size - 6).map(|i| i as u8));
    frame
}

impl Bench {
    /// Sends a control command and returns its answer.
    fn control(&self, q: &mut Queue, command: &[u8]) -> u8 {
        self.m.fill(BUFFERS, command);
        let chain = [readable(BUFFERS, command.len() as u32), writable(BUFFERS + 0x1000, 1)];
        self.m.fill(BUFFERS + 0x1000, &[0xee]);
        q.add(&self.m, &chain);
        q.ring(&self.m);
        assert_eq!(q.used(&self.m).len(), 1);
        self.m.bytes(BUFFERS + 0x1000, 1)[0]
    }

    /// Whether a frame to this address arrives.
    fn receives(&self, q: &mut Queue, to: Mac) -> bool {
        q.add(&self.m, &[writable(BUFFERS + 0x2000, 2048)]);
        q.ring(&self.m);
        self.fake.come(frame(to, 60));
        let arrived = !q.used(&self.m).is_empty();
        if !arrived {
            // The buffer is used up, for the next to be the next's.
            self.fake.come(frame(MAC, 60));
            assert_eq!(q.used(&self.m).len(), 1);
        }
        arrived
    }
}

#[test]
fn what_the_guest_sends_reaches_the_network_as_it_is() {
    let b = bench();
    let mut q = b.m.start(!0).remove(1);
    let sent = frame(OTHER, 1500);
    b.m.fill(BUFFERS, &sent);
    q.add(&b.m, &[readable(BUFFERS, 12), readable(BUFFERS + 12, 1500)]);
    q.ring(&b.m);
    assert_eq!(q.used(&b.m), [(0, 0)]);
    assert_eq!(*lock(&b.fake.sent), [(0, sent)]);
    assert_eq!(b.net.counters().sent, (1, 1500));
}

#[test]
fn frames_no_network_carries_are_lost() {
    let b = bench();
    let mut q = b.m.start(!0).remove(1);
    for size in [0, 12, 25, FRAME_MAX as u32 + 1, 1 << 20] {
        q.add(&b.m, &[readable(BUFFERS, size)]);
        q.ring(&b.m);
        assert_eq!(q.used(&b.m).len(), 1, "{size}");
    }
    assert_eq!((lock(&b.fake.sent).len(), b.net.counters().lost), (0, 5));
    q.add(&b.m, &[readable(RAM_SIZE - 10, 100)]);
    q.ring(&b.m);
    assert!(b.m.needs_reset());
}

#[test]
fn a_network_that_is_full_keeps_the_queue_waiting() {
    let b = bench();
    let mut q = b.m.start(!0).remove(1);
    b.fake.full.store(true, Ordering::Relaxed);
    q.add(&b.m, &[readable(BUFFERS, 100)]);
    q.ring(&b.m);
    assert_eq!(q.used(&b.m), []);
    b.fake.full.store(false, Ordering::Relaxed);
    b.fake.on_ready.get().unwrap()(Ready::Send(0));
    assert_eq!(q.used(&b.m), [(0, 0)]);
}

#[test]
fn a_large_frame_is_cut_over_merged_buffers_that_appear_at_once() {
    let b = bench();
    let mut q = b.m.start(!0).remove(0);
    for i in 0..2 {
        q.add(&b.m, &[writable(BUFFERS + 0x1000 * i, 1000)]);
        q.ring(&b.m);
    }
    let coming = frame(MAC, 2600);
    b.fake.come(coming.clone());
    assert_eq!(q.used(&b.m), [], "two are not enough");
    q.add(&b.m, &[writable(BUFFERS + 0x2000, 1000)]);
    q.ring(&b.m);
    assert_eq!(q.used(&b.m), [(0, 1000), (1, 1000), (2, 612)]);
    let mut got: Vec<_> = (0..3).flat_map(|i| b.m.bytes(BUFFERS + 0x1000 * i, 1000)).collect();
    got.truncate(coming.len());
    assert_eq!(got[NUM_BUFFERS..HEADER_SIZE], [3, 0]);
    assert_eq!(got[HEADER_SIZE..], coming[HEADER_SIZE..]);
    b.fake.come(frame(MAC, 100));
    q.add(&b.m, &[writable(BUFFERS, 1000)]);
    q.ring(&b.m);
    assert_eq!(q.used(&b.m), [(3, 112)]);
    assert_eq!(b.m.bytes(BUFFERS + 10, 2), [1, 0]);
}

#[test]
fn merged_buffers_interrupt_a_driver_that_asked_for_one_of_them() {
    let b = bench();
    let mut q = b.m.start(!0).remove(0);
    q.want_interrupt_at(&b.m, 1);
    for i in 0..4 {
        q.add(&b.m, &[writable(BUFFERS + 0x1000 * i, 700)]);
    }
    b.m.messages.take();
    b.fake.come(frame(MAC, 2600));
    assert_eq!(q.used(&b.m).len(), 4);
    assert_eq!(b.m.messages.take().len(), 1);
    q.want_interrupt_at(&b.m, 7);
    q.add(&b.m, &[writable(BUFFERS, 700)]);
    b.fake.come(frame(MAC, 100));
    assert_eq!((q.used(&b.m).len(), b.m.messages.take().len()), (1, 0));
}

#[test]
fn without_merged_buffers_a_frame_that_does_not_fit_is_lost() {
    let b = bench();
    let mut q = b.m.start(!F_MRG_RXBUF).remove(0);
    q.add(&b.m, &[writable(BUFFERS, 500)]);
    q.ring(&b.m);
    b.fake.come(frame(MAC, 1000));
    assert_eq!((q.used(&b.m), b.net.counters().lost), (vec![], 1));
    b.fake.come(frame(MAC, 100));
    assert_eq!(q.used(&b.m), [(0, 112)]);
}

#[test]
fn a_card_receives_what_its_modes_and_tables_say() {
    let b = bench();
    let mut queues = b.m.start(!0);
    let mut control = queues.remove(2);
    let q = &mut queues[0];
    assert!(b.receives(q, MAC) && b.receives(q, Mac::BROADCAST));
    assert!(!b.receives(q, OTHER) && !b.receives(q, GROUP));
    let mut tables = vec![ctrl::MAC, ctrl::MAC_TABLE_SET, 1, 0, 0, 0];
    tables.extend(OTHER.0);
    tables.extend([1, 0, 0, 0]);
    tables.extend(GROUP.0);
    assert_eq!(b.control(&mut control, &tables), ctrl::OK);
    assert!(b.receives(q, OTHER) && b.receives(q, GROUP));
    assert_eq!(b.control(&mut control, &tables[..12]), ctrl::ERR, "cut short");
    assert_eq!(b.control(&mut control, &[ctrl::RX, ctrl::RX_NOMULTI, 1]), ctrl::OK);
    assert!(!b.receives(q, GROUP));
    assert_eq!(b.control(&mut control, &[ctrl::RX, ctrl::RX_PROMISC, 1]), ctrl::OK);
    assert!(b.receives(q, GROUP) && b.receives(q, Mac([8; 6])));
    assert_eq!(b.control(&mut control, &[ctrl::RX, 6, 1]), ctrl::ERR);
    assert_eq!(b.control(&mut control, &[9, 9, 9]), ctrl::ERR);
    assert_eq!(b.net.counters().refused, 3);
}

#[test]
fn a_table_without_end_takes_no_memory_and_receives_all() {
    let b = bench();
    let mut queues = b.m.start(!0);
    let mut control = queues.remove(2);
    let count = 20_000u32;
    b.m.fill(BUFFERS, &[ctrl::MAC, ctrl::MAC_TABLE_SET]);
    b.m.fill(BUFFERS + 2, &count.to_le_bytes());
    let size = 2 + 4 + 6 * count + 4;
    b.m.fill(BUFFERS + u64::from(size) - 4, &[0; 4]);
    let answer = BUFFERS + 0x4_0000;
    control.add(&b.m, &[readable(BUFFERS, size), writable(answer, 1)]);
    control.ring(&b.m);
    assert_eq!(b.m.bytes(answer, 1), [ctrl::OK]);
    assert!(b.receives(&mut queues[0], OTHER));
    assert!(lock(&b.net.filter).unicast.addresses.is_empty());
}

#[test]
fn the_address_changes_only_where_it_may() {
    let command = [&[ctrl::MAC, ctrl::MAC_ADDR_SET][..], &OTHER.0].concat();
    let b = bench();
    let mut control = b.m.start(!0).remove(2);
    assert_eq!(b.control(&mut control, &command), ctrl::ERR);
    let b = bench_with(1, true);
    let mut control = b.m.start(!0).remove(2);
    assert_eq!(b.control(&mut control, &command), ctrl::OK);
    assert_eq!(b.m.read(b.m.config, 6), 0x0200_0000_0002);
    b.m.set_common(0x14, 1, 0);
    assert_eq!(b.m.read(b.m.config, 6), 0x0100_0000_0002, "a reset takes it back");
}

#[test]
fn queues_are_as_many_as_agreed_on() {
    let b = bench_with(3, false);
    let mut queues = b.m.start(!0);
    assert_eq!((queues.len(), b.m.read(b.m.config + 8, 2)), (7, 3));
    let agreed = Offloads::all() - Offloads::UFO;
    assert_eq!(*lock(&b.fake.configured), Some((agreed, 1)));
    let mut control = queues.remove(6);
    let set = |pairs: u8| [ctrl::MQ, ctrl::MQ_VQ_PAIRS_SET, pairs, 0];
    assert_eq!(b.control(&mut control, &set(3)), ctrl::OK);
    assert_eq!(*lock(&b.fake.configured), Some((agreed, 3)));
    assert_eq!(b.control(&mut control, &set(0)), ctrl::ERR);
    assert_eq!(b.control(&mut control, &set(4)), ctrl::ERR);
    queues[5].add(&b.m, &[readable(BUFFERS, 100)]);
    queues[5].ring(&b.m);
    assert_eq!(lock(&b.fake.sent)[0].0, 2);
    // Without multi-queue the third queue is the control queue.
    let mut queues = b.m.start(!(F_MQ | F_GUEST_TSO6));
    assert_eq!(lock(&b.fake.configured).unwrap().0, agreed - Offloads::TSO6);
    assert_eq!(b.control(&mut queues[2], &[ctrl::RX, ctrl::RX_PROMISC, 1]), ctrl::OK);
    queues[3].add(&b.m, &[readable(BUFFERS, 100)]);
    queues[3].ring(&b.m);
    assert!(b.m.needs_reset());
}

#[test]
fn a_pulled_cable_is_told_and_carries_nothing() {
    let b = bench();
    let mut queues = b.m.start(!0);
    assert_eq!(b.m.read(b.m.config + 6, 2), 1);
    b.net.set_link(false);
    assert_eq!((b.m.messages.take(), b.m.read(b.m.config + 6, 2)), (vec![0x40], 0));
    queues[1].add(&b.m, &[readable(BUFFERS, 100)]);
    queues[1].ring(&b.m);
    queues[0].add(&b.m, &[writable(BUFFERS, 1000)]);
    queues[0].ring(&b.m);
    b.fake.come(frame(MAC, 60));
    assert_eq!((queues[0].used(&b.m), lock(&b.fake.sent).len()), (vec![], 0));
    b.net.set_link(true);
    b.fake.come(frame(MAC, 60));
    assert_eq!(queues[0].used(&b.m).len(), 1);
}

#[test]
fn a_flood_for_others_gives_way_to_other_queues() {
    let fake = Arc::new(Fake { pairs: 1, ..Fake::default() });
    lock(&fake.coming).extend((0..10 * STRANGERS_MAX).map(|_| frame(OTHER, 60)));
    lock(&fake.coming).push_back(frame(MAC, 60));
    let net = Net::new(fake.clone(), NetConfig { mac: MAC, mac_changes: false });
    let m = Machine::new(net.clone());
    let mut q = m.start(features::VERSION_1).remove(0);
    q.add(&m, &[writable(BUFFERS, 1000)]);
    q.ring(&m);
    assert_eq!(q.used(&m), [(0, 72)]);
    assert_eq!(net.counters().filtered, 10 * STRANGERS_MAX as u64);
}

#[test]
fn modes_tables_and_queues_survive_a_restore() {
    let b = bench_with(2, true);
    let mut queues = b.m.start(!0);
    let mut control = queues.remove(4);
    b.control(&mut control, &[ctrl::RX, ctrl::RX_ALLMULTI, 1]);
    b.control(&mut control, &[ctrl::MQ, ctrl::MQ_VQ_PAIRS_SET, 2, 0]);
    let mut tables = vec![ctrl::MAC, ctrl::MAC_TABLE_SET, 1, 0, 0, 0];
    tables.extend(OTHER.0);
    tables.extend([0; 4]);
    b.control(&mut control, &tables);
    b.net.set_link(false);
    let saved = b.m.device.save();
    let new = bench_with(2, true);
    new.m.device.restore(&saved).unwrap();
    assert_eq!(new.m.device.save(), saved);
    assert_eq!(lock(&new.fake.configured).map(|(_, pairs)| pairs), Some(2));
    assert!(lock(&new.net.filter).passes(OTHER));
    assert!(bench_with(1, true).m.device.restore(&saved).is_err(), "fewer queues");
}
