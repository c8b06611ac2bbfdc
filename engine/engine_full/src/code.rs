//! Memory for translated code: one file, mapped twice, never writable and executable at once.
//!
//! UNSAFETY: maps memory, writes it through raw pointers, and names functions by address.
#![allow(unsafe_code, reason = "generated code lives in memory of its own")]

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

use crate::fault::Watched;
use crate::huge::{HUGE_SIZE, HugePages};

/// Bytes. What is translated in a boot is a tenth of it.
pub(crate) const CODE_SIZE: usize = 160 << 20;
/// Where what seldom runs begins: kept apart, it takes no room in the host's caches.
const COLD_START: usize = 96 << 20;

/// A place in code memory, from its start.
pub(crate) type Place = u32;

/// Code memory.
pub(crate) struct CodeMemory {
    write: *mut u8,
    execute: *mut u8,
    used: usize,
    cold_used: usize,
    /// Of what is executed; its thread ends before the mapping goes.
    huge: Option<HugePages>,
    _watched: Watched,
}

// SAFETY: the pointers are to mappings the value owns; writers are serialised by `&mut`.
unsafe impl Send for CodeMemory {}

/// Maps the file at a multiple of [`HUGE_SIZE`].
fn map(file: &File, prot: ProtFlags) -> io::Result<*mut u8> {
    let size = CODE_SIZE + HUGE_SIZE;
    // SAFETY: a new mapping at an address of the kernel's choice, nothing but a place.
    let room =
        unsafe { mmap_anonymous(ptr::null_mut(), size, ProtFlags::empty(), MapFlags::PRIVATE) }?;
    let before = room.addr().next_multiple_of(HUGE_SIZE) - room.addr();
    let flags = MapFlags::SHARED | MapFlags::NORESERVE | MapFlags::FIXED;
    // SAFETY: inside that place, the rest of which is given back. An advice that is not taken is no
    // error.
    unsafe {
        let at = room.byte_add(before);
        let beyond = at.byte_add(CODE_SIZE);
        let mapped = mmap(at, CODE_SIZE, prot, flags, file.as_fd(), 0);
        if before > 0 {
            munmap(room, before)?;
        }
        munmap(beyond, HUGE_SIZE - before)?;
        let _ = madvise(mapped?, CODE_SIZE, Advice::LinuxDontDump);
        Ok(at.cast())
    }
}

impl CodeMemory {
    /// Empty.
    ///
    /// # Errors
    /// When the host refuses.
    pub(crate) fn new() -> io::Result<Self> {
        let file = File::from(memfd_create("translated code", MemfdFlags::CLOEXEC)?);
        ftruncate(&file, CODE_SIZE as u64)?;
        let write = map(&file, ProtFlags::READ | ProtFlags::WRITE)?;
        let execute = map(&file, ProtFlags::READ | ProtFlags::EXEC)?;
        let first = execute as u64;
        let watched = Watched::new(first, first + CODE_SIZE as u64 - 1)?;
        let huge = Some(HugePages::new(first));
        Ok(Self { write, execute, used: 0, cold_used: COLD_START, huge, _watched: watched })
    }

    /// Host address of a place, to be executed.
    pub(crate) fn address(&self, place: Place) -> u64 {
        assert!((place as usize) < CODE_SIZE);
        self.execute as u64 + u64::from(place)
    }

    /// The place of a host address.
    pub(crate) fn place(&self, address: u64) -> Option<Place> {
        let distance = address.wrapping_sub(self.execute as u64);
        (distance < CODE_SIZE as u64).then_some(distance as Place)
    }

    /// Where the next code goes.
    pub(crate) fn next(&self) -> Place {
        self.used as Place
    }

    /// Where the next code goes that seldom runs, behind all other.
    pub(crate) fn next_cold(&self) -> Place {
        self.cold_used as Place
    }

    /// Code that seldom runs is there.
    pub(crate) fn is_cold(place: Place) -> bool {
        place as usize >= COLD_START
    }

    /// There is room for this many bytes of either kind.
    pub(crate) fn has_room(&self, size: usize) -> bool {
        COLD_START - self.used >= size && CODE_SIZE - self.cold_used >= size
    }

    /// Puts code at [`CodeMemory::next`], and more at [`CodeMemory::next_cold`].
    ///
    /// # Panics
    /// When there is no room.
    pub(crate) fn put(&mut self, code: &[u8], cold: &[u8]) {
        assert!(self.has_room(code.len().max(cold.len())));
        self.used = self.copy(code, self.used).min(COLD_START);
        self.cold_used = self.copy(cold, self.cold_used).min(CODE_SIZE);
        if let Some(huge) = &mut self.huge {
            huge.used(self.used);
        }
    }

    /// Returns where what comes next goes.
    fn copy(&self, code: &[u8], at: usize) -> usize {
        let next = (at + code.len()).next_multiple_of(16);
        // SAFETY: the range is inside the mapping, and nothing executes it yet.
        unsafe { ptr::copy_nonoverlapping(code.as_ptr(), self.write.add(at), code.len()) };
        next
    }

    /// Forgets all code from `place` on, and all that seldom runs.
    pub(crate) fn truncate(&mut self, place: Place) {
        self.used = self.used.min(place as usize);
        self.cold_used = COLD_START;
    }

    /// Bytes in use.
    pub(crate) fn bytes(&self) -> usize {
        self.used + self.cold_used - COLD_START
    }

    fn is_used(&self, place: Place) -> bool {
        (place as usize) < if Self::is_cold(place) { self.cold_used } else { self.used }
    }

    /// Changes four bytes that are within eight at a multiple of eight, and may be executing. Returns
    /// what they were.
    pub(crate) fn patch4(&self, place: Place, value: u32) -> u32 {
        let within = place as usize & 7;
        assert!(within <= 4);
        let mut before = [0; 4];
        self.patch8(place & !7, |mut bytes| {
            before.copy_from_slice(&bytes[within..within + 4]);
            bytes[within..within + 4].copy_from_slice(&value.to_le_bytes());
            bytes
        });
        u32::from_le_bytes(before)
    }

    /// Changes the eight bytes at a multiple of eight, which may be executing. Whoever has the cache
    /// does so alone.
    pub(crate) fn patch8(&self, place: Place, change: impl FnOnce([u8; 8]) -> [u8; 8]) {
        assert!(place.is_multiple_of(8) && self.is_used(place));
        // SAFETY: aligned and inside the mapping. Instructions that straddle no more than this word
        // are fetched with either value.
        let word = unsafe { AtomicU64::from_ptr(self.write.add(place as usize).cast()) };
        let bytes = change(word.load(Ordering::Acquire).to_le_bytes());
        word.store(u64::from_le_bytes(bytes), Ordering::Release);
    }
}

impl Drop for CodeMemory {
    fn drop(&mut self) {
        self.huge = None;
        for at in [self.write, self.execute] {
            // SAFETY: ours alone; whoever executes it holds the value.
            let _ = unsafe { munmap(at.cast(), CODE_SIZE) };
        }
    }
}
