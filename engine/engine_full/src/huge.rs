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
