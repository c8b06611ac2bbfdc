//! A small viewer against a session, and against a server.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flate2::{Decompress, FlushDecompress};

use crate::*;

/// A desk in memory.
#[derive(Default)]
struct FakeDesk {
    picture: Mutex<Picture>,
    keys: Mutex<Vec<(u8, bool)>>,
    pointers: Mutex<Vec<Pointer>>,
    leds: Mutex<u8>,
}

impl FakeDesk {
    fn new(width: usize, height: usize) -> Arc<Self> {
        let desk = Self::default();
        *desk.picture.lock().unwrap() = gradient(width, height);
        Arc::new(desk)
    }

    fn keys(&self) -> Vec<(u8, bool)> {
        std::mem::take(&mut self.keys.lock().unwrap())
    }
}

impl Desk for FakeDesk {
    fn look(&self, into: &mut Picture) {
        into.clone_from(&self.picture.lock().unwrap());
    }
    fn key(&self, code: u8, down: bool) {
        self.keys.lock().unwrap().push((code, down));
    }
    fn point(&self, pointer: Pointer) {
        self.pointers.lock().unwrap().push(pointer);
    }
    fn leds(&self) -> u8 {
        *self.leds.lock().unwrap()
    }
}

/// Tiles of every kind: one colour, few, many with runs, and noise.
fn gradient(width: usize, height: usize) -> Picture {
    let color = |x: usize, y: usize| match (x / 64 + y / 64) % 5 {
        0 => 0x12_3456,
        1 => [0xff_ffff, 0][x % 2],
        2 => (x as u32 % 7) * 0x01_0203,
        3 => ((y as u32) << 8) | (x as u32 / 20),
        _ => ((x * 7919 + y * 104_729) as u32).wrapping_mul(2_654_435_761) & 0xff_ffff,
    };
    let pixels = (0..height).flat_map(|y| (0..width).map(move |x| color(x, y))).collect();
    Picture { width, height, pixels }
}

/// What a viewer has on its screen. It decodes by the book, apart from the encoders.
struct Viewer {
    picture: Picture,
    zrle: Decompress,
    tight: [Decompress; 3],
    sizes: Vec<(usize, usize)>,
    pseudo: Vec<i32>,
}

struct Wire<'a>(&'a [u8]);

impl<'a> Wire<'a> {
    fn take(&mut self, size: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(size);
        self.0 = rest;
        taken
    }
    fn u8(&mut self) -> usize {
        self.take(1)[0].into()
    }
    fn u16(&mut self) -> usize {
        self.u8() << 8 | self.u8()
    }
    fn u32(&mut self) -> usize {
        self.u16() << 16 | self.u16()
    }
    /// A pixel in three bytes, little-endian or not.
    fn color(&mut self, big: bool) -> u32 {
        let bytes = self.take(3);
        let [a, b, c] = [bytes[0], bytes[1], bytes[2]].map(u32::from);
        if big { a << 16 | b << 8 | c } else { c << 16 | b << 8 | a }
    }
}

fn inflate(stream: &mut Decompress, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 << 20);
    stream.decompress_vec(data, &mut out, FlushDecompress::Sync).unwrap();
    out
}

impl Viewer {
    fn new(width: usize, height: usize) -> Self {
        let zlib = || Decompress::new(true);
        Self {
            picture: Picture { width, height, pixels: vec![0xdead; width * height] },
            zrle: zlib(),
            tight: std::array::from_fn(|_| zlib()),
            sizes: Vec::new(),
            pseudo: Vec::new(),
        }
    }

