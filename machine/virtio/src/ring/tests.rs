//! Rings that lie. Well-formed ones are made with `virtio-queue`'s mock, then bent.

use virtio_queue::desc::RawDescriptor;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::mock::MockSplitQueue;
use vm_memory::Bytes;

use super::*;
use crate::testing::{INDIRECT, NEXT, RAM_SIZE, WRITE, memory};

const SIZE: u16 = 16;

struct Bench {
    memory: std::sync::Arc<DmaMemory>,
}

fn bench() -> Bench {
    Bench { memory: memory().dma() }
}

impl Bench {
    /// Offers descriptor 0 of these.
    fn offer(&self, descs: &[(u64, u32, u16, u16)]) -> Ring {
        let mock = MockSplitQueue::create(&*self.memory, GuestAddress(0x1000), SIZE);
        for (i, (gpa, size, flags, next)) in descs.iter().enumerate() {
            let desc = RawDescriptor::from(Descriptor::new(*gpa, *size, *flags, *next));
            mock.desc_table().store(i as u16, desc).unwrap();
        }
        mock.avail().ring().ref_at(0).unwrap().store(0);
        mock.avail().idx().store(1);
        let queue: Queue = mock.create_queue().unwrap();
        Ring::new(queue.state()).unwrap()
    }

    /// Changes a word of the available ring: 1 is the index, 2 the first head.
    fn set_avail(&self, ring: &Ring, word: u64, value: u16) {
        self.memory.write_obj(value, GuestAddress(ring.state().avail_ring + 2 * word)).unwrap();
    }

    fn pop(&self, descs: &[(u64, u32, u16, u16)]) -> Result<Option<u16>, Broken> {
        self.offer(descs).pop(&self.memory)
    }

    /// Writes a table of descriptors.
    fn table(&self, gpa: u64, descs: &[(u64, u32, u16, u16)]) {
        for (i, (at, size, flags, next)) in descs.iter().enumerate() {
            let desc = Descriptor::new(*at, *size, *flags, *next);
            let raw = RawDescriptor::from(desc);
            self.memory.write_obj(raw, GuestAddress(gpa + 16 * i as u64)).unwrap();
        }
    }
}

#[test]
fn a_chain_is_gathered_in_order() {
    let b = bench();
    let mut ring = b.offer(&[(1, 2, NEXT, 3), (0, 0, 0, 0), (7, 8, WRITE, 0), (3, 4, NEXT, 2)]);
    assert_eq!(ring.pop(&b.memory), Ok(Some(0)));
    assert_eq!(ring.gathered.readable, [(1, 2), (3, 4)]);
    assert_eq!(ring.gathered.writable, [(7, 8)]);
    ring.put_back();
    assert_eq!(ring.pop(&b.memory), Ok(Some(0)));
    assert_eq!(ring.pop(&b.memory), Ok(None));
}

#[test]
fn loops_and_wild_links_are_found() {
    let b = bench();
    let loop_of_one = b.pop(&[(0, 1, NEXT, 0)]);
    let loop_of_two = b.pop(&[(0, 1, NEXT, 1), (0, 1, NEXT, 0)]);
    let wild = b.pop(&[(0, 1, NEXT, SIZE)]);
    let wilder = b.pop(&[(0, 1, NEXT, u16::MAX)]);
    for result in [loop_of_one, loop_of_two, wild, wilder] {
        assert!(result.is_err(), "{result:?}");
    }
}

#[test]
fn lengths_that_overflow_are_found() {
    let b = bench();
    let huge = b.pop(&[(0, u32::MAX, NEXT, 1), (0, 2, 0, 0)]);
    assert!(huge.is_err());
    // 4 GiB less a byte is legal, if useless: memory is checked where it is used.
    assert_eq!(b.pop(&[(0, u32::MAX, 0, 0)]), Ok(Some(0)));
}

#[test]
fn readable_after_writable_is_refused() {
    let b = bench();
    assert!(b.pop(&[(0, 1, NEXT | WRITE, 1), (0, 1, 0, 0)]).is_err());
}

#[test]
fn heads_that_are_not_there_are_refused() {
    let b = bench();
    let mut ring = b.offer(&[(0, 1, 0, 0)]);
    b.set_avail(&ring, 2, SIZE);
    assert!(ring.pop(&b.memory).is_err());
}

