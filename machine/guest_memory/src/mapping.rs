//! Files mapped side by side.
//!
//! UNSAFETY: maps and unmaps host memory; the mapping is handed out as a base pointer whose
//! users check their ranges.
#![allow(unsafe_code, reason = "mapping memory is this module's job")]

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::ptr;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

use crate::{PAGE_SIZE, backing};

/// A huge page's size, to which the host address, the guest's and the offset in the file must be
/// alike, or there are none.
const HUGE_PAGE_SIZE: usize = 2 << 20;

/// Why guest memory cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// No bytes, or not whole pages.
    #[error("memory region '{name}' of {size_bytes} bytes is not a whole number of 4 KiB pages")]
    Size {
        /// The region.
        name: String,
        /// Its size.
        size_bytes: u64,
    },
    /// The host refuses.
    #[error("the host cannot give {size_bytes} bytes for memory region '{name}'")]
    Host {
        /// The region.
        name: String,
        /// Its size.
        size_bytes: u64,
        /// What it says.
        source: io::Error,
    },
}

/// One reservation of host addresses, filled with files without gaps.
pub(crate) struct Mapping {
    base: *mut u8,
    size: usize,
}

// SAFETY: the pointer is to shared memory that lives as long as the value; all accesses through
// it are volatile or atomic (see `word`), never through references.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Reserves addresses, without memory, from where a huge page may begin.
    pub(crate) fn reserve(size: usize) -> io::Result<Self> {
        // SAFETY: a new private mapping without access at an address of the kernel's choice
        // touches nothing that exists; what is unmapped of it nobody else knows.
        unsafe {
            let all: *mut u8 = mmap_anonymous(
                ptr::null_mut(),
                size + HUGE_PAGE_SIZE,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )?
            .cast();
            let before = all.align_offset(HUGE_PAGE_SIZE);
            let base = all.add(before);
            if before > 0 {
                munmap(all.cast(), before)?;
            }
            munmap(base.add(size).cast(), HUGE_PAGE_SIZE - before)?;
            Ok(Self { base, size })
        }
    }

    /// Makes a file of `size` bytes and maps it at `offset` of the reservation.
    pub(crate) fn fill(&self, name: &str, offset: usize, size: usize) -> io::Result<File> {
        assert!(offset.checked_add(size).is_some_and(|end| end <= self.size));
        let fd = backing::file(name, size as u64)?;
        // SAFETY: the range is inside our own reservation (asserted above), and no region was
        // mapped there: `GuestMemory` gives each its own offset.
        unsafe {
            let at = mmap(
                self.base.add(offset).cast(),
                size,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::FIXED | MapFlags::NORESERVE,
                fd.as_fd(),
                0,
            )?;
            // The host may have no huge pages: an advice that is not taken is no error.
            let _ = madvise(at, size, Advice::LinuxHugepage);
            let _ = madvise(at, size, Advice::LinuxDontDump);
        }
        Ok(File::from(fd))
    }

    /// First byte of the reservation.
    pub(crate) fn base(&self) -> *mut u8 {
        self.base
    }

    /// Bytes of the reservation.
    pub(crate) fn size(&self) -> usize {
        self.size
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is ours alone, and users of the pointer hold the value alive.
        let unmapped = unsafe { munmap(self.base.cast(), self.size) };
        debug_assert!(unmapped.is_ok());
    }
}

/// The size in the host's terms.
pub(crate) fn check_size(name: &str, size_bytes: u64) -> Result<usize, MemoryError> {
    usize::try_from(size_bytes)
        .ok()
        .filter(|s| *s > 0 && size_bytes.is_multiple_of(PAGE_SIZE) && *s <= isize::MAX as usize / 2)
        .ok_or_else(|| MemoryError::Size { name: name.to_owned(), size_bytes })
}
