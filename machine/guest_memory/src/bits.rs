//! What is known of each page: dirty, and holds code.
//!
//! The protocol that makes one unlocked look after each store enough:
//!
//! - A vCPU stores, *then* looks at [`PageBits::watched`]. When it is set, it calls
//!   [`PageBits::mark_written`].
//! - Whoever begins to watch a page sets the watch byte, *then* has every other thread pass a
//!   full barrier (membarrier(2)), *then* reads the page. So a store is either seen by that read,
//!   or its thread sees the watch.
//!
//! Without the barrier the store could still be in its core's buffer while its look at the watch
//! byte was done early: the one reordering x86 allows.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, PoisonError, RwLock, Weak};

use crate::{PAGE_SHIFT, RamOffset};
use lazy::zeroed;

/// Bytes of the unit code is tracked in.
pub const LINE_SIZE: u64 = 64;

/// The page is clean, and someone wants to know when that changes.
const WATCH_CLEAN: u8 = 1;
/// The page holds code that is cached in decoded form.
const WATCH_CODE: u8 = 2;

/// Told of code that comes and goes, by whatever thread makes it so. Engines that look after each
/// store and poll [`PageBits::code_generation`] need none.
pub trait CodeWatcher: Send + Sync {
    /// Page `page` is watched from now on: who stores to it without a look is to be stopped before
    /// this returns.
    fn code_begins(&self, page: usize);
    /// Lines `lines` (bit `i`: bytes `64 * i..`) of page `page` were written.
    fn code_written(&self, page: usize, lines: u64);
}

/// A bit a page, of pages that changed.
#[derive(Debug)]
pub struct DirtyBitmap {
    words: Box<[AtomicU64]>,
}

impl DirtyBitmap {
    /// For `pages` pages, all clean.
    pub fn new(pages: usize) -> Self {
        Self { words: zeroed(pages.div_ceil(64)) }
    }

    /// Marks the page.
    pub fn set(&self, page: usize) {
        // Most stores hit pages that are dirty already: the plain look keeps the line shared.
        let (word, bit) = (&self.words[page / 64], 1 << (page % 64));
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::AcqRel);
        }
    }

    /// Marks pages `64 * index..` by the bits of `bits`.
    pub fn merge_word(&self, index: usize, bits: u64) {
        self.words[index].fetch_or(bits, Ordering::AcqRel);
    }

    /// The page is marked.
    pub fn get(&self, page: usize) -> bool {
        self.words[page / 64].load(Ordering::Acquire) & 1 << (page % 64) != 0
    }

    /// Marked pages, in order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(i, word)| {
            let mut left = word.load(Ordering::Acquire);
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros() as usize;
                left &= left.wrapping_sub(1);
                (bit < 64).then_some(i * 64 + bit)
            })
        })
    }
}

/// The bits of all pages of a [`crate::GuestMemory`].
pub struct PageBits {
    watch: Box<[AtomicU8]>,
    dirty: DirtyBitmap,
    code_lines: Box<[AtomicU64]>,
    code_generation: Box<[AtomicU32]>,
    watcher: RwLock<Option<Weak<dyn CodeWatcher>>>,
}

impl PageBits {
    pub(crate) fn new(pages: usize) -> Self {
        Self {
            watch: zeroed(pages),
            dirty: DirtyBitmap::new(pages),
            code_lines: zeroed(pages),
            code_generation: zeroed(pages),
            watcher: RwLock::default(),
        }
    }

    /// Number of pages.
    pub fn pages(&self) -> usize {
        self.watch.len()
    }

    /// A store to this page must be followed by [`PageBits::mark_written`]. To be asked *after*
    /// the store.
    #[inline(always)]
    pub fn watched(&self, at: RamOffset) -> bool {
        self.watch[at.page()].load(Ordering::Relaxed) != 0
    }

