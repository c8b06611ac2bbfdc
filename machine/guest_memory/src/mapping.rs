//! memfds mapped side by side.
//!
//! UNSAFETY: maps and unmaps host memory; the mapping is handed out as a base pointer whose
//! users check their ranges.
#![allow(unsafe_code, reason = "mapping memory is this module's job")]

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::ptr;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

use crate::PAGE_SIZE;

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

/// One reservation of host addresses, filled with memfds without gaps.
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
    /// Reserves addresses, without memory.
    pub(crate) fn reserve(size: usize) -> io::Result<Self> {
        // SAFETY: a new private mapping without access at an address of the kernel's choice
        // touches nothing that exists.
        let base = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                size,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }?;
        Ok(Self { base: base.cast(), size })
    }

    /// Makes a memfd of `size` bytes and maps it at `offset` of the reservation.
    pub(crate) fn fill(&self, name: &str, offset: usize, size: usize) -> io::Result<File> {
        assert!(offset.checked_add(size).is_some_and(|end| end <= self.size));
        let fd = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&fd, size as u64)?;
        // A file that shrank under its mapping would turn accesses into SIGBUS.
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
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
            // Huge pages make the difference between hundreds and tens of thousands of faults in
            // a boot. The host may not have them: an advice that is not taken is no error.
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