    /// Takes an update.
    fn update(&mut self, bytes: &[u8]) {
        let mut wire = Wire(bytes);
        assert_eq!(wire.u16() >> 8, 0, "an update");
        for _ in 0..wire.u16() {
            let (x, y, width, height) = (wire.u16(), wire.u16(), wire.u16(), wire.u16());
            let encoding = wire.u32() as i32;
            let pixels = match encoding {
                0 => {
                    let raw = wire.take(width * height * 4).as_chunks::<4>().0;
                    raw.iter().map(|pixel| u32::from_le_bytes(*pixel)).collect()
                }
                16 => {
                    let size = wire.u32();
                    let tiles = inflate(&mut self.zrle, wire.take(size));
                    zrle(&mut Wire(&tiles), width, height)
                }
                7 => self.tight(&mut wire, width * height, width),
                -308 => {
                    wire.take(20);
                    self.sizes.push((width, height));
                    if (width, height) != (self.picture.width, self.picture.height) {
                        self.picture = Picture { width, height, pixels: vec![0; width * height] };
                    }
                    continue;
                }
                -261 => {
                    self.pseudo.push(wire.u8() as i32);
                    continue;
                }
                -258 => {
                    self.pseudo.push(encoding);
                    continue;
                }
                _ => panic!("encoding {encoding}"),
            };
            for (line, from) in (y..).zip(pixels.chunks(width)) {
                self.picture.pixels[line * self.picture.width + x..][..width].copy_from_slice(from);
            }
        }
        assert!(wire.0.is_empty(), "{} bytes left over", wire.0.len());
    }

    fn tight(&mut self, wire: &mut Wire<'_>, count: usize, width: usize) -> Vec<u32> {
        let control = wire.u8();
        if control == 0x80 {
            return vec![wire.color(true); count];
        }
        let stream = &mut self.tight[control >> 4 & 3];
        let mut data = |wire: &mut Wire<'_>, size: usize| {
            if size < 12 {
                return wire.take(size).to_vec();
            }
            let (mut length, mut shift) = (0, 0);
            loop {
                let byte = wire.u8();
                length |= (byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 || shift == 21 {
                    break;
                }
            }
            inflate(stream, wire.take(length))
        };
        if control & 0x40 == 0 {
            let bytes = data(wire, count * 3);
            let mut wire = Wire(&bytes);
            return (0..count).map(|_| wire.color(true)).collect();
        }
        assert_eq!(wire.u8(), 1);
        let palette: Vec<u32> = (0..=wire.u8()).map(|_| wire.color(true)).collect();
        let bits = if palette.len() == 2 { 1 } else { 8 };
        let line_bytes = (width * bits).div_ceil(8);
        let bytes = data(wire, count / width * line_bytes);
        unpack(&bytes, width, bits, &palette)
    }
}

/// Lines of indices.
fn unpack(bytes: &[u8], width: usize, bits: usize, palette: &[u32]) -> Vec<u32> {
    let line = |line: &[u8]| -> Vec<u32> {
        let index = |x: usize| {
            let at = x * bits;
            line[at / 8] >> (8 - bits - at % 8) & (((1u16 << bits) - 1) as u8)
        };
        (0..width).map(|x| palette[usize::from(index(x))]).collect()
    };
    bytes.chunks((width * bits).div_ceil(8)).flat_map(line).collect()
}

fn zrle(wire: &mut Wire<'_>, width: usize, height: usize) -> Vec<u32> {
    let mut all = vec![0; width * height];
    for y in (0..height).step_by(64) {
        for x in (0..width).step_by(64) {
            let (w, h) = (64.min(width - x), 64.min(height - y));
            let kind = wire.u8();
            let pixels: Vec<u32> = match kind {
                0 => (0..w * h).map(|_| wire.color(false)).collect(),
                1 => vec![wire.color(false); w * h],
                2..=16 => {
                    let palette: Vec<u32> = (0..kind).map(|_| wire.color(false)).collect();
                    let bits = [1, 2, 2, 4][(kind - 2).min(3)];
                    unpack(wire.take((w * bits).div_ceil(8) * h), w, bits, &palette)
                }
                128 => {
                    let mut pixels = Vec::new();
                    while pixels.len() < w * h {
                        let color = wire.color(false);
                        let mut run = 1;
                        loop {
                            let more = wire.u8();
                            run += more;
                            if more != 255 {
                                break;
                            }
                        }
                        pixels.extend(vec![color; run]);
                    }
                    pixels
                }
                _ => panic!("tile {kind}"),
            };
            for (line, from) in (y..).zip(pixels.chunks(w)) {
                all[line * width + x..][..w].copy_from_slice(from);
            }
        }
    }
    all
}

