//! The pages of one address space as the host's own: a *window* of 4 GiB in which a page is mapped at
//! the low 32 bits of its guest address, and a *mark* a page that says whether user code may go
//! there.
//!
//! The window is a prediction and the marks are the check. A page is mapped where it was when that was
//! done, and stays so when the guest maps something else; then its marks are gone, and nobody is sent
//! there. Pages whose addresses have the same low 32 bits get a place one after the other: who comes
//! later has no marks.
//!
//! A mark allows accesses to the page *and both beside it*: an address less than a page away
//! from one that was looked at needs no look of its own. What is beside it is either as good, or it
//! cannot be accessed in that way at all: then the host's fault has the interpreter do it.
//!
//! Of each page there are two marks, for loads and for stores, at twice its number from the GS base; the
//! FS base is the window. Below the GS base is what is below each view.
//!
//! *Invariant*: a page is marked only while the flat map has its entry, and the window the page the
//! entry leads to.
//!
//! UNSAFETY: writes marks through raw pointers into a mapping of its own.
#![allow(unsafe_code, reason = "the marks are shared with generated code")]

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::hash::BuildHasherDefault;
use std::{io, ptr};

use guest_memory::GuestMemory;
use rustix::mm::{Advice, ProtFlags, madvise};

use super::half::Half;
use super::reservation::Reservation;
use super::{BELOW, CONTEXT_SIZE, Tables};
use crate::cache::KeyHasher;

/// The mark of a page that may be accessed: an address of user code, shifted right by so much, is
/// zero. Any other, shifted by no mark, is not; but address zero, where nothing is ever mapped.
const GOOD: u8 = 47;
/// How far from an address that was looked at those are that need no look.
pub(crate) const REACH: i64 = PAGE as i64;

const PAGE: usize = 4096;
/// Pages of user code's half of the addresses.
const PAGES: u64 = 1 << 35;
/// Bytes of the marks.
const MARKS: usize = 2 * PAGES as usize;
const WINDOW: usize = 1 << 32;
const SLOTS: u64 = (WINDOW / PAGE) as u64;
/// Nothing is there, around the window; and the alignment of the host's huge pages.
const GUARD: usize = 2 << 20;

/// What is mapped at a place of the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    /// Number of the guest's page.
    page: u64,
    /// Where the host has it; zero, when nothing is mapped.
    at: u64,
    writable: bool,
    /// It was accessed from the page beside, which was not what it is for: that is to look, too.
    blocked: bool,
}

/// Of one address space.
pub(crate) struct Mirror {
    reservation: Reservation,
    window: usize,
    slots: HashMap<u32, Slot, BuildHasherDefault<KeyHasher>>,
    /// Pages of the marks that were written to.
    marked: HashSet<u64, BuildHasherDefault<KeyHasher>>,
    /// Calls for mappings: there are no more of them than two each.
    pub(super) mappings: usize,
}

fn slot_of(page: u64) -> u32 {
    (page & (SLOTS - 1)) as u32
}

impl Mirror {
    /// Of nothing yet, with this context below.
    ///
    /// # Errors
    /// When the host refuses.
    pub(super) fn new(context: &File, miss: u64) -> io::Result<Self> {
        let reservation = Reservation::new(BELOW + MARKS + 2 * GUARD + WINDOW + GUARD)?;
        let own = BELOW - CONTEXT_SIZE;
        let read_write = ProtFlags::READ | ProtFlags::WRITE;
        reservation.fill(0, own, read_write)?;
        reservation.share(own, CONTEXT_SIZE, context)?;
        reservation.fill(BELOW, MARKS, read_write)?;
        let window = (reservation.start + BELOW + MARKS + GUARD).next_multiple_of(GUARD);
        let (slots, marked) = Default::default();
        let mirror = Self { reservation, window, slots, marked, mappings: 0 };
        mirror.tables().clear(miss);
        Ok(mirror)
    }

    /// GS and FS base.
    pub(super) fn bases(&self) -> [u64; 2] {
        [(self.reservation.start + BELOW) as u64, self.window as u64]
    }

