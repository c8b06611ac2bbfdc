//! The card from a driver's side, on a network that keeps frames.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bus::{AddressSpace, Device, Line, LineSink};
use guest_memory::{Backing, FlatRange, FlatView, GuestMemory, RamOffset};
use net::{HEADER_SIZE, Mac, NEEDS_CSUM, Network, NetworkInfo, Offloads, OnReady, Sent, gso};
use pci::{ConfigPorts, DevFn, PciBus, Pin, Spaces};
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::spec::*;

const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const RAM: u64 = 4 << 20;
const BAR: u64 = 0xc000_0000;
const PORTS: u64 = 0xc000;
const TX: u64 = 0x1_0000;
const RX: u64 = 0x2_0000;
const DATA: u64 = 0x10_0000;
const BUFFERS: u64 = 0x20_0000;
/// Descriptors of each ring.
const ENTRIES: u32 = 8;

#[derive(Default)]
struct Wire {
    sent: Mutex<Vec<Vec<u8>>>,
    coming: Mutex<VecDeque<Vec<u8>>>,
    /// Frames that it still takes.
    room: AtomicUsize,
    on_ready: Mutex<Option<OnReady>>,
}

impl Network for Wire {
    fn info(&self) -> NetworkInfo {
        NetworkInfo { pairs: 1, from_guest: Offloads::all(), to_guest: Offloads::all() }
    }

    fn attach(&self, on_ready: OnReady) {
        *self.on_ready.lock().unwrap() = Some(on_ready);
    }

    fn configure(&self, to_guest: Offloads, _pairs: u16) {
        assert_eq!(to_guest, Offloads::empty());
    }

    fn send(&self, _pair: usize, frame: &[u8]) -> Sent {
        let take = |room: usize| room.checked_sub(1);
        if self.room.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_err() {
            return Sent::Later;
        }
        self.sent.lock().unwrap().push(frame.to_vec());
        Sent::Taken
    }

    fn receive(&self, _pair: usize, frame: &mut [u8]) -> Option<usize> {
        let next = self.coming.lock().unwrap().pop_front()?;
        frame[..next.len()].copy_from_slice(&next);
        Some(next.len())
    }
}

#[derive(Default)]
struct Level(Mutex<bool>);

impl LineSink for Level {
    fn set_line(&self, _input: u32, level: bool) {
        *self.0.lock().unwrap() = level;
    }
}

struct Rig {
    memory: Arc<GuestMemory>,
    spaces: Spaces,
    wire: Arc<Wire>,
    card: Arc<E1000>,
    pin: Arc<Level>,
    _bus: Arc<PciBus>,
}

fn rig() -> Rig {
    let memory = GuestMemory::new(&[("ram", RAM)]).unwrap();
    let mut view = FlatView::new();
    let range = FlatRange { gpa: 0, size: RAM, at: RamOffset(0), backing: Backing::Ram };
    view.insert(range).unwrap();
    memory.set_view(view);
    let spaces = Spaces { memory: AddressSpace::new(), io: AddressSpace::new() };
    let wire = Arc::new(Wire { room: AtomicUsize::new(usize::MAX), ..Wire::default() });
    let wiring = E1000Wiring {
        memory: memory.clone(),
        spaces: spaces.clone(),
        network: wire.clone(),
        event_loop: None,
    };
    let card = E1000::new(Mac(MAC), &wiring).unwrap();
    let pin = Arc::new(Level::default());
    let at = DevFn::new(1, 0);
    card.function().connect_intx(Pin::of(at), Line::new(pin.clone(), 0));
    let bus = PciBus::new();
    bus.add(at, card.function().clone()).unwrap();
    spaces.io.map(ConfigPorts::BASE, ConfigPorts::SIZE, ConfigPorts::new(&bus, None)).unwrap();
    let rig = Rig { memory, spaces, wire, card, pin, _bus: bus };
    rig.config(0x10, BAR as u32);
    rig.config(0x18, PORTS as u32);
    rig.config(0x04, 7);
    rig
}

/// A card with rings, whose receive buffers are all the card's but one.
fn started() -> Rig {
    let rig = rig();
    for (ring, base) in [(TX_RING, TX), (RX_RING, RX)] {
        rig.write(ring + BAL, base as u32);
        rig.write(ring + LEN, ENTRIES * 16);
    }
    for n in 0..u64::from(ENTRIES) {
        rig.fill(RX + 16 * n, &(BUFFERS + 0x1000 * n).to_le_bytes());
    }
    rig.write(TCTL, TCTL_EN);
    rig.write(RCTL, RCTL_EN | RCTL_BAM | RCTL_SECRC);
    rig.write(IMS, TXDW | RXT0 | LSC);
    rig.write(RDT, ENTRIES - 1);
    rig
}