    /// `size` bytes from `at` were written: marks pages dirty, and retires code that was there.
    /// Returns true when code was there.
    pub fn mark_written(&self, at: RamOffset, size: usize) -> bool {
        let Some(last) = (size as u64).checked_sub(1).map(|n| at.0 + n) else { return false };
        let mut code = false;
        for page in at.page()..=RamOffset(last).page() {
            let watch = &self.watch[page];
            if watch.load(Ordering::Acquire) & WATCH_CLEAN != 0 {
                // Before the dirty bit is set: see `harvest_dirty`.
                watch.fetch_and(!WATCH_CLEAN, Ordering::AcqRel);
            }
            self.dirty.set(page);
            if watch.load(Ordering::Acquire) & WATCH_CODE != 0 {
                let start = (page as u64) << PAGE_SHIFT;
                let first = at.0.max(start) - start;
                let end = last.min(start + crate::PAGE_SIZE - 1) - start;
                code |= self.retire_code(page, lines(first, end));
            }
        }
        code
    }

    fn retire_code(&self, page: usize, written: u64) -> bool {
        let hit = self.code_lines[page].load(Ordering::Acquire) & written;
        if hit != 0 {
            self.code_generation[page].fetch_add(1, Ordering::AcqRel);
            if let Some(watcher) = self.watcher() {
                watcher.code_written(page, hit);
            }
        }
        hit != 0
    }

    /// Bytes `first..=last` of `page` are about to be decoded and kept. To be called *before*
    /// they are read; what was decoded is good while [`PageBits::code_generation`] stays as it
    /// was before this call.
    pub fn mark_code(&self, page: usize, first: u64, last: u64) {
        let new = lines(first, last);
        if self.code_lines[page].load(Ordering::Acquire) & new == new {
            return;
        }
        self.code_lines[page].fetch_or(new, Ordering::AcqRel);
        let before = self.watch[page].fetch_or(WATCH_CODE, Ordering::SeqCst);
        barrier_all_threads();
        if before & WATCH_CODE == 0
            && let Some(watcher) = self.watcher()
        {
            watcher.code_begins(page);
        }
    }

    /// Nothing decoded from `page` is kept any more: stores into it are fast again.
    pub fn clear_code(&self, page: usize) {
        self.code_lines[page].store(0, Ordering::SeqCst);
        self.watch[page].fetch_and(!WATCH_CODE, Ordering::SeqCst);
        // Last: who has found the lines marked read the generation before this, and will see it.
        self.code_generation[page].fetch_add(1, Ordering::SeqCst);
    }

    /// Changes whenever a line of `page` that holds code is written.
    #[inline(always)]
    pub fn code_generation(&self, page: usize) -> u32 {
        self.code_generation[page].load(Ordering::Acquire)
    }

    /// Has `watcher` told of code from now on, as long as it lives. True when it was not the one
    /// that was told before.
    pub fn set_code_watcher(&self, watcher: &Arc<dyn CodeWatcher>) -> bool {
        let mut current = self.watcher.write().unwrap_or_else(PoisonError::into_inner);
        let new = Arc::downgrade(watcher);
        let same = current.as_ref().is_some_and(|old| old.ptr_eq(&new));
        *current = Some(new);
        !same
    }

    fn watcher(&self) -> Option<Arc<dyn CodeWatcher>> {
        self.watcher.read().unwrap_or_else(PoisonError::into_inner).as_ref()?.upgrade()
    }

    /// Nothing decoded is kept any more, of any page.
    pub fn forget_code(&self) {
        for (page, watch) in self.watch.iter().enumerate() {
            if watch.load(Ordering::Relaxed) & WATCH_CODE != 0 {
                self.clear_code(page);
            }
        }
    }

    /// The page is about to be written to by stores that are not reported: marks it dirty. False
    /// when all stores must be reported, because it holds code.
    pub fn begin_writing(&self, page: usize) -> bool {
        let watch = &self.watch[page];
        if watch.load(Ordering::Acquire) & WATCH_CLEAN != 0 {
            watch.fetch_and(!WATCH_CLEAN, Ordering::AcqRel);
        }
        self.dirty.set(page);
        watch.load(Ordering::SeqCst) == 0
    }

    /// Marks every page dirty and begins to watch for changes from here on; or ends watching.
    pub fn watch_dirty(&self, on: bool) {
        for (page, watch) in self.watch.iter().enumerate() {
            if on {
                self.dirty.set(page);
            } else {
                watch.fetch_and(!WATCH_CLEAN, Ordering::AcqRel);
            }
        }
    }

