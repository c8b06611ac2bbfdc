//! Guest memory: what backs it, where a guest sees it, and what is known of each page.
//!
//! - [`GuestMemory`] owns regions backed by files in memory, laid side by side in one reservation
//!   of host addresses. A [`RamOffset`] names a byte in it; it does not change when the guest moves
//!   memory in its physical address space.
//! - [`FlatView`] says which guest-physical ranges are backed by which offsets.
//! - [`PageBits`] keeps two facts a page: *dirty* and *holds code*.
//!
//! Two ways in. Engines use the word accesses ([`GuestMemory::load`], [`GuestMemory::store`],
//! ...), one host instruction each, in the host's memory order, and look at
//! [`PageBits::watched`] after each store. Devices use [`GuestMemory::dma`] or a [`Lease`],
//! which mark pages by themselves.
//!
//! *Invariants*: nothing but this crate maps guest memory. Every write is followed by a look at
//! the page's bits. Mappings live as long as the [`GuestMemory`]; the files have no name and are
//! never shrunk, so no access faults.
//!
//! What this crate may not know: devices, engines, x86.

mod backing;
mod bits;
mod dma;
mod mapping;
mod memory;
mod view;
mod word;

pub use bits::{CodeWatcher, DirtyBitmap, LINE_SIZE, PageBits};
pub use dma::{Access, DmaMemory, DmaRegion, Lease, LeaseError, RegionBits, SliceBits};
pub use mapping::MemoryError;
pub use memory::{GuestMemory, Region};
pub use view::{Backing, FlatRange, FlatView};
pub use word::Word;

/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;
/// Bytes of a page.
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;

/// A byte of guest memory, by its place in the backing, not by where a guest sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct RamOffset(pub u64);

impl RamOffset {
    /// Which page it is on.
    pub const fn page(self) -> usize {
        (self.0 >> PAGE_SHIFT) as usize
    }
}

#[cfg(test)]
mod tests;