impl Rig {
    fn config(&self, register: u32, value: u32) {
        self.spaces.io.write(0xcf8, &(0x8000_0800 | register).to_le_bytes());
        self.spaces.io.write(0xcfc, &value.to_le_bytes());
    }

    fn read(&self, register: u64) -> u32 {
        let mut data = [0; 4];
        self.spaces.memory.read(BAR + register, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&self, register: u64, value: u32) {
        self.spaces.memory.write(BAR + register, &value.to_le_bytes());
    }

    fn fill(&self, gpa: u64, bytes: &[u8]) {
        self.memory.dma().write_slice(bytes, GuestAddress(gpa)).unwrap();
    }

    fn bytes(&self, gpa: u64, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        self.memory.dma().read_slice(&mut bytes, GuestAddress(gpa)).unwrap();
        bytes
    }

    /// Writes a transmit descriptor and, at its address, nothing.
    fn descriptor(&self, index: u64, words: [u32; 4]) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.fill(TX + 16 * index, &bytes);
    }

    /// A legacy descriptor for these bytes.
    fn legacy(&self, index: u64, bytes: &[u8], command: u8) {
        let at = DATA + 0x1_0000 * index;
        self.fill(at, bytes);
        let size = bytes.len() as u32;
        self.descriptor(index, [at as u32, 0, size | u32::from(command) << 24, 0]);
    }

    /// A data descriptor.
    fn data(&self, index: u64, bytes: &[u8], command: u8, options: u8) {
        let at = DATA + 0x1_0000 * index;
        self.fill(at, bytes);
        let kind = bytes.len() as u32 | DTYP_DATA << 20 | u32::from(command | CMD_DEXT) << 24;
        self.descriptor(index, [at as u32, 0, kind, u32::from(options) << 8]);
    }

    fn done(&self, index: u64) -> bool {
        self.bytes(TX + 16 * index + 12, 1)[0] & STA_DD != 0
    }

    fn sent(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut *self.wire.sent.lock().unwrap())
    }

    fn comes(&self, frame: &[u8]) {
        let with_header = [&[0; HEADER_SIZE][..], frame].concat();
        self.wire.coming.lock().unwrap().push_back(with_header);
        self.ready();
    }

    fn ready(&self) {
        let on_ready = self.wire.on_ready.lock().unwrap().clone().unwrap();
        on_ready(net::Ready::Receive(0));
    }

    /// What a receive descriptor says: length, status, errors, special.
    fn received(&self, index: u64) -> (usize, u8, u8, u16) {
        let d = self.bytes(RX + 16 * index + 8, 8);
        let word = |at: usize| u16::from_le_bytes([d[at], d[at + 1]]);
        (word(0).into(), d[4], d[5], word(6))
    }

    fn interrupted(&self) -> bool {
        *self.pin.0.lock().unwrap()
    }
}

/// A frame to the card, of a kind nobody looks into.
fn frame(size: usize) -> Vec<u8> {
    let mut frame = [&MAC[..], &[2, 0, 0, 0, 0, 1, 0x88, 0xb5]].concat();
    frame.extend((frame.len()..size).map(|n| n as u8));
    frame
}

/// Ethernet, IPv4 and TCP with so much payload, without checksums.
fn tcp_packet(payload: usize) -> Vec<u8> {
    let mut packet = [&[2, 0, 0, 0, 0, 1], &MAC[..], &[8, 0]].concat();
    let length = (40 + payload) as u16;
    packet.extend([0x45, 0]);
    packet.extend(length.to_be_bytes());
    packet.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2]);
    packet.extend([0x10, 0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0]);
    packet.extend((0..payload).map(|n| (n * 3) as u8));
    packet
}

/// The pseudo-header's sum of such a packet, with a length or without, as drivers put it there.
fn pseudo(length: u32) -> [u8; 2] {
    let sum: u32 = [0x0a00, 0x020f, 0x0a00, 0x0202, 6, length].iter().sum();
    ((sum & 0xffff) as u16 + (sum >> 16) as u16).to_be_bytes()
}

