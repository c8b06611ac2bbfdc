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

/// Bytes at most, where nobody says otherwise. What is translated in a boot is a tenth of it.
pub const CODE_SIZE: usize = 160 << 20;
/// Parts of it whose code is dropped together.
pub(crate) const GENERATIONS: usize = 8;
/// Bytes of a part are a multiple of this: three fifths for what often runs, the rest for what seldom
/// does.
const STEP: usize = 5 << 12;
/// Room for one unit, of either kind of code.
pub(crate) const UNIT_SIZE_MAX: usize = 64 << 10;
/// Bytes at the beginning that no generation has.
const STUBS_SIZE: usize = 4096;

/// A place in code memory, from its start.
pub(crate) type Place = u32;

/// Code memory.
pub(crate) struct CodeMemory {
    write: *mut u8,
    execute: *mut u8,
    size: usize,
    /// Bytes of a generation: of what often runs and of what seldom does.
    shares: [usize; 2],
    /// The generation that grows.
    current: usize,
    /// Of what often runs, and of what seldom does: where the next goes.
    used: [usize; 2],
    /// By generation, the most bytes it has had: they stay this machine's.
    touched: [usize; GENERATIONS],
    /// Of what is executed; its thread ends before the mapping goes.
    huge: Option<HugePages>,
    _watched: Watched,
}

// SAFETY: the pointers are to mappings the value owns; writers are serialised by `&mut`.
unsafe impl Send for CodeMemory {}

/// Maps the file at a multiple of [`HUGE_SIZE`].
fn map(file: &File, size: usize, prot: ProtFlags) -> io::Result<*mut u8> {
    let place = size + HUGE_SIZE;
    // SAFETY: a new mapping at an address of the kernel's choice, nothing but a place.
    let room =
        unsafe { mmap_anonymous(ptr::null_mut(), place, ProtFlags::empty(), MapFlags::PRIVATE) }?;
    let before = room.addr().next_multiple_of(HUGE_SIZE) - room.addr();
    let flags = MapFlags::SHARED | MapFlags::NORESERVE | MapFlags::FIXED;
    // SAFETY: inside that place, the rest of which is given back. An advice that is not taken is no
    // error.
    unsafe {
        let at = room.byte_add(before);
        let beyond = at.byte_add(size);
        let mapped = mmap(at, size, prot, flags, file.as_fd(), 0);
        if before > 0 {
            munmap(room, before)?;
        }
        munmap(beyond, HUGE_SIZE - before)?;
        let _ = madvise(mapped?, size, Advice::LinuxDontDump);
        Ok(at.cast())
    }
}

impl CodeMemory {
    /// Empty, of about so many bytes, but of two units' room in each generation at least.
    ///
    /// # Errors
    /// When the host refuses.
    pub(crate) fn new(bytes: usize) -> io::Result<Self> {
        let least = (2 * UNIT_SIZE_MAX).div_ceil(STEP / 5 * 2);
        let steps = (bytes.min(CODE_SIZE) / GENERATIONS / STEP).max(least);
        let shares = [STEP / 5 * 3 * steps, STEP / 5 * 2 * steps];
        let size = STUBS_SIZE + GENERATIONS * STEP * steps;
        let file = File::from(memfd_create("translated code", MemfdFlags::CLOEXEC)?);
        ftruncate(&file, size as u64)?;
        let write = map(&file, size, ProtFlags::READ | ProtFlags::WRITE)?;
        let execute = map(&file, size, ProtFlags::READ | ProtFlags::EXEC)?;
        let first = execute as u64;
        let watched = Watched::new(first, first + size as u64 - 1)?;
        let huge = Some(HugePages::new(first));
        let (current, touched) = (0, [0; GENERATIONS]);
        // The stubs first.
        let used = [0, 0];
        Ok(Self { write, execute, size, shares, current, used, touched, huge, _watched: watched })
    }

    /// Puts code that no generation has, before all other. Returns its place.
    ///
    /// # Panics
    /// When there is no room.
    pub(crate) fn put_stub(&mut self, code: &[u8]) -> Place {
        let place = self.used[0];
        self.used[0] = self.copy(code, place);
        assert!(self.used[0] <= STUBS_SIZE);
        place as Place
    }

    /// Where a generation begins: what often runs, and what seldom does. The latter is kept apart, so that
    /// it takes no room in the host's caches.
    fn begin_of(&self, generation: usize) -> [usize; 2] {
        let cold = STUBS_SIZE + GENERATIONS * self.shares[0];
        [STUBS_SIZE + generation * self.shares[0], cold + generation * self.shares[1]]
    }

    /// The generation of a place.
    pub(crate) fn generation_of(&self, place: Place) -> Option<usize> {
        let [first, cold] = self.begin_of(0);
        let place = place as usize;
        let (from, share) =
            if place < cold { (first, self.shares[0]) } else { (cold, self.shares[1]) };
        Some(place.checked_sub(from)? / share).filter(|generation| *generation < GENERATIONS)
    }