/// A session past its handshake.
fn opened(desk: &FakeDesk) -> Session {
    let mut session = Session::new("test", None, [0; 16]);
    assert_eq!(std::mem::take(session.output()), b"RFB 003.008\n");
    session.receive(b"RFB 003.008\n", desk).unwrap();
    assert_eq!(std::mem::take(session.output()), [1, 1]);
    session.receive(&[1], desk).unwrap();
    assert_eq!(std::mem::take(session.output()), [0; 4]);
    session.receive(&[1], desk).unwrap();
    assert!(session.is_open());
    let init = std::mem::take(session.output());
    assert_eq!(&init[20..], b"\0\0\0\x04test");
    session
}

fn encodings(list: &[i32]) -> Vec<u8> {
    let mut message = vec![2, 0];
    message.extend((list.len() as u16).to_be_bytes());
    list.iter().for_each(|n| message.extend(n.to_be_bytes()));
    message
}

fn request(incremental: bool) -> Vec<u8> {
    vec![3, u8::from(incremental), 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]
}

#[test]
fn every_encoding_shows_the_same_picture() {
    for encoding in [0, 7, 16] {
        let desk = FakeDesk::new(333, 210);
        let mut session = opened(&desk);
        let mut viewer = Viewer::new(333, 210);
        session.receive(&encodings(&[encoding]), &*desk).unwrap();
        for round in 0..4 {
            session.receive(&request(round > 0), &*desk).unwrap();
            let now = desk.picture.lock().unwrap().clone();
            assert!(session.update(&now, 0));
            viewer.update(&std::mem::take(session.output()));
            assert!(viewer.picture == now, "encoding {encoding} round {round}");
            let mut next = desk.picture.lock().unwrap();
            next.pixels.rotate_left(333 * 3 + round);
        }
    }
}

#[test]
fn who_has_everything_waits_for_a_change() {
    let desk = FakeDesk::new(100, 100);
    let mut session = opened(&desk);
    let mut picture = desk.picture.lock().unwrap().clone();
    session.receive(&request(false), &*desk).unwrap();
    assert!(session.update(&picture, 0));
    assert!(!session.wants_update());
    session.output().clear();
    session.receive(&request(true), &*desk).unwrap();
    assert!(!session.update(&picture, 0));
    assert!(session.wants_update() && session.output().is_empty());
    picture.pixels[5050] ^= 1;
    assert!(session.update(&picture, 0));
    assert_eq!(session.output().len(), 4 + 12 + 4);
}

#[test]
fn a_new_size_is_told_to_who_understands_and_cut_for_others() {
    let desk = FakeDesk::new(100, 80);
    let larger = gradient(160, 90);
    let mut session = opened(&desk);
    let mut viewer = Viewer::new(100, 80);
    session.receive(&encodings(&[16, -308, -258, -261]), &*desk).unwrap();
    session.receive(&request(false), &*desk).unwrap();
    session.update(&gradient(100, 80), 2);
    viewer.update(&std::mem::take(session.output()));
    assert_eq!((viewer.sizes.pop(), &viewer.pseudo[..]), (Some((100, 80)), &[-258, 2][..]));
    session.receive(&request(true), &*desk).unwrap();
    session.update(&larger, 2);
    viewer.update(&std::mem::take(session.output()));
    assert_eq!(viewer.sizes.pop(), Some((160, 90)));
    session.receive(&request(false), &*desk).unwrap();
    session.update(&larger, 2);
    viewer.update(&std::mem::take(session.output()));
    assert!(viewer.picture == larger);
    // A viewer's own wish is refused.
    let mut wish = vec![251, 0, 0, 10, 0, 10, 1, 0];
    wish.extend([0; 16]);
    session.receive(&wish, &*desk).unwrap();
    session.update(&larger, 2);
    assert_eq!(session.output()[4..8], [0, 1, 0, 1]);

    let mut old = opened(&desk);
    let mut viewer = Viewer::new(100, 80);
    old.receive(&request(false), &*desk).unwrap();
    old.update(&larger, 0);
    viewer.update(&std::mem::take(old.output()));
    assert_eq!(viewer.picture.pixels[99], larger.pixels[99]);
}