/// A context descriptor for such packets.
fn context(command: u8, mss: u32) -> [u32; 4] {
    let ip = 14 | 24 << 8 | 33 << 16;
    let tcp = 34 | 50 << 8;
    [ip, tcp, u32::from(command | CMD_DEXT) << 24, 54 << 8 | mss << 16]
}

#[test]
fn the_eeprom_has_the_address_by_either_way() {
    let rig = rig();
    rig.write(EECD, EECD_REQ);
    assert_ne!(rig.read(EECD) & EECD_GNT, 0);
    let pins = |bits: u32| rig.write(EECD, EECD_REQ | bits);
    let by_pins = |word: u32| {
        pins(EECD_CS);
        for bit in (0..9).rev() {
            let data = if (0b110 << 6 | word) >> bit & 1 != 0 { EECD_DI } else { 0 };
            pins(EECD_CS | data);
            pins(EECD_CS | data | EECD_SK);
            pins(EECD_CS | data);
        }
        let mut value = 0;
        for _ in 0..16 {
            pins(EECD_CS | EECD_SK);
            value = value << 1 | u16::from(rig.read(EECD) & EECD_DO != 0);
            pins(EECD_CS);
        }
        pins(0);
        value
    };
    let by_register = |word: u32| {
        rig.write(EERD, word << 8 | EERD_START);
        assert_ne!(rig.read(EERD) & EERD_DONE, 0);
        (rig.read(EERD) >> 16) as u16
    };
    let words: Vec<_> = (0..64).map(by_pins).collect();
    assert_eq!(words, (0..64).map(by_register).collect::<Vec<_>>());
    assert_eq!(words[..3], [0x5452, 0x1200, 0x5634]);
    assert_eq!(words.iter().fold(0, |sum: u16, word| sum.wrapping_add(*word)), 0xbaba);
}

#[test]
fn the_transceiver_says_who_it_is_and_that_the_link_is_up() {
    let rig = rig();
    let phy = |device: u32, register: u32| {
        rig.write(MDIC, MDIC_READ | device << 21 | register << 16);
        rig.read(MDIC)
    };
    assert_eq!((phy(1, 2) & 0xffff, phy(1, 3) & 0xfff0), (0x0141, 0x0c20));
    assert_eq!(phy(1, 1) & 0x24, 0x24);
    assert_ne!(phy(2, 2) & MDIC_E, 0);
    assert_ne!(rig.read(STATUS) & STATUS_LU, 0);
}

#[test]
fn a_packet_of_several_descriptors_is_one_frame_and_is_told() {
    let rig = started();
    let packet = frame(300);
    rig.legacy(0, &packet[..100], 0);
    rig.legacy(1, &packet[100..], CMD_EOP | CMD_RS);
    rig.write(TDT, 1);
    assert!(rig.sent().is_empty() && !rig.interrupted());
    rig.write(TDT, 2);
    assert_eq!(rig.sent(), [[&[0; HEADER_SIZE][..], &packet].concat()]);
    assert!(!rig.done(0) && rig.done(1) && rig.interrupted());
    assert_eq!((rig.read(TX_RING + HEAD), rig.read(GPTC), rig.read(GPTC)), (2, 1, 0));
    assert_eq!(rig.read(ICR) & TXDW, TXDW);
    assert!(!rig.interrupted());
}

#[test]
fn checksums_that_the_driver_leaves_out_are_right() {
    let rig = started();
    let mut packet = tcp_packet(101);
    packet[50..52].copy_from_slice(&pseudo(121));
    rig.descriptor(0, context(TUCMD_IP | TUCMD_TCP, 0));
    rig.data(1, &packet, CMD_EOP, POPTS_IXSM | POPTS_TXSM);
    rig.write(TDT, 2);
    let sent = rig.sent().remove(0);
    assert_eq!(sent[0], 0, "nothing is left to the network");
    assert_eq!(offload::verify(&sent[HEADER_SIZE..]), [Some(true), Some(true)]);
}

