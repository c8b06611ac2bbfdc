//! Packets on one side, UNIX sockets on the other.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::packet::*;

const GUEST: u64 = 3;

struct Bench {
    host: Arc<Host>,
    folder: TempDir,
}

fn bench() -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let host = Host::new(GUEST, &folder.path().join("s")).unwrap();
    Bench { host, folder }
}

/// A packet of the guest's: host port, guest port.
fn from_guest(op: u16, ports: (u32, u32), len: usize) -> Header {
    Header {
        src_cid: GUEST,
        dst_cid: HOST_CID,
        src_port: ports.1,
        dst_port: ports.0,
        len: len as u32,
        kind: STREAM,
        op,
        buf_alloc: 8192,
        ..Header::default()
    }
}

impl Bench {
    fn send(&self, op: u16, ports: (u32, u32), data: &[u8]) {
        self.host.receive(&from_guest(op, ports, data.len()), data);
    }

    fn next(&self) -> Option<(Header, Vec<u8>)> {
        self.host.look();
        let mut data = [0; 4096];
        let header = self.host.next(&mut data)?;
        Some((header, data[..header.len as usize].to_vec()))
    }

    fn op(&self) -> Option<u16> {
        self.next().map(|(header, _)| header.op)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// A connection of the guest's to port 5, and the host program's end.
    fn connected(&self) -> UnixStream {
        let listener = UnixListener::bind(self.path("s_5")).unwrap();
        self.send(REQUEST, (5, 99), &[]);
        assert_eq!(self.op(), Some(RESPONSE));
        listener.accept().unwrap().0
    }

    /// A connection of the host's to port 7, and its ports.
    fn connected_from_host(&self) -> (UnixStream, (u32, u32)) {
        let mut socket = UnixStream::connect(self.path("s")).unwrap();
        socket.write_all(b"CONNECT 7\nearly").unwrap();
        self.host.look();
        let (header, _) = self.next().unwrap();
        assert_eq!((header.op, header.dst_port, header.src_cid), (REQUEST, 7, HOST_CID));
        let ports = (header.src_port, 7);
        self.send(RESPONSE, ports, &[]);
        let mut answer = vec![0; format!("OK {}\n", ports.0).len()];
        socket.read_exact(&mut answer).unwrap();
        assert_eq!(answer, format!("OK {}\n", ports.0).as_bytes());
        (socket, ports)
    }
}

#[test]
fn a_header_is_44_bytes_as_specified() {
    let header = Header {
        src_cid: 3,
        dst_cid: 2,
        src_port: 4,
        dst_port: 5,
        len: 6,
        kind: 7,
        op: 8,
        flags: 9,
        buf_alloc: 10,
        fwd_cnt: 11,
    };
    let bytes = header.to_bytes();
    assert_eq!(Header::from_bytes(&bytes), header);
    assert_eq!((bytes[0], bytes[8], bytes[28], bytes[30], bytes[40]), (3, 2, 7, 8, 11));
}

#[test]
fn a_program_of_the_host_connects_by_a_line() {
    let b = bench();
    let (mut socket, ports) = b.connected_from_host();
    let (header, data) = b.next().unwrap();
    assert_eq!((header.op, &data[..]), (RW, &b"early"[..]), "what follows the line is the guest's");
    b.send(RW, ports, b"answer");
    let mut got = [0; 6];
    socket.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"answer");
}

#[test]
fn lines_that_are_no_connect_are_hung_up_on() {
    let b = bench();
    for line in
        ["GET / HTTP/1.0\n", "CONNECT\n", "CONNECT x\n", "CONNECT 99999999999\n", &"x".repeat(100)]
    {
        let mut socket = UnixStream::connect(b.path("s")).unwrap();
        socket.write_all(line.as_bytes()).unwrap();
        b.host.look();
        b.host.look();
        assert_eq!((b.host.connections(), b.op()), (0, None), "{line}");
        // What it had sent besides was not read: the end may be told as a reset.
        assert!(matches!(socket.read(&mut [0; 8]), Ok(0) | Err(_)), "{line}");
    }
}

#[test]
fn a_guest_gets_no_more_than_it_has_room_for() {
    let b = bench();
    let mut socket = b.connected();
    socket.write_all(&[1; 20_000]).unwrap();
    let mut got = 0;
    let mut last = 0;
    while let Some((header, data)) = b.next() {
        (got, last) = (got + data.len(), header.op);
    }
    assert_eq!((got, last), (8192, CREDIT_REQUEST));
    let update = Header { fwd_cnt: 8192, ..from_guest(CREDIT_UPDATE, (5, 99), 0) };
    assert!(b.host.receive(&update, &[]));
    assert_eq!(b.next().unwrap().1.len(), 4096);
}

