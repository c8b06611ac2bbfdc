//! A driver that gives pages up.

use bus::Device;

use super::*;
use crate::testing::*;

struct Bench {
    m: Machine,
    balloon: Arc<Balloon>,
    queues: Vec<Queue>,
}

fn bench() -> Bench {
    let memory = memory();
    let balloon = Balloon::new(memory.clone());
    let m = Machine::over(memory, balloon.clone());
    let queues = m.start(!0);
    Bench { m, balloon, queues }
}

const PAGE: u64 = 0x1000;

impl Bench {
    /// Fills pages, and says how many bytes of memory the host has given.
    fn fill(&self, gpa: u64, pages: u64) -> u64 {
        (0..pages).for_each(|page| self.m.fill(gpa + page * PAGE, &[0xaa; PAGE as usize]));
        self.m.memory.resident_bytes()
    }

    fn is_zero(&self, gpa: u64) -> bool {
        self.m.bytes(gpa, PAGE as usize).iter().all(|byte| *byte == 0)
    }

    fn send(&mut self, queue: usize, chain: &[Desc]) {
        self.queues[queue].add(&self.m, chain);
        self.queues[queue].ring(&self.m);
    }
}

#[test]
fn pages_that_are_given_up_are_the_hosts() {
    let mut b = bench();
    let gpa = BUFFERS + 0x4_0000;
    let before = b.fill(gpa, 16);
    let numbers: Vec<u8> = [3u32, 1, 2, 2, 7, u32::MAX]
        .iter()
        .flat_map(|page| {
            page.wrapping_add((gpa / PAGE) as u32 * u32::from(*page < 16)).to_le_bytes()
        })
        .collect();
    b.m.fill(BUFFERS, &numbers);
    b.send(INFLATE, &[readable(BUFFERS, numbers.len() as u32)]);
    assert_eq!(b.queues[INFLATE].used(&b.m), [(0, 0)]);
    let freed: Vec<u64> = (0..16).filter(|page| b.is_zero(gpa + page * PAGE)).collect();
    assert_eq!(freed, [1, 2, 3, 7]);
    assert_eq!(b.balloon.released_bytes(), 4 * PAGE);
    // Looking at them has brought zero pages back: those of the file system's own keeping.
    assert!(b.m.memory.resident_bytes() <= before);
}

#[test]
fn reported_pages_are_the_hosts_and_only_whole_ones() {
    let mut b = bench();
    let gpa = BUFFERS + 0x4_0000;
    let before = b.fill(gpa, 16);
    b.send(REPORTING, &[writable(gpa, 0x2000), writable(gpa + 0x4800, 0x2000)]);
    assert_eq!(b.m.memory.resident_bytes(), before - 3 * PAGE);
    let freed: Vec<u64> = (0..16).filter(|page| b.is_zero(gpa + page * PAGE)).collect();
    assert_eq!(freed, [0, 1, 5]);
    b.send(REPORTING, &[writable(1 << 60, 1 << 31), writable(RAM_SIZE - PAGE, i32::MAX as u32)]);
    assert!(!b.m.needs_reset());
}

#[test]
fn pages_are_taken_as_hints_between_a_commands_id_and_its_end_only() {
    let mut b = bench();
    let gpa = BUFFERS + 0x4_0000;
    b.fill(gpa, 4);
    b.send(FREE_PAGES, &[writable(gpa, 0x1000)]);
    assert!(!b.is_zero(gpa), "nobody has asked");
    b.balloon.reclaim();
    let id = b.m.read(b.m.config + 8, 4) as u32;
    assert!(id >= HINT_FIRST);
    b.m.fill(BUFFERS, &id.to_le_bytes());
    b.send(FREE_PAGES, &[readable(BUFFERS, 4)]);
    b.send(FREE_PAGES, &[writable(gpa + 0x1000, 0x1000)]);
    assert!(b.is_zero(gpa + 0x1000));
    b.m.fill(BUFFERS, &HINT_STOP.to_le_bytes());
    b.send(FREE_PAGES, &[readable(BUFFERS, 4)]);
    assert_eq!(b.m.read(b.m.config + 8, 4) as u32, HINT_DONE);
    b.send(FREE_PAGES, &[writable(gpa + 0x2000, 0x1000)]);
    assert!(!b.is_zero(gpa + 0x2000));
}

#[test]
fn the_target_is_told_and_the_guest_says_how_far_it_is() {
    let b = bench();
    b.balloon.set_target(10 << 20);
    assert_eq!(b.m.messages.take(), [0x40]);
    assert_eq!(b.m.read(b.m.config, 4), 2560);
    b.m.write(b.m.config + 4, 4, 100);
    assert_eq!(b.balloon.size(), (10 << 20, 100 * PAGE));
    let saved = b.m.device.save();
    let new = bench();
    new.m.device.restore(&saved).unwrap();
    assert_eq!((new.balloon.size(), new.m.device.save()), (b.balloon.size(), saved));
}

#[test]
fn statistics_come_when_they_are_asked_for() {
    let mut b = bench();
    let stat = |tag: u16, value: u64| [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat();
    let stats = [stat(4, 1000), stat(5, 4000), stat(99, 1), stat(0, u64::MAX), vec![1]].concat();
    b.m.fill(BUFFERS, &stats);
    b.send(STATS, &[readable(BUFFERS, stats.len() as u32)]);
    assert_eq!(b.queues[STATS].used(&b.m), []);
    let expected =
        MemoryStats { free_bytes: Some(1000), total_bytes: Some(4000), ..MemoryStats::default() };
    assert_eq!(b.balloon.stats(), expected);
    assert_eq!(b.queues[STATS].used(&b.m), [(0, 0)], "the driver is asked for more");
}
