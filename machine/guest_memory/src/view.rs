//! Which guest-physical ranges are backed by memory.

use rangemap::{RangeError, RangeMap};

use crate::{PAGE_SIZE, RamOffset};

/// What a guest's write does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backing {
    /// It is done.
    Ram,
    /// It goes to the bus, as MMIO; reads and fetches come from memory.
    Rom,
}

/// A run of guest-physical addresses backed by contiguous memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlatRange {
    /// First guest-physical address.
    pub gpa: u64,
    /// Length in bytes.
    pub size: u64,
    /// Where its first byte is.
    pub at: RamOffset,
    /// RAM or ROM.
    pub backing: Backing,
}

/// All of a guest's physical memory, as disjoint page-aligned ranges. What no range holds is MMIO.
#[derive(Debug, Clone, Default)]
pub struct FlatView {
    ranges: RangeMap<FlatRange>,
}

impl FlatView {
    /// Nothing is backed.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a range.
    ///
    /// # Errors
    /// When it is empty, wraps or overlaps another.
    ///
    /// # Panics
    /// When it does not begin and end on page boundaries: the board's mistake.
    pub fn insert(&mut self, range: FlatRange) -> Result<(), RangeError> {
        let aligned = |n: u64| n.is_multiple_of(PAGE_SIZE);
        assert!(aligned(range.gpa) && aligned(range.size) && aligned(range.at.0), "{range:x?}");
        self.ranges.insert(range.gpa, range.size, range)
    }

    /// The range that holds this guest-physical address.
    pub fn find(&self, gpa: u64) -> Option<&FlatRange> {
        self.ranges.get(gpa).map(|(_, range)| range)
    }

    /// What is at this guest-physical address.
    pub fn lookup(&self, gpa: u64) -> Option<(RamOffset, Backing)> {
        self.find(gpa).map(|range| (RamOffset(range.at.0 + (gpa - range.gpa)), range.backing))
    }

    /// The ranges, in order of guest-physical addresses.
    pub fn iter(&self) -> impl Iterator<Item = &FlatRange> {
        self.ranges.iter().map(|(_, _, range)| range)
    }
}