    /// Moves the dirty bits into `into` and watches those pages again.
    ///
    /// Between taking a page's bit and watching it, a store may go unmarked; the barrier then
    /// makes it visible before this returns, so the caller's copy has it. A store's thread
    /// clears the watch *before* it sets the bit: the other way round, a harvest between the two
    /// would leave the page clean and unwatched.
    pub fn harvest_dirty(&self, into: &DirtyBitmap) {
        for (index, word) in self.dirty.words.iter().enumerate() {
            if word.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let bits = word.swap(0, Ordering::AcqRel);
            into.merge_word(index, bits);
            let mut left = bits;
            while left != 0 {
                let page = index * 64 + left.trailing_zeros() as usize;
                self.watch[page].fetch_or(WATCH_CLEAN, Ordering::AcqRel);
                left &= left - 1;
            }
        }
        barrier_all_threads();
    }
}

/// The lines that bytes `first..=last` of a page touch.
fn lines(first: u64, last: u64) -> u64 {
    let (first, last) = (first / LINE_SIZE, (last / LINE_SIZE).min(63));
    (u64::MAX >> (63 - (last - first))) << first
}

/// Every thread of the process passes a full barrier before this returns.
fn barrier_all_threads() {
    fence(Ordering::SeqCst);
    membarrier::all_threads();
    fence(Ordering::SeqCst);
}

mod lazy {
    //! Zeroes that take no memory before they are changed: a VM uses few of its pages' bits.
    //!
    //! UNSAFETY: the allocator's zeroes are taken for values.
    #![allow(unsafe_code, reason = "no safe way leaves the pages of a large allocation untouched")]

    use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};

    /// Types for which all-zero bytes are a value.
    pub(super) trait Zeroable {}

    impl Zeroable for AtomicU8 {}
    impl Zeroable for AtomicU32 {}
    impl Zeroable for AtomicU64 {}

    pub(super) fn zeroed<T: Zeroable>(count: usize) -> Box<[T]> {
        // SAFETY: the trait is this module's, and what has it may be all zero.
        unsafe { Box::new_zeroed_slice(count).assume_init() }
    }
}

mod membarrier {
    //! UNSAFETY: one system call that takes no pointers.
    #![allow(unsafe_code, reason = "no crate in the tree wraps membarrier(2)")]

    use std::sync::OnceLock;

    fn call(command: libc::c_int) -> libc::c_long {
        // SAFETY: membarrier(2) takes two integers and touches no memory of ours.
        unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) }
    }

    /// Falls back from the expedited to the global command, and from there to nothing more than
    /// the caller's fence: a kernel without membarrier (before 4.3) runs no other part of us.
    pub(super) fn all_threads() {
        static COMMAND: OnceLock<libc::c_int> = OnceLock::new();
        let command = *COMMAND.get_or_init(|| {
            if call(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0 {
                libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED
            } else {
                libc::MEMBARRIER_CMD_GLOBAL
            }
        });
        call(command);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_cover_first_to_last() {
        assert_eq!(lines(0, 0), 1);
        assert_eq!(lines(63, 64), 0b11);
        assert_eq!(lines(0, 4095), u64::MAX);
        assert_eq!(lines(4095, 4095), 1 << 63);
        assert_eq!(lines(4090, 5000), 1 << 63);
    }

    #[test]
    fn a_write_beside_code_retires_nothing() {
        let bits = PageBits::new(2);
        let before = bits.code_generation(1);
        bits.mark_code(1, 100, 200);
        assert!(bits.watched(RamOffset(0x1fff)));
        assert!(!bits.mark_written(RamOffset(0x1000), 64));
        assert_eq!(bits.code_generation(1), before);
        assert!(bits.mark_written(RamOffset(0xfff), 66));
        assert_ne!(bits.code_generation(1), before);
    }

    #[test]
    fn harvest_takes_each_page_once() {
        let bits = PageBits::new(200);
        bits.mark_written(RamOffset(130 * 4096), 1);
        let taken = DirtyBitmap::new(200);
        bits.harvest_dirty(&taken);
        assert_eq!(taken.iter().collect::<Vec<_>>(), [130]);
        assert!(bits.watched(RamOffset(130 * 4096)));
        let again = DirtyBitmap::new(200);
        bits.harvest_dirty(&again);
        assert_eq!(again.iter().count(), 0);
        bits.mark_written(RamOffset(130 * 4096 + 5), 1);
        assert!(!bits.watched(RamOffset(130 * 4096)));
        bits.harvest_dirty(&again);
        assert!(again.get(130));
    }
}