#[test]
fn passwords_are_asked_for_in_every_version() {
    let desk = FakeDesk::new(8, 8);
    for minor in [3, 7, 8] {
        for (password, right) in [("secret", true), ("wrong", false)] {
            let challenge = [7; 16];
            let mut session = Session::new("", Some("secret".into()), challenge);
            session.output().clear();
            session.receive(format!("RFB 003.00{minor}\n").as_bytes(), &*desk).unwrap();
            if minor > 3 {
                assert_eq!(std::mem::take(session.output()), [1, 2]);
                session.receive(&[2], &*desk).unwrap();
                assert_eq!(std::mem::take(session.output()), challenge);
            } else {
                assert_eq!(
                    std::mem::take(session.output())[3..],
                    [[2].as_slice(), &[7; 16]].concat()
                );
            }
            let answer = auth::response(password, &challenge);
            assert_eq!(session.receive(&answer, &*desk).is_ok(), right);
            assert_eq!(session.output()[..4], [0, 0, 0, u8::from(!right)]);
            assert_eq!(session.receive(&[1], &*desk).is_ok() && session.is_open(), right);
        }
    }
    let mut session = Session::new("", Some("secret".into()), [0; 16]);
    session.receive(b"RFB 003.008\n", &*desk).unwrap();
    assert!(session.receive(&[1], &*desk).is_err(), "no security was not offered");
}

#[test]
fn old_viewers_type_by_meaning_and_new_ones_by_key() {
    let desk = FakeDesk::new(8, 8);
    let mut session = opened(&desk);
    let mut keysym = |keysym: u32, down: bool| {
        let mut message = vec![4, u8::from(down), 0, 0];
        message.extend(keysym.to_be_bytes());
        session.receive(&message, &*desk).unwrap();
        desk.keys()
    };
    assert_eq!(keysym(0x41, true), [(0x2a, true), (0x1e, true), (0x2a, false)]);
    assert_eq!(keysym(0x41, false), [(0x1e, false)]);
    assert_eq!(keysym(0xffe1, true), [(0x2a, true)]);
    assert_eq!(keysym(0x41, true), [(0x1e, true)]);
    assert_eq!(keysym(0x62, true), [(0x30, true)]);
    assert_eq!(keysym(0x31, true), [(0x2a, false), (0x02, true), (0x2a, true)]);
    assert_eq!(keysym(0xffe1, false), [(0x2a, false)]);
    assert_eq!(keysym(0xff52, true), [(0xc8, true)]);
    *desk.leds.lock().unwrap() = 4;
    assert_eq!(keysym(0x42, true), [(0x30, true)]);
    let qemu = [255, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xd0];
    session.receive(&qemu, &*desk).unwrap();
    assert_eq!(desk.keys(), [(0xd0, true)]);
    // Who goes lets go.
    session.close(&*desk);
    assert!(desk.keys().contains(&(0xd0, false)));
}

