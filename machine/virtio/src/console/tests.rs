//! Typing and printing.

use std::sync::atomic::{AtomicU64, Ordering};

use bus::Device;

use super::*;
use crate::testing::*;

struct Bench {
    m: Machine,
    console: Arc<Console>,
    printed: Arc<Mutex<Vec<u8>>>,
    rooms: Arc<AtomicU64>,
}

fn bench() -> Bench {
    let (printed, rooms) = (Arc::<Mutex<Vec<u8>>>::default(), Arc::<AtomicU64>::default());
    let (to, count) = (printed.clone(), rooms.clone());
    let console = Console::new(ConsoleConfig {
        output: Box::new(move |bytes| lock(&to).extend(bytes)),
        room: Box::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        }),
        size: (80, 25),
    });
    Bench { m: Machine::new(console.clone()), console, printed, rooms }
}

#[test]
fn what_the_guest_sends_is_printed() {
    let b = bench();
    let mut q = b.m.start(!0).remove(TRANSMIT);
    let text: Vec<u8> = (0..3000u32).map(|i| i as u8).collect();
    b.m.fill(BUFFERS, &text);
    q.add(&b.m, &[readable(BUFFERS, 1000), readable(BUFFERS + 1000, 2000)]);
    q.ring(&b.m);
    assert_eq!(*lock(&b.printed), text);
    assert_eq!(q.used(&b.m), [(0, 0)]);
    q.add(&b.m, &[readable(BUFFERS, 2 << 20)]);
    q.ring(&b.m);
    assert_eq!(lock(&b.printed).len() as u64, 3000 + OUTPUT_MAX);
}

#[test]
fn what_is_typed_arrives_when_the_guest_has_a_buffer() {
    let b = bench();
    let mut q = b.m.start(!0).remove(RECEIVE);
    assert_eq!(b.console.input(b"early"), 5);
    q.add(&b.m, &[writable(BUFFERS, 3)]);
    q.ring(&b.m);
    assert_eq!(q.used(&b.m), [(0, 3)]);
    q.add(&b.m, &[writable(BUFFERS + 3, 16)]);
    q.add(&b.m, &[writable(BUFFERS + 5, 16)]);
    q.ring(&b.m);
    assert_eq!(q.used(&b.m), [(1, 2)]);
    b.console.input(b" bird");
    assert_eq!(q.used(&b.m), [(2, 5)]);
    assert_eq!(b.m.bytes(BUFFERS, 10), b"early bird");
}

#[test]
fn a_full_console_refuses_and_tells_when_there_is_room() {
    let b = bench();
    assert_eq!(b.console.input(&[1; 5000]), INPUT_MAX);
    assert_eq!(b.console.input(&[2]), 0);
    let rooms = || b.rooms.load(Ordering::Relaxed);
    let mut q = b.m.start(!0).remove(RECEIVE);
    assert_eq!(rooms(), 1, "a reset makes room");
    assert_eq!(b.console.input(&[1; 5000]), INPUT_MAX);
    q.add(&b.m, &[writable(BUFFERS, 100)]);
    q.ring(&b.m);
    assert_eq!((q.used(&b.m), rooms()), (vec![(0, 100)], 2));
    assert_eq!(b.console.input(&[3; 100]), 100);
    q.add(&b.m, &[writable(BUFFERS, 8192)]);
    q.ring(&b.m);
    assert_eq!((q.used(&b.m), rooms()), (vec![(1, 4096)], 2));
    assert_eq!(b.m.bytes(BUFFERS + 3996, 100), [3; 100]);
}

#[test]
fn the_size_is_in_the_configuration_and_changes_are_told() {
    let b = bench();
    b.m.start(!0);
    assert_eq!(b.m.read(b.m.config, 8), 0x1_0019_0050);
    b.console.resize(132, 50);
    assert_eq!(b.m.messages.take(), [0x40]);
    assert_eq!(b.m.read(b.m.config, 4), 0x0032_0084);
    b.m.write(b.m.config + 8, 4, u64::from(b'!'));
    assert_eq!(*lock(&b.printed), b"!", "an emergency write is printed");
}

#[test]
fn wild_buffers_break_the_device() {
    for queue in [RECEIVE, TRANSMIT] {
        let b = bench();
        let mut q = b.m.start(!0).remove(queue);
        b.console.input(b"text");
        let desc = if queue == RECEIVE { writable } else { readable };
        q.add(&b.m, &[desc(RAM_SIZE - 2, 4)]);
        q.ring(&b.m);
        assert!(b.m.needs_reset());
    }
}

#[test]
fn typed_input_survives_a_restore() {
    let b = bench();
    b.m.start(!0);
    b.console.input(b"half a li");
    b.console.resize(1, 2);
    let saved = b.m.device.save();
    let new = bench();
    new.m.device.restore(&saved).unwrap();
    assert_eq!(new.m.device.save(), saved);
    assert_eq!(lock(&new.console.state).input.len(), 9);
    assert_eq!(new.m.read(new.m.config, 4), 0x0002_0001);
}
