//! Single turns of the stack, and what the guest is answered in each.

use std::net::{IpAddr, TcpListener};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use evloop::Event;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, Ipv4Packet, TcpControl, TcpPacket,
    TcpRepr, TcpSeqNumber,
};

use super::spec::*;
use super::stack::{Incoming, Stack};
use super::tcp::BUFFER_BYTES;
use super::tests::{GUEST_MAC, arp};
use super::wire::{ETHERNET_SIZE, ip_frame};
use super::*;
use crate::HEADER_SIZE;

const GUEST_PORT: u16 = 2000;
const ROOM: usize = QUEUE_MAX;
const SEGMENT: usize = 1400;

/// A connection of the guest's, from its side.
struct Rig {
    stack: Stack,
    event: Event,
    port: u16,
    next: i32,
    acked: Option<TcpSeqNumber>,
    _listener: TcpListener,
}

impl Rig {
    /// One that is there.
    fn connected() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut stack = Stack::new(GUEST_MAC, Listening::default(), Instant::now());
        stack.restart(Offloads::all());
        let event = Event::new().unwrap();
        let mut rig = Self { stack, event, port, next: 1000, acked: None, _listener: listener };
        rig.turn(vec![arp(GATEWAY)]);
        let syn = rig.segment(TcpControl::Syn, &[]);
        let mut answers = rig.turn(vec![syn]);
        let end = Instant::now() + Duration::from_secs(20);
        while answers.is_empty() {
            assert!(Instant::now() < end, "the stack does not answer");
            let incoming = rig.stack.wait(rig.event.as_fd(), Instant::now());
            answers = rig.turn_with(Vec::new(), incoming);
        }
        rig.next += 1;
        rig.acked = Some(TcpSeqNumber(answers[0].0 + 1));
        let ack = rig.segment(TcpControl::None, &[]);
        assert!(rig.turn(vec![ack]).is_empty());
        rig
    }

    fn segment(&self, control: TcpControl, payload: &[u8]) -> Vec<u8> {
        let repr = TcpRepr {
            src_port: GUEST_PORT,
            dst_port: self.port,
            control,
            seq_number: TcpSeqNumber(self.next),
            ack_number: self.acked,
            window_len: 0xffff,
            window_scale: (control == TcpControl::Syn).then_some(0),
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload,
        };
        let ends: (IpAddr, IpAddr) = (GUEST.into(), GATEWAY.into());
        ip_frame(Mac(MAC), ends, (IpProtocol::Tcp, 64), repr.buffer_len(), |bytes| {
            let mut packet = TcpPacket::new_unchecked(bytes);
            repr.emit(
                &mut packet,
                &IpAddress::from(ends.0),
                &IpAddress::from(ends.1),
                &ChecksumCapabilities::ignored(),
            );
        })
    }

    /// A segment with the next bytes.
    fn data(&mut self) -> Vec<u8> {
        let frame = self.segment(TcpControl::Psh, &[7; SEGMENT]);
        self.next += SEGMENT as i32;
        frame
    }

    fn turn(&mut self, frames: Vec<Vec<u8>>) -> Vec<(i32, i32, u16)> {
        self.turn_with(frames, Incoming::default())
    }

    /// Sequence and acknowledgement numbers and windows of what the guest is answered.
    fn turn_with(&mut self, frames: Vec<Vec<u8>>, incoming: Incoming) -> Vec<(i32, i32, u16)> {
        let out = self.stack.turn(frames.into_iter(), ROOM, incoming, Instant::now());
        let read = |frame: &Vec<u8>| {
            let ethernet = EthernetFrame::new_checked(&frame[HEADER_SIZE..]).unwrap();
            if ethernet.ethertype() != EthernetProtocol::Ipv4 {
                return None;
            }
            let ip = Ipv4Packet::new_checked(&frame[HEADER_SIZE + ETHERNET_SIZE..]).unwrap();
            let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
            Some((tcp.seq_number().0, tcp.ack_number().0, tcp.window_len()))
        };
        out.iter().filter_map(read).collect()
    }
}

/// The smallest shift that makes a window of the buffer fit.
fn window(bytes: usize) -> u16 {
    let shift = (BUFFER_BYTES.ilog2() + 1).saturating_sub(u16::BITS);
    u16::try_from(bytes >> shift).unwrap()
}

#[test]
fn what_the_host_has_taken_is_acknowledged_once_and_with_the_whole_window() {
    let mut rig = Rig::connected();
    for _ in 0..4 {
        let frames = (0..4).map(|_| rig.data()).collect();
        let answers = rig.turn(frames);
        let told: Vec<_> = answers.iter().map(|(_, ack, window)| (*ack, *window)).collect();
        assert_eq!(told, [(rig.next, window(BUFFER_BYTES))]);
    }
}
