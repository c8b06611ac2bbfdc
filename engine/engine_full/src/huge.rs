//! A thread that has the host put translated code into huge pages: large programs miss the CPU's
//! translations of addresses of code more than anything else.
//!
//! The host's call waits for work on each of its CPUs, up to a second where these are busy; no vCPU
//! is to wait with it. Where the host has no such call (before Linux 6.1), pages stay small.
//!
//! UNSAFETY: advises the kernel on memory given by address, which moves it and changes nothing.
#![allow(unsafe_code, reason = "no safe call names memory by address")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

/// Bytes of a huge page.
pub(crate) const HUGE_SIZE: usize = 2 << 20;

/// The thread, for one mapping.
pub(crate) struct HugePages {
    ready: Option<Sender<usize>>,
    thread: Option<JoinHandle<()>>,
    ends: Arc<AtomicBool>,
    /// Bytes from the mapping's beginning that are huge pages, or on the way there.
    done: usize,
}

impl HugePages {
    /// For the mapping at an address, a multiple of [`HUGE_SIZE`], which is there until this value is
    /// dropped.
    pub(crate) fn new(mapping: u64) -> Self {
        let (ready, chunks) = channel();
        let ends = Arc::new(AtomicBool::new(false));
        let has_ended = ends.clone();
        let run = move || {
            for offset in chunks {
                if has_ended.load(Ordering::Relaxed) || !collapse(mapping as usize + offset) {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("huge pages".into()).spawn(run);
        Self { ready: Some(ready), thread: thread.ok(), ends, done: 0 }
    }

    /// This many bytes of the mapping are in use.
    pub(crate) fn used(&mut self, used: usize) {
        while self.done + HUGE_SIZE <= used {
            if let Some(ready) = &self.ready
                && ready.send(self.done).is_err()
            {
                // The host does not do it.
                self.ready = None;
            }
            self.done += HUGE_SIZE;
        }
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        self.ready = None;
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Makes what is at an address one huge page. False where the host does not know how; that it has
/// none to spare is no reason not to ask for the next.
fn collapse(address: usize) -> bool {
    // SAFETY: the advice keeps the contents, whatever is there.
    let result = unsafe { libc::madvise(address as *mut _, HUGE_SIZE, libc::MADV_COLLAPSE) };
    let unknown = Some(libc::EINVAL);
    result == 0 || std::io::Error::last_os_error().raw_os_error() != unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A place for huge pages, which is given back with the process.
    fn mapping(huge_pages: usize) -> *mut u8 {
        let size = (huge_pages + 1) * HUGE_SIZE;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), size, prot, flags, -1, 0) };
        assert_ne!(at, libc::MAP_FAILED);
        at.cast::<u8>().wrapping_add(at.align_offset(HUGE_SIZE))
    }

    #[test]
    fn each_huge_page_is_asked_for_once_and_only_when_it_is_full() {
        let at = mapping(3);
        let mut pages = HugePages::new(at as u64);
        let mut done = Vec::new();
        for used in [0, HUGE_SIZE - 1, HUGE_SIZE, HUGE_SIZE + 1, 3 * HUGE_SIZE, HUGE_SIZE] {
            pages.used(used);
            done.push(pages.done / HUGE_SIZE);
        }
        assert_eq!(done, [0, 0, 1, 1, 3, 3]);
    }

    #[test]
    fn contents_stay_while_pages_become_huge_ones() {
        let at = mapping(2);
        for offset in (0..2 * HUGE_SIZE).step_by(4096) {
            // SAFETY: inside the mapping, which is nobody else's.
            unsafe { at.add(offset).write((offset >> 12) as u8) };
        }
        let mut pages = HugePages::new(at as u64);
        pages.used(2 * HUGE_SIZE);
        // Waits for what has begun.
        drop(pages);
        for offset in (0..2 * HUGE_SIZE).step_by(4096) {
            // SAFETY: as above.
            assert_eq!(unsafe { at.add(offset).read() }, (offset >> 12) as u8);
        }
    }
}
