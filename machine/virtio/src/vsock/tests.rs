//! A driver that sends packets, and programs of the host.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;

use bus::Device;
use tempfile::TempDir;

use super::*;
use crate::testing::*;

const REQUEST: u16 = 1;
const RESPONSE: u16 = 2;
const RST: u16 = 3;
const RW: u16 = 5;

struct Bench {
    m: Machine,
    queues: Vec<Queue>,
    folder: TempDir,
}

fn bench(cid: u64) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let host = Host::new(cid, &folder.path().join("s")).unwrap();
    let m = Machine::new(Vsock::new(host));
    let queues = m.start(!0);
    Bench { m, queues, folder }
}

fn packet(op: u16, data: &[u8]) -> Vec<u8> {
    let header = Header {
        src_cid: 3,
        dst_cid: 2,
        src_port: 77,
        dst_port: 1234,
        len: data.len() as u32,
        kind: 1,
        op,
        buf_alloc: 1000,
        ..Header::default()
    };
    [&header.to_bytes(), data].concat()
}

impl Bench {
    fn send(&mut self, packet: &[u8]) {
        self.m.fill(BUFFERS, packet);
        self.queues[TRANSMIT].add(&self.m, &[readable(BUFFERS, packet.len() as u32)]);
        self.queues[TRANSMIT].ring(&self.m);
    }

    fn receive(&mut self) -> Option<(Header, Vec<u8>)> {
        let at = BUFFERS + 0x2_0000;
        self.queues[RECEIVE].add(&self.m, &[writable(at, 4096)]);
        self.queues[RECEIVE].ring(&self.m);
        let (_, size) = self.queues[RECEIVE].used(&self.m).pop()?;
        let bytes = self.m.bytes(at, size as usize);
        let (header, data) = bytes.split_first_chunk().unwrap();
        Some((Header::from_bytes(header), data.to_vec()))
    }
}

#[test]
fn the_guest_reaches_a_program_of_the_host() {
    let mut b = bench(3);
    assert_eq!(b.m.read(b.m.config, 8), 3);
    let listener = UnixListener::bind(b.folder.path().join("s_1234")).unwrap();
    b.send(&packet(REQUEST, &[]));
    let (mut socket, _) = listener.accept().unwrap();
    let (header, _) = b.receive().unwrap();
    assert_eq!((header.op, header.src_port, header.dst_port), (RESPONSE, 1234, 77));
    b.send(&packet(RW, b"ping"));
    let mut got = [0; 4];
    socket.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"ping");
    socket.write_all(b"pong").unwrap();
    assert_eq!(b.receive(), None, "nobody has looked at the socket yet");
}

#[test]
fn a_port_nobody_listens_at_is_refused() {
    let mut b = bench(3);
    b.send(&packet(REQUEST, &[]));
    assert_eq!(b.receive().unwrap().0.op, RST);
    assert_eq!(b.receive(), None);
}

#[test]
fn packets_that_lie_about_their_length_break_the_device_or_their_connection() {
    let mut b = bench(3);
    let _listener = UnixListener::bind(b.folder.path().join("s_1234")).unwrap();
    b.send(&packet(REQUEST, &[]));
    assert_eq!(b.receive().unwrap().0.op, RESPONSE);
    let mut long = packet(RW, b"x");
    long[24..28].copy_from_slice(&u32::MAX.to_le_bytes());
    b.send(&long);
    // The buffer that waited takes it.
    let size = b.queues[RECEIVE].used(&b.m);
    assert!(size.is_empty());
    assert_eq!(b.receive().unwrap().0.op, RST);
    long[24..28].copy_from_slice(&2u32.to_le_bytes());
    b.send(&long);
    assert!(b.m.needs_reset());
}

#[test]
fn a_restored_guest_is_told_that_its_connections_are_over() {
    let mut b = bench(3);
    b.queues[EVENT].add(&b.m, &[writable(BUFFERS, 4)]);
    b.queues[EVENT].ring(&b.m);
    assert_eq!(b.queues[EVENT].used(&b.m), []);
    let saved = b.m.device.save();
    b.m.fill(BUFFERS, &[0xff; 4]);
    b.m.device.restore(&saved).unwrap();
    assert_eq!(b.m.device.save(), saved, "a restored state is the one that was saved");
    b.m.device.resume();
    assert_eq!(b.queues[EVENT].used(&b.m), [(0, 4)]);
    assert_eq!(b.m.bytes(BUFFERS, 4), [0; 4]);
    assert!(bench(4).m.device.restore(&saved).is_err(), "another guest's");
}