#[test]
fn a_packet_to_be_cut_goes_to_the_network_as_a_whole_one() {
    let rig = started();
    let mut packet = tcp_packet(5000);
    packet[16..18].fill(0);
    packet[50..52].copy_from_slice(&pseudo(0));
    rig.descriptor(0, context(TUCMD_IP | TUCMD_TCP | CMD_TSE, 1460));
    rig.data(1, &packet[..54], CMD_TSE, POPTS_IXSM | POPTS_TXSM);
    rig.data(2, &packet[54..], CMD_TSE | CMD_EOP, 0);
    rig.write(TDT, 3);
    let sent = rig.sent().remove(0);
    let (header, sent) = sent.split_at(HEADER_SIZE);
    let word = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    assert_eq!((header[0], header[1]), (NEEDS_CSUM, gso::TCPV4));
    assert_eq!([word(2), word(4), word(6), word(8)], [54, 1460, 34, 16]);
    assert_eq!(sent[16..18], 5040u16.to_be_bytes());
    assert_eq!(sent[50..52], pseudo(5020));
    assert_eq!(offload::verify(sent)[0], Some(true));
}

#[test]
fn a_frame_waits_for_the_network_and_is_not_sent_twice() {
    let rig = started();
    rig.wire.room.store(1, Ordering::SeqCst);
    for n in 0..2 {
        rig.legacy(n, &frame(64 + n as usize), CMD_EOP | CMD_RS);
    }
    rig.write(TDT, 2);
    assert_eq!((rig.sent().len(), rig.done(0), rig.done(1)), (1, true, false));
    let saved = rig.card.save();
    rig.card.restore(&saved).unwrap();
    rig.wire.room.store(9, Ordering::SeqCst);
    rig.ready();
    let sent = rig.sent();
    assert_eq!((sent.len(), sent[0].len(), rig.done(1)), (1, HEADER_SIZE + 65, true));
}

#[test]
fn frames_come_into_as_many_buffers_as_they_need() {
    let rig = started();
    rig.write(RCTL, RCTL_EN | RCTL_SECRC | 3 << 16); // 256 bytes
    let got = frame(600);
    rig.comes(&got);
    assert_eq!(rig.received(0), (256, STA_DD, 0, 0));
    assert_eq!(rig.received(2), (88, STA_DD | STA_EOP | STA_IXSM, 0, 0));
    let parts = [(0, 256), (1, 256), (2, 88)];
    let parts = parts.map(|(n, size)| rig.bytes(BUFFERS + 0x1000 * n, size));
    assert_eq!(parts.concat(), got);
    assert!(rig.interrupted());
    assert_eq!(rig.read(RX_RING + HEAD), 3);
}

#[test]
fn short_frames_are_padded_and_have_a_check_sequence() {
    let rig = started();
    rig.write(RCTL, RCTL_EN);
    rig.comes(&frame(42));
    assert_eq!(rig.received(0).0, 64);
}

#[test]
fn a_frame_waits_for_descriptors() {
    let rig = started();
    for n in 0..9 {
        rig.comes(&frame(100 + n));
    }
    assert_eq!(rig.read(RX_RING + HEAD), 7);
    assert_eq!(rig.wire.coming.lock().unwrap().len(), 2);
    rig.write(RDT, 3);
    assert_eq!(rig.read(RX_RING + HEAD), 1);
    assert_eq!((rig.received(7).0, rig.received(0).0), (107, 108));
}

#[test]
fn what_the_card_found_of_checksums_is_told() {
    let rig = started();
    let mut packet = tcp_packet(64);
    packet[..6].copy_from_slice(&MAC);
    packet[50..52].copy_from_slice(&pseudo(84));
    offload::insert(&mut packet, (14, 24, 33));
    offload::insert(&mut packet, (34, 50, 0));
    rig.comes(&packet);
    packet[60] ^= 1;
    rig.comes(&packet);
    let both = STA_DD | STA_EOP | STA_IPCS | STA_TCPCS;
    assert_eq!((rig.received(0).1, rig.received(0).2), (both, 0));
    assert_eq!((rig.received(1).1, rig.received(1).2), (both, ERR_TCPE));
}

#[test]
fn only_frames_for_the_card_pass() {
    let rig = started();
    let comes = |to: [u8; 6]| {
        let before = rig.read(RX_RING + HEAD);
        let mut frame = frame(64);
        frame[..6].copy_from_slice(&to);
        rig.comes(&frame);
        rig.write(RDT, (rig.read(RX_RING + HEAD) + 7) % 8);
        rig.read(RX_RING + HEAD) != before
    };
    let (other, group) = ([2, 0, 0, 0, 0, 7], [1, 0, 0x5e, 0, 0, 0xfb]);
    assert!(comes(MAC) && comes([0xff; 6]));
    assert!(!comes(other) && !comes(group));
    // Bits 47 to 36 of the address: 0xfb0.
    rig.write(MTA + 4 * (0xfb0 >> 5), 1 << (0xfb0 & 31));
    assert!(comes(group) && !comes([1, 0, 0x5e, 0, 0, 0xfa]));
    rig.write(RCTL, RCTL_EN | RCTL_UPE);
    assert!(comes(other) && !comes([0xff; 6]));
}

