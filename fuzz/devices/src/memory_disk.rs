//! A disk in memory.

use std::io;
use std::sync::Mutex;

use storage::{Disk, DiskInfo};
use vm_memory::VolatileSlice;

/// Its size.
pub const SIZE: u64 = 64 << 10;

/// Checks ranges as the trait says, and is otherwise trusting.
pub struct MemoryDisk(Mutex<Vec<u8>>);

impl Default for MemoryDisk {
    fn default() -> Self {
        Self(Mutex::new(vec![0; SIZE as usize]))
    }
}

impl MemoryDisk {
    fn check(offset: u64, size: u64) -> io::Result<()> {
        let inside = offset.checked_add(size).is_some_and(|end| end <= SIZE);
        if inside { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }

    fn each(
        offset: u64,
        buffers: &[VolatileSlice<'_>],
        mut copy: impl FnMut(usize, &VolatileSlice<'_>),
    ) -> io::Result<()> {
        Self::check(offset, buffers.iter().map(|b| b.len() as u64).sum())?;
        let mut at = offset as usize;
        for buffer in buffers {
            copy(at, buffer);
            at += buffer.len();
        }
        Ok(())
    }
}

impl Disk for MemoryDisk {
    fn info(&self) -> DiskInfo {
        DiskInfo { size_bytes: SIZE, block_size: 512, read_only: false }
    }

    fn read(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        let bytes = self.0.lock().unwrap();
        Self::each(offset, buffers, |at, buffer| buffer.copy_from(&bytes[at..at + buffer.len()]))
    }

    fn write(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        let mut bytes = self.0.lock().unwrap();
        Self::each(offset, buffers, |at, buffer| {
            buffer.copy_to(&mut bytes[at..at + buffer.len()]);
        })
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn discard(&self, offset: u64, size: u64) -> io::Result<()> {
        self.write_zeroes(offset, size, true)
    }

    fn write_zeroes(&self, offset: u64, size: u64, _unmap: bool) -> io::Result<()> {
        Self::check(offset, size)?;
        self.0.lock().unwrap()[offset as usize..(offset + size) as usize].fill(0);
        Ok(())
    }
}

