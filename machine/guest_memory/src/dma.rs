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

/// Permission to let the host's kernel or a back-end access a range of guest RAM directly.
pub struct Lease<'a, const WRITE: bool> {
    slices: Vec<VolatileSlice<'a, SliceBits<'a>>>,
}

/// To read from guest RAM.
pub type ReadLease<'a> = Lease<'a, false>;
/// To write to guest RAM. Its end marks the pages.
pub type WriteLease<'a> = Lease<'a, true>;

impl<'a, const WRITE: bool> Lease<'a, WRITE> {
    /// A lease of the concatenation of these guest-physical ranges.
    ///
    /// # Errors
    /// When a part of one is not RAM.
    pub fn new(memory: &'a DmaMemory, ranges: &[(u64, usize)]) -> Result<Self, LeaseError> {
        let mut slices = Vec::with_capacity(ranges.len());
        for (gpa, size) in ranges {
            for slice in memory.get_slices(GuestAddress(*gpa), *size) {
                slices.push(slice.map_err(|_| LeaseError { gpa: *gpa, size: *size })?);
            }
        }
        Ok(Self { slices })
    }

    /// The memory, for back-ends. They do not mark anything: the lease does.
    pub fn buffers(&self) -> Vec<VolatileSlice<'_>> {
        self.slices
            .iter()
            .map(|s| {
                // SAFETY: the same memory for no longer than the slice it is made of.
                unsafe { VolatileSlice::new(s.ptr_guard_mut().as_ptr(), s.len()) }
            })
            .collect()
    }

    /// Bytes leased.
    pub fn size_bytes(&self) -> usize {
        self.slices.iter().map(VolatileSlice::len).sum()
    }
}

impl<const WRITE: bool> Drop for Lease<'_, WRITE> {
    fn drop(&mut self) {
        if WRITE {
            for slice in &self.slices {
                slice.bitmap().mark_dirty(0, slice.len());
            }
        }
    }
}
