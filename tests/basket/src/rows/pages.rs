//! Page faults and changes of the address space.
//!
//! UNSAFETY: reads and writes memory that it has mapped, within its size.
#![allow(unsafe_code, reason = "mapping memory is what is measured")]

use std::io;
use std::ptr;

use super::{Made, Place, mix};

/// Pages touched in a round: fewer than make a huge one.
pub const PAGES: usize = 256;
const PAGE_BYTES: usize = 4096;

/// Memory of our own, given back at the end.
pub struct Mapping {
    at: *mut u8,
    bytes: usize,
}

impl Mapping {
    /// Maps so many bytes; what may be done with them is `protection`.
    pub fn new(bytes: usize, protection: libc::c_int) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping, where there is none.
        let at = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, -1, 0) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { at: at.cast(), bytes })
    }

    /// The address of a byte.
    pub fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset < self.bytes);
        self.at.wrapping_add(offset)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it is ours, and nothing refers to it any more.
        unsafe { libc::munmap(self.at.cast(), self.bytes) };
    }
}

/// Maps pages, writes to each, unmaps them: how long a page takes.
pub fn fault(_: &Place) -> Made {
    touches(PAGES)
}

/// The same with one page: how long that takes.
pub fn map_touch_unmap(_: &Place) -> Made {
    touches(1)
}

fn touches(pages: usize) -> Made {
    let touch = move |sum| -> io::Result<u64> {
        let mapping = Mapping::new(pages * PAGE_BYTES, libc::PROT_READ | libc::PROT_WRITE)?;
        let mut sum = sum;
        for page in 0..pages {
            let byte = mapping.at(page * PAGE_BYTES + 8 * (page % 100));
            // SAFETY: within the mapping, which can be read and written.
            unsafe {
                sum = mix(sum, u64::from(byte.read_volatile()) + page as u64);
                byte.write_volatile(page as u8 + 1);
                sum = mix(sum, u64::from(byte.read_volatile()));
            }
        }
        Ok(sum)
    };
    Ok(Some(Box::new(move |rounds| {
        // Without memory the sum is of no use, and not the one of other machines.
        (0..rounds).try_fold(0, |sum, _| touch(sum)).unwrap_or(u64::MAX)
    })))
}
