//! Addresses of this process, set aside and filled piece by piece.
//!
//! UNSAFETY: maps and unmaps memory inside of what it has reserved, which is its own alone.
#![allow(unsafe_code, reason = "mapping memory is this module's job")]

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::ptr;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

/// Addresses reserved, and unmapped in the end.
pub(super) struct Reservation {
    pub(super) start: usize,
    size: usize,
}

impl Reservation {
    pub(super) fn new(size: usize) -> io::Result<Self> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping without access at an address of the kernel's choice.
        let at = unsafe { mmap_anonymous(ptr::null_mut(), size, ProtFlags::empty(), flags) }?;
        Ok(Self { start: at as usize, size })
    }

    /// Zeros that appear when touched.
    pub(super) fn fill(&self, offset: usize, size: usize, prot: ProtFlags) -> io::Result<()> {
        assert!(offset + size <= self.size);
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
        // SAFETY: inside the reservation, which is ours alone.
        unsafe {
            let at = mmap_anonymous((self.start + offset) as *mut _, size, prot, flags)?;
            // A huge page for each 8 bytes written would be a waste.
            let _ = madvise(at, size, Advice::LinuxNoHugepage);
            let _ = madvise(at, size, Advice::LinuxDontDump);
        }
        Ok(())
    }

    /// The file's first `size` bytes, shared with every other place they are mapped.
    pub(super) fn share(&self, offset: usize, size: usize, file: &File) -> io::Result<()> {
        assert!(offset + size <= self.size);
        let flags = MapFlags::SHARED | MapFlags::NORESERVE | MapFlags::FIXED;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: inside the reservation, which is ours alone.
        unsafe {
            let at = mmap((self.start + offset) as *mut _, size, prot, flags, file.as_fd(), 0)?;
            let _ = madvise(at, size, Advice::LinuxDontDump);
        }
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: ours alone, and no translated code runs when its vCPU is dropped.
        let _ = unsafe { munmap(self.start as *mut _, self.size) };
    }
}