#[test]
fn the_wheel_is_two_buttons() {
    let desk = FakeDesk::new(8, 9);
    let mut session = opened(&desk);
    for buttons in [1, 0x10, 0x10, 0, 8] {
        session.receive(&[5, buttons, 0, 3, 0, 4], &*desk).unwrap();
    }
    let seen = desk.pointers.lock().unwrap().clone();
    assert_eq!(seen[0], Pointer { x: 3, y: 4, screen: (8, 9), left: true, ..Pointer::default() });
    assert_eq!(seen.iter().map(|p| p.wheel).collect::<Vec<_>>(), [0, 1, 0, 0, -1]);
}

#[test]
fn long_texts_are_skipped_and_impossible_messages_end_the_session() {
    let desk = FakeDesk::new(8, 8);
    let mut session = opened(&desk);
    session.receive(&[6, 0, 0, 0, 0, 1, 0, 0], &*desk).unwrap();
    session.receive(&vec![0xff; 0x1_0000], &*desk).unwrap();
    session.receive(&[5, 1, 0, 1, 0, 1], &*desk).unwrap();
    assert_eq!(desk.pointers.lock().unwrap().len(), 1);
    // Byte by byte it is the same.
    for byte in encodings(&[16, 7, -308]) {
        session.receive(&[byte], &*desk).unwrap();
    }
    assert!(session.receive(&[99], &*desk).is_err());
    let mut session = opened(&desk);
    assert!(session.receive(&[2, 0, 0xff, 0xff], &*desk).is_err());
    let mut session = opened(&desk);
    let mut format = vec![0, 0, 0, 0];
    format.extend([32, 24, 0, 1, 0, 0, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0]);
    assert!(session.receive(&format, &*desk).is_err());
}

#[test]
fn a_server_on_a_socket_shows_changes_to_several_viewers() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::Unix(dir.path().join("vnc.sock"));
    let desk = FakeDesk::new(70, 70);
    let listening = Listening { place: place.clone(), password: None };
    let server = Server::start("test", &listening, desk.clone()).unwrap();
    assert!(matches!(Server::start("test", &listening, desk.clone()), Err(RfbError::InUse(_))));
    let connect = || {
        let mut stream = UnixStream::connect(dir.path().join("vnc.sock")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut read = |size: usize, send: &[u8]| {
            stream.write_all(send).unwrap();
            let mut bytes = vec![0; size];
            stream.read_exact(&mut bytes).unwrap();
            bytes
        };
        read(12, b"RFB 003.008\n");
        read(2, &[1]);
        read(4, &[1]);
        read(28, &request(false));
        let all = read(16 + 64 * 70 * 4 + 12 + 6 * 70 * 4 - 12, &[]);
        assert_eq!(all[0], 0);
        stream
    };
    let drain = |stream: &mut UnixStream| {
        stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        while stream.read(&mut [0; 4096]).is_ok_and(|size| size > 0) {}
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    };
    let mut viewers = [connect(), connect()];
    viewers.iter_mut().for_each(drain);
    for viewer in &mut viewers {
        viewer.write_all(&request(true)).unwrap();
    }
    desk.picture.lock().unwrap().pixels[0] ^= 0xff;
    for viewer in &mut viewers {
        let mut update = [0; 20];
        viewer.read_exact(&mut update).unwrap();
        assert_eq!(update[..12], [0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 1]);
    }
    drop(server);
    assert_eq!(viewers[0].read(&mut [0; 1]).unwrap_or(0), 0);
    assert!(!dir.path().join("vnc.sock").exists());
}

#[test]
fn a_screen_that_other_hosts_reach_needs_a_password() {
    let desk = FakeDesk::new(8, 8);
    for text in ["0.0.0.0:0", "[::]:0"] {
        for place in [Place::Tcp(text.parse().unwrap()), Place::WebSocket(text.parse().unwrap())] {
            let listening = Listening { place, password: None };
            let refused = Server::start("test", &listening, desk.clone());
            assert!(matches!(refused, Err(RfbError::Open(_))));
        }
    }
}