    pub(super) fn tables(&self) -> Tables {
        Tables(self.reservation.start)
    }

    /// Bytes of memory it takes but for its tables of jumps, at most.
    pub(super) fn bytes(&self) -> usize {
        let slot = size_of::<(u32, Slot)>() + size_of::<u64>();
        self.marked.len() * PAGE + self.slots.capacity() * slot
    }

    fn mark_at(&self, page: u64, array: usize) -> *mut u8 {
        let index = 2 * (page & (PAGES - 1)) as usize + array;
        (self.reservation.start + BELOW + index) as *mut u8
    }

    fn set_mark(&mut self, page: u64, array: usize, good: bool) {
        let of_marks = page >> 11;
        if good {
            self.marked.insert(of_marks);
        } else if !self.marked.contains(&of_marks) {
            return;
        }
        // SAFETY: inside the marks, which are mapped as long as `self` lives. Translated code reads
        // single bytes.
        unsafe { self.mark_at(page, array).write_volatile(if good { GOOD } else { 0 }) };
    }

    /// The window has what the entry leads to.
    fn is_good(&self, page: u64, array: usize, halves: &[Half; 2]) -> bool {
        let Some(slot) = self.slots.get(&slot_of(page)) else { return false };
        let entry = || halves[array].get(page).map(|distance| (page << 12).wrapping_add(distance));
        slot.page == page && (array == 0 || slot.writable) && entry() == Some(slot.at)
    }

    /// Who accesses the page from the one beside does so as is right, or faults.
    fn is_harmless(&self, page: u64, array: usize, halves: &[Half; 2]) -> bool {
        match self.slots.get(&slot_of(page)) {
            None => true,
            Some(slot) if slot.blocked => false,
            Some(slot) if array == 1 && !slot.writable => true,
            Some(_) => page < PAGES && self.is_good(page, array, halves),
        }
    }

    /// Marks a page and those beside it by what the entries are now.
    pub(super) fn refresh(&mut self, page: u64, halves: &[Half; 2]) {
        for page in [page.wrapping_sub(1), page, page.wrapping_add(1)] {
            if page >= PAGES {
                continue;
            }
            for array in [0, 1] {
                let beside = [page.wrapping_sub(1), page + 1];
                let good = self.is_good(page, array, halves)
                    && beside.iter().all(|page| self.is_harmless(*page, array, halves));
                self.set_mark(page, array, good);
            }
        }
    }

    /// The window may have another page at the place of this one.
    pub(super) fn has_mapped(&self, page: u64) -> bool {
        self.slots.get(&slot_of(page)).is_some_and(|slot| slot.page == page && slot.at != 0)
    }

    /// The page's entry is dropped: of the stores, or both.
    pub(super) fn clear(&mut self, page: u64, stores_only: bool) {
        if !self.has_mapped(page) {
            return;
        }
        for page in [page.wrapping_sub(1), page, page + 1].into_iter().filter(|p| *p < PAGES) {
            for array in usize::from(stores_only)..2 {
                self.set_mark(page, array, false);
            }
        }
    }

    /// All entries are dropped: of the stores, or both.
    pub(super) fn flush(&mut self, stores_only: bool) {
        for of_marks in &self.marked {
            let marks = self.mark_at(of_marks << 11, 0);
            if stores_only {
                // SAFETY: the page is inside the marks.
                let marks = unsafe { std::slice::from_raw_parts_mut(marks, PAGE) };
                marks.iter_mut().skip(1).step_by(2).for_each(|mark| *mark = 0);
            } else {
                // SAFETY: as above.
                unsafe { ptr::write_bytes(marks, 0, PAGE) };
            }
        }
    }

    /// The same, and gives their memory back.
    pub(super) fn release(&mut self) {
        self.flush(false);
        self.marked.clear();
        let marks = (self.reservation.start + BELOW) as *mut _;
        // SAFETY: the marks are ours; what is dropped reads as zero.
        let _ = unsafe { madvise(marks, MARKS, Advice::LinuxDontNeed) };
    }

