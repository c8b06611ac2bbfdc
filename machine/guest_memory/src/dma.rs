//! Guest RAM as devices see it: by guest-physical address, with bits kept by themselves.
//!
//! `vm-memory`'s traits are the meeting point of the rust-vmm crates (virtio queues above all);
//! [`DmaMemory`] implements them over our mapping and [`PageBits`].
//!
//! UNSAFETY: makes volatile slices of the mapping.
#![allow(unsafe_code, reason = "volatile slices are made of raw pointers")]

use std::sync::Arc;

use vm_memory::bitmap::{BS, Bitmap, BitmapSlice, WithBitmapSlice};
use vm_memory::guest_memory::{Error as AccessError, Result as AccessResult};
use vm_memory::region::GuestMemoryRegionBytes;
use vm_memory::{
    GuestAddress, GuestMemoryBackend, GuestMemoryRegion, GuestRegionCollection, GuestUsize,
    MemoryRegionAddress, VolatileSlice,
};

use crate::mapping::Mapping;
use crate::{Backing, FlatRange, FlatView, GuestMemory, PageBits, RamOffset};

/// Guest RAM, for devices.
#[derive(Clone, Default)]
pub struct DmaMemory(GuestRegionCollection<DmaRegion>);

/// One range of it.
pub struct DmaRegion {
    mapping: Arc<Mapping>,
    range: FlatRange,
    bits: Arc<PageBits>,
}

/// The bits of a region: what hands out [`SliceBits`].
#[derive(Clone)]
pub struct RegionBits {
    bits: Arc<PageBits>,
    at: u64,
}

/// [`PageBits`] from an offset on. `vm-memory` makes several for each access, so they borrow:
/// counting references would cost more than the access.
#[derive(Clone, Copy)]
pub struct SliceBits<'a> {
    bits: &'a PageBits,
    at: u64,
}

impl std::fmt::Debug for SliceBits<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SliceBits({:#x}..)", self.at)
    }
}

impl<'a> WithBitmapSlice<'a> for RegionBits {
    type S = SliceBits<'a>;
}

impl<'a> WithBitmapSlice<'a> for SliceBits<'_> {
    type S = Self;
}

impl BitmapSlice for SliceBits<'_> {}

impl Bitmap for RegionBits {
    fn mark_dirty(&self, offset: usize, len: usize) {
        self.slice_at(0).mark_dirty(offset, len);
    }

    fn dirty_at(&self, _offset: usize) -> bool {
        false // nobody but migration reads the bits, and it harvests them
    }

    fn slice_at(&self, offset: usize) -> SliceBits<'_> {
        SliceBits { bits: &self.bits, at: self.at + offset as u64 }
    }
}

impl Bitmap for SliceBits<'_> {
    fn mark_dirty(&self, offset: usize, len: usize) {
        self.bits.mark_written(RamOffset(self.at + offset as u64), len);
    }

    fn dirty_at(&self, _offset: usize) -> bool {
        false // as above
    }

    fn slice_at(&self, offset: usize) -> Self {
        Self { bits: self.bits, at: self.at + offset as u64 }
    }
}

impl GuestMemoryRegion for DmaRegion {
    type B = RegionBits;

    fn len(&self) -> GuestUsize {
        self.range.size
    }

    fn start_addr(&self) -> GuestAddress {
        GuestAddress(self.range.gpa)
    }

    fn bitmap(&self) -> BS<'_, Self::B> {
        SliceBits { bits: &self.bits, at: self.range.at.0 }
    }

    fn get_slice(
        &self,
        offset: MemoryRegionAddress,
        count: usize,
    ) -> AccessResult<VolatileSlice<'_, BS<'_, Self::B>>> {
        let fits = offset.0.checked_add(count as u64).is_some_and(|end| end <= self.range.size);
        if !fits {
            return Err(AccessError::InvalidBackendAddress);
        }
        let at = self.range.at.0 + offset.0;
        // SAFETY: the range is inside the region, `from_view` checked that the region is inside
        // the mapping, and the mapping lives as long as `self`.
        Ok(unsafe {
            VolatileSlice::with_bitmap(
                self.mapping.base().add(at as usize),
                count,
                self.bitmap().slice_at(offset.0 as usize),
                None,
            )
        })
    }
}

