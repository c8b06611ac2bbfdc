//! One half of one array: entries by page number, of which only touched ones take memory.
//!
//! UNSAFETY: writes entries through raw pointers into a mapping of the view's.
#![allow(unsafe_code, reason = "the arrays are shared with generated code")]

use std::ptr;

use rustix::mm::{Advice, madvise};

use super::HALF;
use crate::resident::Resident;

/// Pages of one half of one array (2 MiB of guest addresses each) before all are given back.
const RESIDENT_MAX: usize = 4096;

/// One half of one array, where it may be written.
pub(super) struct Half {
    pub(super) entries: *mut u64,
    resident: Resident,
}

impl Half {
    pub(super) fn new(entries: *mut u64) -> Self {
        Self { entries, resident: Resident::new(HALF / 4096) }
    }

    pub(super) fn place(&self, page: u64) -> *mut u64 {
        let index = (page & ((HALF as u64 / 8) - 1)) as usize;
        // SAFETY: the masked index is inside the half.
        unsafe { self.entries.add(index) }
    }

    pub(super) fn set(&mut self, page: u64, distance: u64) {
        let place = self.place(page);
        self.note(page, true);
        // SAFETY: `place` is inside the half, which is mapped as long as `self` lives; translated
        // code reads whole words.
        unsafe { place.write_volatile(distance) };
    }

    pub(super) fn get(&self, page: u64) -> Option<u64> {
        if !self.resident.contains((page & (HALF as u64 / 8 - 1)) as usize / 512) {
            return None;
        }
        // SAFETY: as in `set`.
        let distance = unsafe { self.place(page).read_volatile() };
        (distance != 0).then_some(distance)
    }

    pub(super) fn clear(&self, page: u64) {
        // An entry that was never filled is not touched into existence.
        if self.get(page).is_some() {
            // SAFETY: as in `set`.
            unsafe { self.place(page).write_volatile(0) };
        }
    }

    /// Translated code has looked at this page's entry.
    pub(super) fn note(&mut self, page: u64, filled: bool) {
        let index = (page & (HALF as u64 / 8 - 1)) as usize / 512;
        if self.resident.note(index, filled) > RESIDENT_MAX {
            self.release();
            self.resident.note(index, filled);
        }
    }

    /// Bytes of memory it takes, at most.
    pub(super) fn bytes(&self) -> usize {
        self.resident.count() * 4096
    }

    /// Drops every entry.
    pub(super) fn flush(&mut self) {
        for index in self.resident.take_filled() {
            // SAFETY: `index` is a page of the half.
            unsafe { ptr::write_bytes(self.entries.add(index as usize * 512), 0, 512) };
        }
    }

    pub(super) fn release(&mut self) {
        self.resident.clear();
        // SAFETY: the half is ours; what is dropped reads as zero.
        unsafe {
            let removed = madvise(self.entries.cast(), HALF, Advice::LinuxRemove);
            if removed.is_err() {
                let _ = madvise(self.entries.cast(), HALF, Advice::LinuxDontNeed);
            }
        }
    }
}