    /// Maps all pages that have entries, as far as so many calls go.
    pub(super) fn map_all(&mut self, halves: &[Half; 2], memory: &GuestMemory, calls: usize) {
        let wanted = |(page, _): (u64, u64)| Self::wanted(page, halves);
        let mut slots: Vec<Slot> = halves[0].filled().filter_map(wanted).collect();
        slots.sort_unstable_by_key(|slot| slot.page);
        let most = self.mappings + calls;
        for run in slots.chunk_by(follows) {
            if self.mappings < most {
                self.map(run, memory);
            }
        }
        for slot in &slots {
            self.refresh(slot.page, halves);
        }
    }

    /// Maps a page as its entry says, and has what is beside it do no harm. False, when another page
    /// has its place, or the host refuses.
    pub(super) fn map_one(&mut self, page: u64, halves: &[Half; 2], memory: &GuestMemory) -> bool {
        let done = self.settle(page, halves, memory);
        if done {
            for beside in [page.wrapping_sub(1), page + 1].into_iter().filter(|p| *p < PAGES) {
                self.settle(beside, halves, memory);
            }
        }
        for near in [page.wrapping_sub(1), page, page + 1] {
            self.refresh(near, halves);
        }
        done && self.is_good(page, 0, halves)
    }

    /// The page of guest memory that an access to a host address of the window was for, if that is one
    /// beside a page that is marked.
    pub(super) fn page_beside(&self, address: u64) -> Option<u64> {
        let offset = address.wrapping_sub(self.window as u64);
        let slot = (offset / PAGE as u64) as u32;
        if offset >= WINDOW as u64 {
            return None;
        }
        let owner = |slot: u32| self.slots.get(&(slot & (SLOTS - 1) as u32)).map(|slot| slot.page);
        // Of what cannot be written to.
        let own = owner(slot);
        own.or_else(|| owner(slot.wrapping_sub(1)).map(|page| page + 1))
            .or_else(|| owner(slot + 1).map(|page| page.wrapping_sub(1)))
            .filter(|page| *page < PAGES)
    }

    /// Who accesses the page from the one beside is to look at it.
    pub(super) fn block(&mut self, page: u64, halves: &[Half; 2]) {
        let nothing = Slot { page, at: 0, writable: false, blocked: false };
        self.slots.entry(slot_of(page)).or_insert(nothing).blocked = true;
        self.refresh(page, halves);
    }

    /// What is to be mapped of a page.
    fn wanted(page: u64, halves: &[Half; 2]) -> Option<Slot> {
        let at = (page << 12).wrapping_add(halves[0].get(page)?);
        Some(Slot { page, at, writable: halves[1].get(page).is_some(), blocked: false })
    }

    fn settle(&mut self, page: u64, halves: &[Half; 2], memory: &GuestMemory) -> bool {
        let there = self.slots.get(&slot_of(page)).copied();
        match (Self::wanted(page, halves), there) {
            (None, Some(slot)) if slot.page == page && slot.at != 0 => self.unmap(page),
            (None, _) => true,
            (Some(wanted), Some(slot)) if wanted == slot => true,
            (Some(_), Some(slot)) if slot.page != page && halves[0].get(slot.page).is_some() => {
                false
            }
            (Some(wanted), old) => {
                let mapped = self.map(&[wanted], memory);
                if let Some(old) = old.filter(|old| old.page != page) {
                    self.refresh(old.page, halves);
                }
                mapped
            }
        }
    }

    fn offset(&self, page: u64) -> usize {
        self.window - self.reservation.start + slot_of(page) as usize * PAGE
    }

