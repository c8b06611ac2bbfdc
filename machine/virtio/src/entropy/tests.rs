//! Random bytes through the queue.

use bus::Device;

use super::*;
use crate::testing::*;

fn draw(m: &Machine, q: &mut Queue, descs: &[Desc]) -> u32 {
    q.add(m, descs);
    q.ring(m);
    q.used(m)[0].1
}

#[test]
fn buffers_are_filled_from_the_host() {
    let m = Machine::new(Entropy::new(EntropySource::Host));
    let mut q = m.start(!0).remove(0);
    let got = draw(&m, &mut q, &[writable(BUFFERS, 100), writable(BUFFERS + 0x1000, 412)]);
    assert_eq!(got, 512);
    let zeroes = m.bytes(BUFFERS + 0x1000, 412).iter().filter(|b| **b == 0).count();
    assert!(zeroes < 30, "{zeroes} of 412 random bytes are zero");
    assert_eq!(m.bytes(BUFFERS + 100, 1), [0]);
}

#[test]
fn a_huge_request_gets_the_most_there_is() {
    let m = Machine::new(Entropy::new(EntropySource::Host));
    let mut q = m.start(!0).remove(0);
    assert_eq!(draw(&m, &mut q, &[writable(BUFFERS, 1 << 20)]), REQUEST_MAX as u32);
    assert_eq!(draw(&m, &mut q, &[writable(BUFFERS, 0)]), 0);
    assert_eq!(draw(&m, &mut q, &[readable(BUFFERS, 16)]), 0);
}

#[test]
fn a_wild_buffer_breaks_the_device() {
    let m = Machine::new(Entropy::new(EntropySource::Host));
    let mut q = m.start(!0).remove(0);
    q.add(&m, &[writable(RAM_SIZE - 8, 16)]);
    q.ring(&m);
    assert!(m.needs_reset());
}

#[test]
fn a_seed_gives_the_same_bytes_in_each_run_and_after_a_restore() {
    let bytes = |m: &Machine, q: &mut Queue| {
        assert_eq!(draw(m, q, &[writable(BUFFERS, 300)]), 300);
        m.bytes(BUFFERS, 300)
    };
    let m = Machine::new(Entropy::new(EntropySource::Seeded(7)));
    let mut q = m.start(!0).remove(0);
    let first = bytes(&m, &mut q);
    let saved = m.device.save();
    let second = bytes(&m, &mut q);
    assert_ne!(first, second);
    let new = Machine::new(Entropy::new(EntropySource::Seeded(7)));
    let mut q = new.start(!0).remove(0);
    assert_eq!(bytes(&new, &mut q), first);
    assert_eq!(bytes(&new, &mut q), second);
    new.device.restore(&saved).unwrap();
    assert_eq!(new.device.save(), saved);
    let mut q = new.start(!0).remove(0); // which is a reset
    assert_eq!(bytes(&new, &mut q), first);
}