#[test]
fn an_available_index_may_run_ahead_by_the_size_and_no_more() {
    let b = bench();
    let mut ring = b.offer(&[(0, 1, 0, 0)]);
    b.set_avail(&ring, 1, SIZE);
    for _ in 0..SIZE {
        assert_eq!(ring.pop(&b.memory), Ok(Some(0)));
    }
    assert_eq!(ring.pop(&b.memory), Ok(None));
    for index in [2 * SIZE + 1, SIZE - 1, 0] {
        b.set_avail(&ring, 1, index);
        assert!(ring.pop(&b.memory).is_err(), "{index}");
    }
}

#[test]
fn indirect_tables_are_followed_once() {
    let b = bench();
    let table = 0x8000;
    b.table(table, &[(1, 1, NEXT, 1), (2, 2, WRITE, 0)]);
    let mut ring = b.offer(&[(table, 32, INDIRECT, 0)]);
    assert_eq!(ring.pop(&b.memory), Ok(Some(0)));
    assert_eq!(
        (&*ring.gathered.readable, &*ring.gathered.writable),
        (&[(1, 1)][..], &[(2, 2)][..])
    );
    // Behind a direct descriptor (2.7.5.3.2 allows it).
    assert_eq!(b.pop(&[(9, 9, NEXT, 1), (table, 32, INDIRECT, 0)]), Ok(Some(0)));
    // In a table: not allowed.
    b.table(table, &[(table + 0x100, 16, INDIRECT, 0)]);
    b.table(table + 0x100, &[(1, 1, 0, 0)]);
    assert!(b.pop(&[(table, 16, INDIRECT, 0)]).is_err());
    b.table(table, &[(1, 1, NEXT, 1), (table, 16, INDIRECT, 0)]);
    assert!(b.pop(&[(table, 32, INDIRECT, 0)]).is_err());
}

#[test]
fn indirect_tables_of_odd_sizes_and_places_are_refused() {
    let b = bench();
    let table = 0x8000;
    b.table(table, &[(1, 1, NEXT, 1), (2, 2, NEXT, 0)]);
    for (gpa, size) in
        [(table, 0), (table, 15), (table, 32), (table, u32::MAX), (RAM_SIZE, 16), (u64::MAX, 16)]
    {
        assert!(b.pop(&[(gpa, size, INDIRECT, 0)]).is_err(), "{size} bytes at {gpa:#x}");
    }
}

#[test]
fn requests_of_too_many_descriptors_are_refused() {
    let b = bench();
    let table = 0x8000;
    let chain = |count: u16| {
        let link = |i| (0, 0, if i + 1 < count { NEXT } else { 0 }, i + 1);
        b.table(table, &(0..count).map(link).collect::<Vec<_>>());
        b.pop(&[(table, 16 * u32::from(count), INDIRECT, 0)])
    };
    assert_eq!(chain(CHAIN_MAX as u16), Ok(Some(0)));
    assert!(chain(CHAIN_MAX as u16 + 1).is_err());
}

#[test]
fn rings_that_leave_ram_are_an_error_not_a_hang() {
    let b = bench();
    let mut state = b.offer(&[(0, 1, 0, 0)]).state();
    // The index is the last RAM there is; the ring behind it is not RAM.
    state.avail_ring = RAM_SIZE - 4;
    b.memory.write_obj(1u16, GuestAddress(RAM_SIZE - 2)).unwrap();
    let mut ring = Ring::new(state).unwrap();
    assert!(ring.check(&b.memory).is_err());
    assert!(ring.pop(&b.memory).is_err());
    state.avail_ring = RAM_SIZE;
    assert!(Ring::new(state).unwrap().pop(&b.memory).is_err());
    state.used_ring = RAM_SIZE;
    let mut ring = Ring::new(state).unwrap();
    ring.heads.push((0, 0));
    assert!(ring.complete(&b.memory, 0).is_err());
    assert!(ring.listen(&b.memory).is_err());
    assert!(ring.silence(&b.memory).is_err());
    assert!(ring.must_interrupt(&b.memory).is_err());
}
