//! Memory that what has been done took, and what is to be done does not.
//!
//! UNSAFETY: unmaps pages of this program's file by address.
#![allow(unsafe_code, reason = "no safe call names memory by address")]

use std::ffi::c_void;

use rustix::mm::{Advice, madvise};

// The linker's, around all that is mapped without leave to write (ld(1), "PROVIDE" in its scripts).
unsafe extern "C" {
    static __executable_start: u8;
    static etext: u8;
}

/// Bytes of a page.
const PAGE: usize = 4096;

/// Unmaps this program's code and constants. What runs on comes back from the page cache by faults;
/// what ran only once does not count as this process's memory any more.
pub fn forget_program() {
    let (begin, end) = (&raw const __executable_start as usize, &raw const etext as usize);
    let begin = begin & !(PAGE - 1);
    let Some(len) = (end & !(PAGE - 1)).checked_sub(begin) else { return };
    // SAFETY: between these symbols are the file's headers, constants and code, mapped privately and
    // never written to (a static program relocates only what lies behind): each page is read from
    // the file again, the same as before. Where that is not so, the kernel refuses.
    let _ = unsafe { madvise(begin as *mut c_void, len, Advice::LinuxDontNeed) };
}