    /// Maps pages in a row; not those whose place another one of the run's neighbours has.
    fn map(&mut self, run: &[Slot], memory: &GuestMemory) -> bool {
        let Some(first) = run.first() else { return true };
        // Where an address that is zero leads to, and what is before and behind the window.
        let last = run.len() as u64 - 1 + u64::from(slot_of(first.page));
        if slot_of(first.page) == 0 || last >= SLOTS - 1 {
            return false;
        }
        let Some(from) = place_in_file(first.at, run.len(), memory) else { return false };
        let size = run.len() * PAGE;
        if self.reservation.map(self.offset(first.page), size, from, first.writable).is_err() {
            return false;
        }
        self.mappings += 1;
        for slot in run {
            self.slots.insert(slot_of(slot.page), *slot);
        }
        true
    }

    fn unmap(&mut self, page: u64) -> bool {
        let done = self.reservation.unmap(self.offset(page), PAGE).is_ok();
        if done {
            self.slots.remove(&slot_of(page));
        }
        done
    }
}

/// One is to be mapped where the other ends.
fn follows(a: &Slot, b: &Slot) -> bool {
    b.page == a.page + 1
        && b.at == a.at + PAGE as u64
        && a.writable == b.writable
        && slot_of(b.page) > slot_of(a.page)
}

