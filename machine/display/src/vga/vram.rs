//! Video memory: a region of guest memory, by offsets in it. It wraps at its end.

use std::sync::Arc;

use guest_memory::{GuestMemory, RamOffset};

/// The region.
#[derive(Clone)]
pub(super) struct Vram {
    memory: Arc<GuestMemory>,
    at: RamOffset,
    /// A power of two.
    size: usize,
}

impl Vram {
    pub fn new(memory: Arc<GuestMemory>, at: RamOffset, size: usize) -> Self {
        assert!(size.is_power_of_two() && size >= 1 << 18, "{size:#x} bytes of video memory");
        Self { memory, at, size }
    }

    pub fn size(&self) -> usize {
        self.size
    }

    fn offset(&self, at: usize) -> RamOffset {
        RamOffset(self.at.0 + (at & (self.size - 1)) as u64)
    }

    pub fn byte(&self, at: usize) -> u8 {
        self.memory.load(self.offset(at))
    }

    pub fn set_byte(&self, at: usize, value: u8) {
        let offset = self.offset(at);
        self.memory.store(offset, value);
        self.written(offset, 1);
    }

    /// The four planes at an address.
    pub fn double_word(&self, index: usize) -> u32 {
        self.memory.load(self.offset(index * 4))
    }

    pub fn set_double_word(&self, index: usize, value: u32) {
        let offset = self.offset(index * 4);
        self.memory.store(offset, value);
        self.written(offset, 4);
    }

    fn written(&self, at: RamOffset, size: usize) {
        if self.memory.bits().watched(at) {
            self.memory.bits().mark_written(at, size);
        }
    }

    /// Copies from `at` on. What is past the end is what is at the beginning.
    pub fn read(&self, at: usize, data: &mut [u8]) {
        let at = at & (self.size - 1);
        let first = data.len().min(self.size - at);
        let (head, rest) = data.split_at_mut(first);
        self.memory.read(self.offset(at), head);
        let rest_size = rest.len().min(self.size);
        self.memory.read(self.offset(0), &mut rest[..rest_size]);
    }

    /// An access of the bus: what is past the end is not there.
    pub fn bus_read(&self, at: u64, data: &mut [u8]) {
        for (at, byte) in (at..).zip(data).take_while(|(at, _)| *at < self.size as u64) {
            *byte = self.byte(at as usize);
        }
    }

    pub fn bus_write(&self, at: u64, data: &[u8]) {
        for (at, byte) in (at..).zip(data).take_while(|(at, _)| *at < self.size as u64) {
            self.set_byte(at as usize, *byte);
        }
    }

    /// Makes the first `size` bytes zero.
    pub fn clear(&self, size: usize) {
        self.memory.fill(self.at, size.min(self.size), 0);
    }
}