    /// Code goes to this generation from now on, in place of what it has.
    pub(crate) fn begin(&mut self, generation: usize) {
        self.current = generation;
        self.used = self.begin_of(generation);
    }

    /// The generation code goes to.
    pub(crate) fn current(&self) -> usize {
        self.current
    }

    /// The one after it.
    pub(crate) fn following(&self) -> usize {
        (self.current + 1) % GENERATIONS
    }

    /// Host address of a place, to be executed.
    pub(crate) fn address(&self, place: Place) -> u64 {
        assert!((place as usize) < self.size);
        self.execute as u64 + u64::from(place)
    }

    /// The place of a host address.
    pub(crate) fn place(&self, address: u64) -> Option<Place> {
        let distance = address.wrapping_sub(self.execute as u64);
        (distance < self.size as u64).then_some(distance as Place)
    }

    /// Where the next code goes.
    pub(crate) fn next(&self) -> Place {
        self.used[0] as Place
    }

    /// Where the next code goes that seldom runs.
    pub(crate) fn next_cold(&self) -> Place {
        self.used[1] as Place
    }

    /// Code that seldom runs is there.
    pub(crate) fn is_cold(&self, place: Place) -> bool {
        place as usize >= self.begin_of(0)[1]
    }

    /// The generation that grows has room for another unit.
    pub(crate) fn has_room(&self) -> bool {
        let begins = self.begin_of(self.current);
        (0..2).all(|kind| begins[kind] + self.shares[kind] - self.used[kind] >= UNIT_SIZE_MAX)
    }

    /// Puts code at [`CodeMemory::next`], and more at [`CodeMemory::next_cold`].
    ///
    /// # Panics
    /// When there is no room.
    pub(crate) fn put(&mut self, code: &[u8], cold: &[u8]) {
        assert!(self.has_room() && code.len().max(cold.len()) <= UNIT_SIZE_MAX);
        self.used = [self.copy(code, self.used[0]), self.copy(cold, self.used[1])];
        let begins = self.begin_of(self.current);
        let has = self.used[0] - begins[0] + self.used[1] - begins[1];
        let touched = &mut self.touched[self.current];
        *touched = has.max(*touched);
        if let Some(huge) = &mut self.huge {
            huge.used(self.used[0]);
        }
    }

    /// Returns where what comes next goes.
    fn copy(&self, code: &[u8], at: usize) -> usize {
        assert!(at + code.len() <= self.size);
        // SAFETY: the range is inside the mapping, and nothing executes it yet.
        unsafe { ptr::copy_nonoverlapping(code.as_ptr(), self.write.add(at), code.len()) };
        (at + code.len()).next_multiple_of(16)
    }

    /// Bytes of memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        STUBS_SIZE + self.touched.iter().sum::<usize>()
    }

    /// Four bytes that are within eight at a multiple of eight.
    pub(crate) fn read4(&self, place: Place) -> u32 {
        let within = place as usize & 7;
        assert!(within <= 4 && place as usize + 4 <= self.size);
        let bytes = self.word(place & !7).load(Ordering::Acquire).to_le_bytes();
        u32::from_le_bytes([0, 1, 2, 3].map(|i| bytes[within + i]))
    }

    /// The eight bytes at a multiple of eight, which may be executing.
    fn word(&self, place: Place) -> &AtomicU64 {
        assert!(place.is_multiple_of(8) && place as usize + 8 <= self.size);
        // SAFETY: aligned and inside the mapping, which lives as long as `self`.
        unsafe { AtomicU64::from_ptr(self.write.add(place as usize).cast()) }
    }

    /// Changes four bytes that are within eight at a multiple of eight, and may be executing.
    pub(crate) fn patch4(&self, place: Place, value: u32) {
        let within = place as usize & 7;
        assert!(within <= 4);
        self.patch8(place & !7, |mut bytes| {
            bytes[within..within + 4].copy_from_slice(&value.to_le_bytes());
            bytes
        });
    }

    /// Changes the eight bytes at a multiple of eight, which may be executing: instructions that straddle
    /// no more than this word are fetched with either value. Whoever has the cache does so alone.
    pub(crate) fn patch8(&self, place: Place, change: impl FnOnce([u8; 8]) -> [u8; 8]) {
        let word = self.word(place);
        let bytes = change(word.load(Ordering::Acquire).to_le_bytes());
        word.store(u64::from_le_bytes(bytes), Ordering::Release);
    }
}

impl Drop for CodeMemory {
    fn drop(&mut self) {
        self.huge = None;
        for at in [self.write, self.execute] {
            // SAFETY: ours alone; whoever executes it holds the value.
            let _ = unsafe { munmap(at.cast(), self.size) };
        }
    }
}
