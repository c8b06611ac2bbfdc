//! What the fuzz targets share: an input read as a guest's actions.

pub mod controller;
pub mod memory_disk;
#[path = "../../../machine/virtio/src/testing.rs"]
#[allow(dead_code, reason = "the unit tests use more of it")]
pub mod testing;
pub mod virtio_driver;

/// The input, taken from the front. Past its end there are zeroes.
pub struct Input<'a>(pub &'a [u8]);

impl Input<'_> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// So many bytes; fewer at the end.
    pub fn bytes(&mut self, count: usize) -> &[u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub fn number(&mut self, size: usize) -> u64 {
        let mut number = [0; 8];
        for (to, byte) in number.iter_mut().zip(self.bytes(size)) {
            *to = *byte;
        }
        u64::from_le_bytes(number)
    }

    pub fn u8(&mut self) -> u8 {
        self.number(1) as u8
    }

    pub fn u16(&mut self) -> u16 {
        self.number(2) as u16
    }

    /// The size of a CPU's access.
    pub fn access_size(&mut self) -> usize {
        1 << (self.u8() & 3)
    }
}