impl GuestMemoryRegionBytes for DmaRegion {}

impl DmaMemory {
    pub(crate) fn new() -> Self {
        Self(GuestRegionCollection::new())
    }

    pub(crate) fn from_view(view: &FlatView, memory: &GuestMemory) -> Self {
        let regions: Vec<_> = view
            .iter()
            .filter(|range| range.backing == Backing::Ram)
            .map(|range| {
                let end = range.at.0.checked_add(range.size);
                let backed = end.is_some_and(|e| e <= memory.mapping().size() as u64);
                assert!(backed, "{range:x?} is not backed");
                DmaRegion {
                    mapping: memory.mapping().clone(),
                    range: *range,
                    bits: memory.bits().clone(),
                }
            })
            .collect();
        // Ranges of a view are sorted and disjoint; the one error left is "there are none".
        Self(GuestRegionCollection::from_regions(regions).unwrap_or_default())
    }
}

impl GuestMemoryBackend for DmaMemory {
    type R = DmaRegion;

    fn num_regions(&self) -> usize {
        self.0.num_regions()
    }

    fn find_region(&self, addr: GuestAddress) -> Option<&Self::R> {
        self.0.find_region(addr)
    }

    fn iter(&self) -> impl Iterator<Item = &Self::R> {
        self.0.iter()
    }
}

/// Why a lease is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{size} bytes at guest-physical {gpa:#x} are not RAM")]
pub struct LeaseError {
    /// First byte asked for.
    pub gpa: u64,
    /// How many.
    pub size: usize,
}

/// What a lease is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// Guest RAM is read.
    #[default]
    Read,
    /// Guest RAM is written: the lease's end marks the pages.
    Write,
}

/// Permission to let the host's kernel or a back-end access ranges of guest RAM directly. It can
/// be used again for another request, and then allocates nothing.
#[derive(Default)]
pub struct Lease {
    access: Access,
    /// What the slices are in. Declared before them and cleared after them.
    memory: Option<Arc<DmaMemory>>,
    /// Memory that is there for as long as `memory` is.
    slices: Vec<VolatileSlice<'static>>,
    places: Vec<RamOffset>,
}

// SAFETY: the slices are guest memory, which any thread may access and which `memory` keeps.
unsafe impl Send for Lease {}
// SAFETY: as above; the slices are handed out as they are.
unsafe impl Sync for Lease {}

impl Lease {
    /// A lease of nothing yet. What it was a lease of before ends.
    pub fn begin(&mut self, memory: &Arc<DmaMemory>, access: Access) {
        self.end();
        self.access = access;
        self.memory = Some(memory.clone());
    }

    /// Adds a range of guest-physical addresses, after those there are.
    ///
    /// # Errors
    /// When a part of it is not RAM; a part before that may have been added.
    pub fn add(&mut self, gpa: u64, size: usize) -> Result<(), LeaseError> {
        let refused = LeaseError { gpa, size };
        let memory = self.memory.as_ref().ok_or(refused)?;
        for slice in memory.get_slices(GuestAddress(gpa), size) {
            let slice = slice.map_err(|_| refused)?;
            self.places.push(RamOffset(slice.bitmap().at));
            // SAFETY: the same memory, which `memory` keeps until `end` has removed the slice.
            self.slices
                .push(unsafe { VolatileSlice::new(slice.ptr_guard_mut().as_ptr(), slice.len()) });
        }
        Ok(())
    }

    /// The memory, for back-ends. They do not mark anything: the lease does.
    pub fn buffers(&self) -> &[VolatileSlice<'_>] {
        &self.slices
    }

    /// What it is a lease of is in this memory.
    pub fn memory(&self) -> Option<&Arc<DmaMemory>> {
        self.memory.as_ref()
    }

    /// Bytes leased.
    pub fn size_bytes(&self) -> usize {
        self.slices.iter().map(VolatileSlice::len).sum()
    }

    /// Ends it.
    pub fn end(&mut self) {
        let region = self.memory.as_ref().and_then(|memory| memory.iter().next());
        if let (Access::Write, Some(region)) = (self.access, region) {
            for (place, slice) in self.places.iter().zip(&self.slices) {
                region.bits.mark_written(*place, slice.len());
            }
        }
        self.slices.clear();
        self.places.clear();
        self.memory = None;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.end();
    }
}