#[test]
fn a_slow_program_of_the_host_holds_the_guest_back() {
    let b = bench();
    let mut socket = b.connected();
    let mut sent = 0usize;
    // The host's kernel takes some; then the buffer fills.
    let mut known = 0usize;
    while sent - known < BUFFER && sent < 64 << 20 {
        b.send(RW, (5, 99), &[2; 4096]);
        sent += 4096;
        while let Some((header, _)) = b.next() {
            assert_eq!(header.op, CREDIT_UPDATE);
            known = header.fwd_cnt as usize;
        }
    }
    assert!(sent < 64 << 20);
    let mut left = sent;
    let mut piece = [0; 65536];
    while left > 0 {
        left -= socket.read(&mut piece).unwrap();
        b.host.look();
    }
    assert_eq!(b.next().unwrap().0.fwd_cnt as usize, sent);
}

#[test]
fn a_guest_that_sends_beyond_its_credit_loses_the_connection() {
    let b = bench();
    let mut socket = b.connected();
    for _ in 0..4096 {
        b.send(RW, (5, 99), &[2; 4096]);
    }
    let mut ops = std::iter::from_fn(|| b.op());
    assert_eq!(ops.find(|op| *op == RST), Some(RST));
    assert_eq!(b.host.connections(), 0);
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).unwrap();
    assert!(!rest.is_empty());
}

#[test]
fn ends_are_passed_on_one_direction_at_a_time() {
    let b = bench();
    let mut socket = b.connected();
    socket.write_all(b"last").unwrap();
    socket.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(b.next().unwrap().1, b"last");
    let (header, _) = b.next().unwrap();
    assert_eq!((header.op, header.flags), (SHUTDOWN, NO_SEND));
    b.send(RW, (5, 99), b"reply");
    let end = Header { flags: NO_SEND, ..from_guest(SHUTDOWN, (5, 99), 0) };
    b.host.receive(&end, &[]);
    let mut got = String::new();
    socket.read_to_string(&mut got).unwrap();
    assert_eq!(got, "reply");
    assert_eq!((b.op(), b.host.connections()), (Some(RST), 0));
}

#[test]
fn what_a_program_has_sent_before_it_went_arrives() {
    let b = bench();
    let mut socket = b.connected();
    socket.write_all(b"last words").unwrap();
    drop(socket);
    let (header, data) = b.next().unwrap();
    assert_eq!((header.op, &data[..]), (RW, &b"last words"[..]));
    let (header, _) = b.next().unwrap();
    assert_eq!((header.op, header.flags), (SHUTDOWN, NO_SEND | NO_RECEIVE));
    b.send(RST, (5, 99), &[]);
    assert_eq!((b.host.connections(), b.op()), (0, None));
}

#[test]
fn strangers_packets_are_refused_or_not_answered() {
    let b = bench();
    b.send(RW, (5, 99), b"?");
    assert_eq!(b.op(), Some(RST));
    b.send(RST, (5, 99), &[]);
    assert_eq!(b.op(), None, "a reset is not answered");
    let elsewhere = Header { dst_cid: 9, ..from_guest(REQUEST, (5, 99), 0) };
    b.host.receive(&elsewhere, &[]);
    assert_eq!(b.op(), Some(RST));
    let forged = Header { src_cid: 9, ..from_guest(REQUEST, (5, 99), 0) };
    b.host.receive(&forged, &[]);
    assert_eq!(b.op(), None);
    for _ in 0..5000 {
        b.send(RW, (5, 99), b"?");
    }
    assert_eq!(std::iter::from_fn(|| b.op()).count(), 1024);
}

#[test]
fn connections_are_limited_and_end_with_a_reset() {
    let b = bench();
    let listener = UnixListener::bind(b.path("s_5")).unwrap();
    let mut sockets = Vec::new();
    for port in 0..CONNECTIONS_MAX as u32 {
        b.send(REQUEST, (5, port), &[]);
        assert_eq!(b.op(), Some(RESPONSE));
        sockets.push(listener.accept().unwrap().0);
    }
    b.send(REQUEST, (5, 100_000), &[]);
    assert_eq!(b.op(), Some(RST));
    b.host.reset();
    assert_eq!(b.host.connections(), 0);
    assert_eq!(sockets[0].read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn a_path_that_is_taken_is_refused_and_one_left_behind_is_not() {
    let b = bench();
    assert!(matches!(Host::new(GUEST, &b.path("s")), Err(VsockError::InUse(_))));
    std::fs::write(b.path("file"), "").unwrap();
    assert!(matches!(Host::new(GUEST, &b.path("file")), Err(VsockError::InUse(_))));
    drop(UnixListener::bind(b.path("left")).unwrap());
    Host::new(GUEST, &b.path("left")).unwrap();
    assert!(!b.path("left").exists());
}