#[test]
fn vlan_tags_are_put_in_and_taken_out() {
    let rig = started();
    rig.write(CTRL, rig.read(CTRL) | CTRL_VME);
    let plain = frame(80);
    let tagged = [&plain[..12], &[0x81, 0, 0x20, 5], &plain[12..]].concat();
    rig.legacy(0, &plain, CMD_EOP | CMD_VLE);
    rig.fill(TX + 14, &0x2005u16.to_le_bytes());
    rig.write(VET, 0x8100);
    rig.write(TDT, 1);
    assert_eq!(rig.sent()[0][HEADER_SIZE..], tagged);
    rig.write(RCTL, rig.read(RCTL) | RCTL_VFE);
    rig.comes(&tagged);
    assert_eq!(rig.received(0).1, 0, "the filter has no such VLAN");
    rig.write(VFTA, 1 << 5);
    rig.comes(&tagged);
    assert_eq!(rig.received(0), (80, STA_DD | STA_EOP | STA_IXSM | STA_VP, 0, 0x2005));
    assert_eq!(rig.bytes(BUFFERS, 80), plain);
}

#[test]
fn a_card_that_is_moved_goes_on_in_the_middle_of_a_packet() {
    let (from, to) = (started(), rig());
    let packet = frame(200);
    from.legacy(0, &packet[..100], 0);
    from.write(TDT, 1);
    from.card.pause();
    to.card.restore(&from.card.save()).unwrap();
    assert_eq!(to.card.save(), from.card.save());
    to.legacy(1, &packet[100..], CMD_EOP);
    to.write(TDT, 2);
    assert_eq!(to.sent()[0][HEADER_SIZE..], packet);
}

#[test]
fn a_paused_card_leaves_memory_alone() {
    let rig = started();
    rig.card.pause();
    rig.comes(&frame(64));
    rig.legacy(0, &frame(64), CMD_EOP | CMD_RS);
    rig.write(TDT, 1);
    assert_eq!((rig.received(0).1, rig.done(0)), (0, false));
    rig.card.resume();
    assert!(rig.received(0).1 != 0 && rig.done(0));
}

#[test]
fn registers_are_reached_through_ports_too() {
    let rig = rig();
    rig.spaces.io.write(PORTS + IOADDR, &(FCTTV as u32).to_le_bytes());
    rig.spaces.io.write(PORTS + IODATA, &7u32.to_le_bytes());
    let mut data = [0; 4];
    rig.spaces.io.read(PORTS + IODATA, &mut data);
    assert_eq!((u32::from_le_bytes(data), rig.read(FCTTV)), (7, 7));
}

#[test]
fn a_reset_forgets_all_but_the_address() {
    let rig = started();
    rig.write(CTRL, CTRL_RST);
    assert_eq!((rig.read(TX_RING + LEN), rig.read(IMS), rig.read(RCTL)), (0, 0, 0));
    assert_eq!((rig.read(RA), rig.read(RA + 4)), (0x1200_5452, RAH_AV | 0x5634));
}

#[test]
fn whatever_the_driver_says_ends() {
    let rig = started();
    let mut seed = 1u64;
    let mut random = || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 32) as u32
    };
    for _ in 0..300 {
        let bytes: Vec<u8> = (0..16).map(|_| random() as u8).collect();
        rig.fill(TX + u64::from(random() % 64) * 16, &bytes);
        rig.fill(RX + u64::from(random() % 64) * 16, &bytes);
        let ring = if random() % 2 == 0 { TX_RING } else { RX_RING };
        let registers = [RCTL, TCTL, ring + LEN, ring + HEAD, ring + TAIL, ring + TAIL, VET, MDIC];
        let register = registers[random() as usize % registers.len()];
        rig.write(register, random() >> (random() % 32) | if register < ring { 2 } else { 0 });
        rig.write(u64::from(random() & 0x1_fffc), random());
        if random() % 8 == 0 {
            rig.comes(&frame(14 + random() as usize % 9000));
        }
        let saved = rig.card.save();
        rig.card.restore(&saved).unwrap();
        assert_eq!(rig.card.save(), saved);
    }
}
