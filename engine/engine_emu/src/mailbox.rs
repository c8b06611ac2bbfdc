//! What others want of a vCPU: a word of bits that it looks at once a block, and that wakes it.
//!
//! A sender sets a bit, then wakes the thread if it sleeps. The vCPU announces that it sleeps,
//! then looks at the word once more. Both are sequentially consistent: either the vCPU sees the
//! bit, or the sender sees it sleep.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

/// `run` shall return.
pub(crate) const KICK: u32 = 1 << 0;
/// A non-maskable interrupt came.
pub(crate) const NMI: u32 = 1 << 1;
/// INIT came.
pub(crate) const INIT: u32 = 1 << 2;
/// A start-up message came.
pub(crate) const START_UP: u32 = 1 << 3;
/// The memory view changed.
pub(crate) const MEMORY: u32 = 1 << 4;
/// Maskable interrupts are to be looked at again.
pub(crate) const INTERRUPT: u32 = 1 << 5;

/// One vCPU's mail.
#[derive(Default)]
pub(crate) struct Mailbox {
    bits: AtomicU32,
    start_up_vector: AtomicU8,
    sleeps: AtomicBool,
    thread: Mutex<Option<Thread>>,
}

impl Mailbox {
    /// There is mail.
    #[inline(always)]
    pub(crate) fn any(&self) -> bool {
        self.bits.load(Ordering::Relaxed) != 0
    }

    /// Leaves mail, and wakes the vCPU.
    pub(crate) fn post(&self, bits: u32) {
        self.bits.fetch_or(bits, Ordering::SeqCst);
        if self.sleeps.load(Ordering::SeqCst) {
            let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(thread) = thread.as_ref() {
                thread.unpark();
            }
        }
    }

    /// Leaves a start-up message. A second one before the first is read replaces it, as the
    /// hardware's.
    pub(crate) fn post_start_up(&self, vector: u8) {
        self.start_up_vector.store(vector, Ordering::SeqCst);
        self.post(START_UP);
    }

    /// The vector of the last start-up message.
    pub(crate) fn start_up_vector(&self) -> u8 {
        self.start_up_vector.load(Ordering::SeqCst)
    }

    /// There is mail of one of these kinds.
    pub(crate) fn has(&self, bits: u32) -> bool {
        self.bits.load(Ordering::SeqCst) & bits != 0
    }

    /// Takes mail of these kinds out; what was there.
    pub(crate) fn take(&self, bits: u32) -> u32 {
        if self.any() { self.bits.fetch_and(!bits, Ordering::SeqCst) & bits } else { 0 }
    }

    /// The calling thread is the vCPU's from now on.
    pub(crate) fn adopt_thread(&self) {
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread::current());
    }

    /// Sleeps until there is mail, or for `limit`.
    pub(crate) fn sleep(&self, limit: Option<Duration>) {
        self.sleeps.store(true, Ordering::SeqCst);
        if self.bits.load(Ordering::SeqCst) == 0 {
            match limit {
                Some(limit) => thread::park_timeout(limit),
                None => thread::park(),
            }
        }
        self.sleeps.store(false, Ordering::SeqCst);
    }
}
