//! Memory slots: the kernel's form of a [`FlatView`], and its dirty log.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use guest_memory::{Backing, DirtyBitmap, FlatRange, FlatView, GuestMemory, PAGE_SHIFT, RamOffset};
use kvm_bindings::{KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY};
use kvm_ioctls::VmFd;

use crate::raw;

/// The slots of one VM.
pub(crate) struct Slots {
    memory: Arc<GuestMemory>,
    /// By slot number.
    used: BTreeMap<u32, FlatRange>,
    logging: bool,
    /// Dirty pages of slots that are gone and have not been harvested since.
    retired: DirtyBitmap,
}

/// What has to change for a view.
pub(crate) struct Difference {
    removed: Vec<u32>,
    added: Vec<FlatRange>,
}

impl Difference {
    /// Something that vCPUs may be using goes away.
    pub(crate) fn removes(&self) -> bool {
        !self.removed.is_empty()
    }
}

impl Slots {
    /// No slots yet.
    pub(crate) fn new(memory: Arc<GuestMemory>) -> Self {
        let retired = DirtyBitmap::new(memory.bits().pages());
        Self { memory, used: BTreeMap::new(), logging: false, retired }
    }

    /// What has to change for this view.
    pub(crate) fn difference(&self, view: &FlatView) -> Difference {
        let wanted = joined(view);
        let removed = self.used.iter().filter(|(_, have)| !wanted.contains(have));
        let added = wanted.iter().filter(|want| !self.used.values().any(|have| have == *want));
        Difference {
            removed: removed.map(|(number, _)| *number).collect(),
            added: added.copied().collect(),
        }
    }

    /// Changes it.
    pub(crate) fn apply(&mut self, vm: &VmFd, difference: Difference) -> io::Result<()> {
        for number in difference.removed {
            self.retire(vm, number)?;
            let gone = self.used.remove(&number);
            let gpa = gone.map_or(0, |range| range.gpa);
            raw::set_slot(vm, &self.memory, number, 0, gpa, (RamOffset(0), 0))?;
        }
        for range in difference.added {
            let free = (0..).find(|number| !self.used.contains_key(number)).unwrap_or(u32::MAX);
            self.set(vm, free, &range)?;
            self.used.insert(free, range);
        }
        Ok(())
    }

    /// Begins or ends the dirty log.
    pub(crate) fn set_logging(&mut self, vm: &VmFd, on: bool) -> io::Result<()> {
        if self.logging == on {
            return Ok(());
        }
        self.logging = on;
        self.retired = DirtyBitmap::new(self.memory.bits().pages());
        for (number, range) in self.used.iter().filter(|(_, r)| r.backing == Backing::Ram) {
            self.set(vm, *number, range)?;
        }
        Ok(())
    }

    /// Moves the dirty log into `into`.
    pub(crate) fn harvest(&mut self, vm: &VmFd, into: &DirtyBitmap) -> io::Result<()> {
        if !self.logging {
            return Ok(());
        }
        for page in self.retired.iter() {
            into.set(page);
        }
        self.retired = DirtyBitmap::new(self.memory.bits().pages());
        for (number, range) in &self.used {
            self.read_log(vm, *number, range, into)?;
        }
        Ok(())
    }

    /// Keeps what the log of a slot says, before the slot goes.
    fn retire(&self, vm: &VmFd, number: u32) -> io::Result<()> {
        match self.used.get(&number) {
            Some(range) if self.logging => self.read_log(vm, number, range, &self.retired),
            _ => Ok(()),
        }
    }

    fn read_log(
        &self,
        vm: &VmFd,
        number: u32,
        range: &FlatRange,
        into: &DirtyBitmap,
    ) -> io::Result<()> {
        if range.backing == Backing::Rom {
            return Ok(());
        }
        let log = vm.get_dirty_log(number, range.size as usize)?;
        let pages = (range.size >> PAGE_SHIFT) as usize;
        for (i, word) in log.into_iter().enumerate().filter(|(_, word)| *word != 0) {
            merge(into, range.at.page() + i * 64, word, pages - i * 64);
        }
        Ok(())
    }

    fn set(&self, vm: &VmFd, number: u32, range: &FlatRange) -> io::Result<()> {
        let flags = match range.backing {
            Backing::Rom => KVM_MEM_READONLY,
            Backing::Ram if self.logging => KVM_MEM_LOG_DIRTY_PAGES,
            Backing::Ram => 0,
        };
        raw::set_slot(vm, &self.memory, number, flags, range.gpa, (range.at, range.size))
    }
}

/// Marks pages `first..` by the bits of `word`, of which `count` are meant.
fn merge(into: &DirtyBitmap, first: usize, word: u64, count: usize) {
    let word = if count < 64 { word & ((1 << count) - 1) } else { word };
    let (index, shift) = (first / 64, first % 64);
    into.merge_word(index, word << shift);
    if shift != 0 && word >> (64 - shift) != 0 {
        into.merge_word(index + 1, word >> (64 - shift));
    }
}

/// The view's ranges, neighbours joined where their backing goes on: each slot costs the kernel a
/// grace period.
fn joined(view: &FlatView) -> Vec<FlatRange> {
    let mut ranges: Vec<FlatRange> = Vec::new();
    for next in view.iter() {
        match ranges.last_mut() {
            Some(last)
                if last.gpa + last.size == next.gpa
                    && last.at.0 + last.size == next.at.0
                    && last.backing == next.backing =>
            {
                last.size += next.size;
            }
            _ => ranges.push(*next),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(gpa: u64, size: u64, at: u64, backing: Backing) -> FlatRange {
        FlatRange { gpa, size, at: RamOffset(at), backing }
    }

    #[test]
    fn neighbours_with_one_backing_are_one_slot() {
        let mut view = FlatView::new();
        view.insert(range(0, 0x1000, 0, Backing::Ram)).unwrap();
        view.insert(range(0x1000, 0x2000, 0x1000, Backing::Ram)).unwrap();
        view.insert(range(0x3000, 0x1000, 0x3000, Backing::Rom)).unwrap();
        view.insert(range(0x4000, 0x1000, 0x8000, Backing::Rom)).unwrap();
        let sizes: Vec<_> = joined(&view).iter().map(|r| r.size).collect();
        assert_eq!(sizes, [0x3000, 0x1000, 0x1000]);
    }

    #[test]
    fn log_words_land_on_pages_whatever_the_alignment() {
        let bitmap = DirtyBitmap::new(256);
        merge(&bitmap, 60, 0b1000_0001 | 1 << 63, 64);
        assert_eq!(bitmap.iter().collect::<Vec<_>>(), [60, 67, 123]);
        let bitmap = DirtyBitmap::new(64);
        merge(&bitmap, 62, u64::MAX, 2);
        assert_eq!(bitmap.iter().collect::<Vec<_>>(), [62, 63]);
    }
}