/// Which file has these pages of guest memory, and where.
fn place_in_file(at: u64, pages: usize, memory: &GuestMemory) -> Option<(&File, u64)> {
    let offset = at.checked_sub(memory.host_base() as u64)?;
    let size = (pages * PAGE) as u64;
    let mut regions = memory.regions().iter();
    let region = regions
        .find(|region| region.at.0 <= offset && offset + size <= region.at.0 + region.size_bytes)?;
    Some((&region.file, offset - region.at.0))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{Selector, Views};
    use super::*;

    const PROGRAM: u64 = 0x5555_0123_4000;
    const SPACE: u64 = 0x1000;

    struct Guest {
        views: Views,
        memory: Arc<GuestMemory>,
    }

    impl Guest {
        fn new() -> Self {
            let (mut views, _) = Views::new(1, [2, 3], 1).unwrap();
            views.select(0, SPACE, false);
            Self { views, memory: GuestMemory::new(&[("ram", 64 << 12)]).unwrap() }
        }

        /// The guest has this page of memory at this address.
        fn fill(&mut self, linear: u64, page: u64, write: bool) {
            let host = self.memory.host_base() as u64 + (page << 12);
            for write in [false, true].into_iter().take(1 + usize::from(write)) {
                self.views.fill(linear, write, host.wrapping_sub(linear), false);
            }
        }

        fn make_mirror(&mut self) {
            self.views.make_mirror(&self.memory).unwrap();
        }

        /// Whether a program may read and write there by the mirror.
        fn marks(&self, linear: u64) -> [bool; 2] {
            let Some(mirror) = &self.views.spaces[self.views.current].mirror else {
                return [false; 2];
            };
            // SAFETY: the marks of a page of user code are mapped.
            [0, 1].map(|array| unsafe { mirror.mark_at(linear >> 12, array).read() } == GOOD)
        }

        /// The first byte of what the window has there.
        fn seen(&self, linear: u64) -> u8 {
            let at = self.views.user_bases()[1] + (linear & 0xffff_ffff);
            // SAFETY: the test has had a page mapped there.
            unsafe { (at as *const u8).read() }
        }
    }

    #[test]
    fn a_mark_is_there_as_long_as_its_entry() {
        let mut guest = Guest::new();
        guest.fill(PROGRAM, 7, true);
        guest.memory.write(guest_memory::RamOffset(7 << 12), &[77]);
        guest.make_mirror();
        assert_eq!((guest.marks(PROGRAM), guest.seen(PROGRAM)), ([true, true], 77));
        // The page begins to be watched.
        guest.views.drop_entry(guest.views.write_entry(PROGRAM));
        assert_eq!(guest.marks(PROGRAM), [true, false]);
        guest.fill(PROGRAM, 7, true);
        assert_eq!(guest.marks(PROGRAM), [true, true]);
        guest.views.flush_stores();
        assert_eq!(guest.marks(PROGRAM), [true, false]);
        for drop in [
            |views: &mut Views| views.invalidate(PROGRAM, 12),
            |views: &mut Views| views.invalidate(PROGRAM, 30),
            |views: &mut Views| views.flush_local(),
            |views: &mut Views| _ = views.flush_pcid(0),
            |views: &mut Views| _ = views.select(0, SPACE, false),
        ] {
            guest.fill(PROGRAM, 7, true);
            assert_eq!(guest.marks(PROGRAM), [true, true]);
            drop(&mut guest.views);
            assert_eq!(guest.marks(PROGRAM), [false, false]);
        }
    }

    #[test]
    fn a_page_that_moves_has_no_mark_until_it_is_mapped_again() {
        let mut guest = Guest::new();
        guest.fill(PROGRAM, 7, false);
        guest.make_mirror();
        guest.views.invalidate(PROGRAM, 12);
        guest.memory.write(guest_memory::RamOffset(8 << 12), &[88]);
        guest.fill(PROGRAM, 8, false);
        assert_eq!(guest.marks(PROGRAM), [false, false]);
        assert!(guest.views.mirror_page(PROGRAM, &guest.memory));
        assert_eq!((guest.marks(PROGRAM), guest.seen(PROGRAM)), ([true, false], 88));
    }

    #[test]
    fn a_store_to_the_page_beside_one_that_is_watched_is_looked_at() {
        let mut guest = Guest::new();
        let pages = [PROGRAM, PROGRAM + 0x1000, PROGRAM + 0x2000, PROGRAM + 0x3000];
        for (at, page) in pages.into_iter().zip(7..) {
            guest.fill(at, page, true);
        }
        guest.make_mirror();
        assert_eq!(pages.map(|at| guest.marks(at)), [[true; 2]; 4]);
        guest.views.drop_entry(guest.views.write_entry(pages[0]));
        let marks = pages.map(|at| guest.marks(at));
        assert_eq!(marks, [[true, false], [true, false], [true, true], [true, true]]);
        // Once the host's page cannot be stored to, who gets there faults.
        assert!(guest.views.mirror_page(pages[0], &guest.memory));
        let marks = pages.map(|at| guest.marks(at));
        assert_eq!(marks, [[true, false], [true, true], [true, true], [true, true]]);
        guest.views.block_mirror(pages[0]);
        assert_eq!(guest.marks(pages[1]), [false, false]);
    }

    #[test]
    fn of_two_pages_with_one_place_the_second_has_no_mark() {
        let mut guest = Guest::new();
        let other = PROGRAM + (3 << 32);
        guest.fill(PROGRAM, 7, true);
        guest.make_mirror();
        guest.fill(other, 8, true);
        assert!(!guest.views.mirror_page(other, &guest.memory));
        assert_eq!((guest.marks(PROGRAM), guest.marks(other)), ([true; 2], [false; 2]));
        guest.views.invalidate(PROGRAM, 12);
        assert!(guest.views.mirror_page(other, &guest.memory));
        assert_eq!((guest.marks(PROGRAM), guest.marks(other)), ([false; 2], [true; 2]));
    }

    #[test]
    fn nothing_is_where_address_zero_leads_to() {
        let mut guest = Guest::new();
        let pages = [0x7000_0000_0000, 0x6fff_ffff_f000, 0x7000_0000_1000];
        for (at, page) in pages.into_iter().zip(7..) {
            guest.fill(at, page, true);
        }
        guest.make_mirror();
        assert_eq!(pages.map(|at| guest.marks(at)), [[false; 2], [false; 2], [true; 2]]);
    }

    #[test]
    fn the_mirror_goes_with_its_address_space() {
        let mut guest = Guest::new();
        guest.fill(PROGRAM, 7, true);
        guest.make_mirror();
        let flat = guest.views.bases(Selector::Space);
        assert_ne!(guest.views.user_bases(), flat);
        guest.views.select(0, SPACE, true);
        assert_ne!(guest.views.user_bases(), flat);
        guest.views.select(0, 0x2000, false);
        assert!(!guest.views.has_mirror());
        assert_eq!(guest.views.user_bases(), flat);
    }
}
