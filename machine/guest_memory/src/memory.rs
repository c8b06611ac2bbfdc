//! The memory of one VM.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, PoisonError, RwLock};

use rustix::fs::{FallocateFlags, fallocate};

use crate::mapping::{Mapping, MemoryError, check_size};
use crate::{Backing, DmaMemory, FlatView, PAGE_SIZE, PageBits, RamOffset};

/// Memory backed by one file.
#[derive(Debug)]
pub struct Region {
    /// What it is for: "ram", "firmware".
    pub name: String,
    /// Where it begins.
    pub at: RamOffset,
    /// Its length.
    pub size_bytes: u64,
    /// The file, from its offset 0. It has no name; a descriptor is all there is of it.
    pub file: File,
}

/// The memory of one VM: regions, bits, and the view the guest has of them.
pub struct GuestMemory {
    mapping: Arc<Mapping>,
    regions: Vec<Region>,
    bits: Arc<PageBits>,
    view: RwLock<Arc<FlatView>>,
    dma: RwLock<Arc<DmaMemory>>,
}

impl GuestMemory {
    /// Allocates regions, by name and size in bytes, in this order and without gaps. Nothing is
    /// visible to the guest until [`GuestMemory::set_view`].
    ///
    /// # Errors
    /// When a size is not whole pages, or the host refuses.
    pub fn new(regions: &[(&str, u64)]) -> Result<Arc<Self>, MemoryError> {
        let mut total = 0usize;
        for (name, size) in regions {
            total = total
                .checked_add(check_size(name, *size)?)
                .filter(|t| *t <= isize::MAX as usize / 2)
                .ok_or_else(|| MemoryError::Size { name: (*name).to_owned(), size_bytes: *size })?;
        }
        let host = |name: &str, size_bytes, source| MemoryError::Host {
            name: name.to_owned(),
            size_bytes,
            source,
        };
        // Even a guest without memory (a test's) has a page, so that offsets can be checked.
        let total = total.max(PAGE_SIZE as usize);
        let mapping = Mapping::reserve(total).map_err(|e| host("all", total as u64, e))?;
        let mut filled = Vec::new();
        let mut at = 0;
        for (name, size_bytes) in regions {
            let file = mapping
                .fill(name, at, *size_bytes as usize)
                .map_err(|e| host(name, *size_bytes, e))?;
            filled.push(Region {
                name: (*name).to_owned(),
                at: RamOffset(at as u64),
                size_bytes: *size_bytes,
                file,
            });
            at += *size_bytes as usize;
        }
        let bits = Arc::new(PageBits::new(total / PAGE_SIZE as usize));
        Ok(Arc::new(Self {
            mapping: Arc::new(mapping),
            regions: filled,
            bits,
            view: RwLock::default(),
            dma: RwLock::new(Arc::new(DmaMemory::new())),
        }))
    }

    /// The regions, in order of their offsets.
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// The region of this name.
    pub fn region(&self, name: &str) -> Option<&Region> {
        self.regions.iter().find(|region| region.name == name)
    }

    /// Dirty and code bits.
    #[inline(always)]
    pub fn bits(&self) -> &Arc<PageBits> {
        &self.bits
    }

    /// What the guest sees.
    pub fn view(&self) -> Arc<FlatView> {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes what devices reach. The board tells the engine the same.
    ///
    /// # Panics
    /// When a range is not backed by one region: the board's mistake.
    pub fn set_view(&self, view: FlatView) {
        let dma = DmaMemory::from_view(&view, self);
        *self.dma.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(dma);
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(view);
    }

    /// Guest RAM by guest-physical addresses, for devices. ROM is not in it: DMA cannot write
    /// there, and nothing reads from there.
    pub fn dma(&self) -> Arc<DmaMemory> {
        self.dma.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes one of the regions zero, as RAM after power-up, and gives the host its pages back.
    /// Nothing may use it meanwhile.
    ///
    /// # Errors
    /// When the host refuses; some of it is then zero.
    pub fn clear(&self, region: &Region) -> Result<(), MemoryError> {
        let Region { name, at, size_bytes, file } = region;
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(file, hole, 0, *size_bytes).map_err(|source| MemoryError::Host {
            name: name.clone(),
            size_bytes: *size_bytes,
            source: source.into(),
        })?;
        self.bits.mark_written(*at, *size_bytes as usize);
        Ok(())
    }

    /// Gives the host the whole pages of this range of guest-physical addresses back: RAM is zero
    /// there afterwards. What is not RAM stays as it is. Says how many bytes it were.
    ///
    /// # Errors
    /// When the host refuses; some of it is then zero.
    pub fn release(&self, gpa: u64, size: u64) -> Result<u64, MemoryError> {
        let view = self.view();
        let end = gpa.saturating_add(size) & !(PAGE_SIZE - 1);
        let begin = gpa.checked_next_multiple_of(PAGE_SIZE).unwrap_or(u64::MAX);
        let mut released = 0;
        for range in view.iter().filter(|range| range.backing == Backing::Ram) {
            let (from, to) = (begin.max(range.gpa), end.min(range.gpa + range.size));
            if from < to {
                let at = RamOffset(range.at.0 + (from - range.gpa));
                self.punch(at, to - from)?;
                released += to - from;
            }
        }
        Ok(released)
    }

    /// Takes pages out of the file. Whoever has them mapped sees zeroes from then on, and whoever
    /// has made something of what was in them is told, as of any write.
    fn punch(&self, at: RamOffset, size: u64) -> Result<(), MemoryError> {
        let is_in = |region: &&Region| {
            at.0 >= region.at.0 && at.0 + size <= region.at.0 + region.size_bytes
        };
        let Some(region) = self.regions.iter().find(is_in) else { return Ok(()) };
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&region.file, hole, at.0 - region.at.0, size).map_err(|source| {
            let name = region.name.clone();
            MemoryError::Host { name, size_bytes: size, source: source.into() }
        })?;
        self.bits.mark_written(at, size as usize);
        Ok(())
    }

    /// Bytes of the host's memory that guest memory takes.
    pub fn resident_bytes(&self) -> u64 {
        let blocks = |region: &Region| region.file.metadata().map_or(0, |file| file.blocks());
        self.regions.iter().map(blocks).sum::<u64>() * 512
    }

    /// Host address of guest memory's first byte, for an engine that maps it elsewhere. Using it
    /// is the engine's `unsafe`.
    pub fn host_base(&self) -> *mut u8 {
        self.mapping.base()
    }

    #[inline(always)]
    pub(crate) fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }
}
