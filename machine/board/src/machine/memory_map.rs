//! What the guest sees of its memory: RAM, and what lies over it.
//!
//! Devices that change the map (shadow RAM, flash) own an [`Overlay`] each. Later overlays lie over
//! earlier ones, and all of them over RAM.
//!
//! *Locks*: a device's own lock, then the map's, then the socket's.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use guest_memory::{Backing, FlatRange, FlatView, GuestMemory, RamOffset};

use crate::socket::Socket;

/// A run of guest-physical addresses, and what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The first address.
    pub(crate) gpa: u64,
    /// How many; whole pages.
    pub(crate) size: u64,
    /// Memory, or a hole: accesses go to the bus.
    pub(crate) memory: Option<(RamOffset, Backing)>,
}

/// The map of one machine.
pub(crate) struct MemoryMap {
    // Fixed configuration.
    ram: Vec<FlatRange>,
    // Wiring.
    memory: Arc<GuestMemory>,
    socket: Arc<Socket>,
    // State.
    overlays: Mutex<Vec<Vec<Piece>>>,
}

/// A place in the map that is one device's to fill.
pub(crate) struct Overlay {
    map: Arc<MemoryMap>,
    index: usize,
}

impl MemoryMap {
    /// The map is what the guest sees now, and nothing lies over it.
    pub(crate) fn new(memory: Arc<GuestMemory>, socket: Arc<Socket>) -> Arc<Self> {
        let ram = memory.view().iter().copied().collect();
        Arc::new(Self { ram, memory, socket, overlays: Mutex::default() })
    }

    /// A new overlay, over all there are, with nothing in it.
    pub(crate) fn overlay(self: &Arc<Self>) -> Overlay {
        let mut overlays = self.overlays();
        overlays.push(Vec::new());
        Overlay { map: self.clone(), index: overlays.len() - 1 }
    }

    fn overlays(&self) -> MutexGuard<'_, Vec<Vec<Piece>>> {
        self.overlays.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Overlay {
    /// The overlay has these pieces from now on, for vCPUs and for devices.
    pub(crate) fn set(&self, pieces: Vec<Piece>) {
        let MemoryMap { ram, memory, socket, .. } = &*self.map;
        let mut overlays = self.map.overlays();
        if overlays[self.index] == pieces {
            return;
        }
        overlays[self.index] = pieces;
        let view = compose(ram, overlays.iter().flatten());
        memory.set_view(view);
        socket.set_memory_or_fail(memory.view());
    }
}

/// `ram` with each of the pieces over it, and over those before.
fn compose<'a>(ram: &[FlatRange], pieces: impl Iterator<Item = &'a Piece>) -> FlatView {
    let mut ranges = ram.to_vec();
    for Piece { gpa, size, memory } in pieces.copied() {
        ranges = ranges.iter().flat_map(|range| without(range, gpa, gpa + size)).collect();
        let range = memory.map(|(at, backing)| FlatRange { gpa, size, at, backing });
        ranges.extend(range);
    }
    let mut view = FlatView::new();
    for range in ranges {
        let inserted = view.insert(range);
        assert!(inserted.is_ok(), "what a piece covers was cut out");
    }
    view
}

/// What is left of a range without the addresses from `start` to `end`.
pub(super) fn without(range: &FlatRange, start: u64, end: u64) -> Vec<FlatRange> {
    let range_end = range.gpa + range.size;
    let part = |from: u64, to: u64| {
        (from < to).then(|| FlatRange {
            gpa: from,
            size: to - from,
            at: RamOffset(range.at.0 + (from - range.gpa)),
            backing: range.backing,
        })
    };
    let before = part(range.gpa, range_end.min(start));
    let after = part(range.gpa.max(end), range_end);
    before.into_iter().chain(after).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventLog;

    fn rig() -> Arc<MemoryMap> {
        let memory = GuestMemory::new(&[("ram", 0x10_0000), ("rom", 0x2_0000)]).unwrap();
        let mut view = FlatView::new();
        let at = RamOffset(0);
        view.insert(FlatRange { gpa: 0, size: 0x10_0000, at, backing: Backing::Ram }).unwrap();
        memory.set_view(view);
        MemoryMap::new(memory, Socket::new(EventLog::new()))
    }

    fn piece(gpa: u64, size: u64, memory: Option<(u64, Backing)>) -> Piece {
        Piece { gpa, size, memory: memory.map(|(at, backing)| (RamOffset(at), backing)) }
    }

    #[test]
    fn a_later_overlay_lies_over_an_earlier_one_and_uncovers_it_again() {
        let map = rig();
        let (low, high) = (map.overlay(), map.overlay());
        low.set(vec![piece(0xc_0000, 0x4_0000, None)]);
        high.set(vec![piece(0xe_0000, 0x2_0000, Some((0x10_0000, Backing::Rom)))]);
        let at = |gpa| map.memory.view().lookup(gpa);
        assert_eq!(at(0xb_ffff), Some((RamOffset(0xb_ffff), Backing::Ram)));
        assert_eq!(at(0xc_0000), None);
        assert_eq!(at(0xf_fff0), Some((RamOffset(0x11_fff0), Backing::Rom)));
        low.set(Vec::new());
        assert_eq!(at(0xc_0000), Some((RamOffset(0xc_0000), Backing::Ram)));
        assert_eq!(at(0xf_fff0), Some((RamOffset(0x11_fff0), Backing::Rom)));
        high.set(Vec::new());
        assert_eq!(at(0xf_fff0), Some((RamOffset(0xf_fff0), Backing::Ram)));
    }

    #[test]
    fn devices_reach_ram_that_is_shown_and_nothing_else() {
        let map = rig();
        let overlay = map.overlay();
        let reach = |gpa| {
            let mut lease = guest_memory::Lease::default();
            lease.begin(&map.memory.dma(), guest_memory::Access::Write);
            lease.add(gpa, 1).is_ok()
        };
        assert!(reach(0xf_0000));
        overlay.set(vec![piece(0xf_0000, 0x1000, Some((0xf_0000, Backing::Rom)))]);
        assert!(!reach(0xf_0000) && reach(0xf_1000));
    }

    #[test]
    fn what_is_cut_out_of_a_range_leaves_what_is_before_and_after() {
        let at = RamOffset(0x1000);
        let range = FlatRange { gpa: 0x4000, size: 0x3000, at, backing: Backing::Ram };
        let rest = |start, end| {
            without(&range, start, end).iter().map(|r| (r.gpa, r.size, r.at.0)).collect::<Vec<_>>()
        };
        let (first, last) = ((0x4000, 0x1000, 0x1000), (0x6000, 0x1000, 0x3000));
        assert_eq!(rest(0x5000, 0x6000), [first, last]);
        assert_eq!(rest(0, 0x6000), [last]);
        assert_eq!(rest(0x5000, 0x9000), [first]);
        assert_eq!(rest(0, 0x4000), [(0x4000, 0x3000, 0x1000)]);
        assert_eq!(rest(0x7000, 0x9000), [(0x4000, 0x3000, 0x1000)]);
        assert!(rest(0x4000, 0x7000).is_empty());
    }
}
