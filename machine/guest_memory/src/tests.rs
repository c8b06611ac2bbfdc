//! Memory as engines and devices use it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vm_memory::{Bytes, GuestAddress};

use super::*;

fn memory() -> Arc<GuestMemory> {
    let memory = GuestMemory::new(&[("ram", 4 * PAGE_SIZE), ("rom", PAGE_SIZE)]).unwrap();
    let mut view = FlatView::new();
    let range = |gpa, size, at, backing| FlatRange { gpa, size, at: RamOffset(at), backing };
    view.insert(range(0, 2 * PAGE_SIZE, 0, Backing::Ram)).unwrap();
    view.insert(range(0x10_0000, 2 * PAGE_SIZE, 2 * PAGE_SIZE, Backing::Ram)).unwrap();
    view.insert(range(0xffff_f000, PAGE_SIZE, 4 * PAGE_SIZE, Backing::Rom)).unwrap();
    memory.set_view(view);
    memory
}

#[test]
fn words_of_each_size_at_odd_addresses() {
    let m = memory();
    let at = RamOffset(PAGE_SIZE - 3);
    m.store(at, 0x1122_3344_5566_7788u64);
    assert_eq!(m.load::<u64>(at), 0x1122_3344_5566_7788);
    assert_eq!(m.load::<u8>(RamOffset(at.0 + 7)), 0x11);
    assert_eq!(m.compare_exchange(at, 0x7788u16, 0xaabb), 0x7788);
    assert_eq!(m.compare_exchange(at, 0x7788u16, 0xcccc), 0xaabb);
    assert_eq!(m.exchange(at, 5u32), 0x5566_aabb);
    assert_eq!(m.exchange(at, 6u8), 5);
    let at = RamOffset(32);
    m.store(at, 7u64);
    assert_eq!(m.compare_exchange_16b(at, 7, u128::MAX - 1), 7);
    assert_eq!(m.compare_exchange_16b(at, 7, 0), u128::MAX - 1);
}

#[test]
#[should_panic(expected = "outside of guest memory")]
fn a_word_across_the_end_is_refused() {
    memory().load::<u64>(RamOffset(5 * PAGE_SIZE - 7));
}

#[test]
fn devices_reach_ram_and_not_rom() {
    let m = memory();
    let dma = m.dma();
    dma.write_slice(b"across", GuestAddress(PAGE_SIZE - 3)).unwrap();
    assert_eq!(m.load::<u8>(RamOffset(PAGE_SIZE)), b'o');
    assert!(dma.write_slice(b"x", GuestAddress(0xffff_f000)).is_err());
    assert!(dma.read_slice(&mut [0; 8], GuestAddress(2 * PAGE_SIZE - 4)).is_err());
}

#[test]
fn a_cleared_region_is_zero_and_written_and_the_others_stay() {
    let m = memory();
    m.store(RamOffset(PAGE_SIZE), 5u64);
    m.store(RamOffset(4 * PAGE_SIZE), 6u64);
    m.bits().mark_code(1, 0, 10);
    let before = m.bits().code_generation(1);
    m.clear(m.region("ram").unwrap()).unwrap();
    assert_eq!(m.load::<u64>(RamOffset(PAGE_SIZE)), 0);
    assert_eq!(m.load::<u64>(RamOffset(4 * PAGE_SIZE)), 6);
    assert_ne!(m.bits().code_generation(1), before);
}

#[test]
fn device_writes_and_leases_mark_pages() {
    let m = memory();
    let before = m.bits().code_generation(2);
    m.bits().mark_code(2, 0, 10);
    m.dma().write_slice(&[1], GuestAddress(0x10_0005)).unwrap();
    assert_ne!(m.bits().code_generation(2), before);
    let dma = m.dma();
    let mut lease = Lease::default();
    lease.begin(&dma, Access::Read);
    lease.add(0x10_1000, 16).unwrap();
    lease.begin(&dma, Access::Write);
    lease.add(0x1000, 16).unwrap();
    assert_eq!((lease.size_bytes(), lease.buffers().len()), (16, 1));
    drop(lease);
    let dirty = DirtyBitmap::new(m.bits().pages());
    m.bits().harvest_dirty(&dirty);
    assert_eq!(dirty.iter().collect::<Vec<_>>(), [1, 2]);
    let mut lease = Lease::default();
    lease.begin(&dma, Access::Write);
    assert!(lease.add(0x1000, 0x1001).is_err());
}

#[test]
fn sizes_that_are_not_pages_are_refused() {
    for size in [0, 1, PAGE_SIZE + 1, u64::MAX - 0xfff] {
        assert!(GuestMemory::new(&[("ram", size)]).is_err(), "{size:#x}");
    }
}

/// A writer that follows the protocol against a harvester: no store may be in a page that is
/// neither dirty nor newer in the copy.
#[test]
fn a_harvest_beside_stores_loses_none() {
    let m = memory();
    m.bits().watch_dirty(true);
    let written = Arc::new(AtomicU64::new(0));
    let (writer, seen) = (m.clone(), written.clone());
    let thread = std::thread::spawn(move || {
        for n in 1..200_000u64 {
            let at = RamOffset(64);
            writer.store(at, n);
            if writer.bits().watched(at) {
                writer.bits().mark_written(at, 8);
            }
            seen.store(n, Ordering::Release);
        }
    });
    let (mut copy, mut rounds) = (0, 0);
    while !thread.is_finished() || rounds == 0 {
        let dirty = DirtyBitmap::new(m.bits().pages());
        m.bits().harvest_dirty(&dirty);
        if dirty.get(0) {
            copy = m.load::<u64>(RamOffset(64));
        }
        rounds += 1;
    }
    thread.join().unwrap();
    let dirty = DirtyBitmap::new(m.bits().pages());
    m.bits().harvest_dirty(&dirty);
    assert!(dirty.get(0) || copy == written.load(Ordering::Acquire), "lost after {rounds} rounds");
}
