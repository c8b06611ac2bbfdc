//! Disks: what a disk device of any machine reads and writes.
//!
//! [`Disk`] is the trait, [`RawDisk`] a file or block device used byte for byte. Nothing is
//! probed by content: a guest writes that content, and could make its disk look like an image
//! that names another of the host's files.
//!
//! *Invariants*: an image opened for writing is locked against every other opener of ours; one
//! opened read-only is shared with readers only. A disk's size does not change while it is open.
//!
//! What this crate may not know: guests, PCI, virtio.

mod error;
mod raw;
mod vectored;

pub use error::OpenError;
pub use raw::RawDisk;

use std::io;

use vm_memory::VolatileSlice;

/// Bytes of the unit of sizes and addresses, whatever the medium's own is.
pub const SECTOR_SIZE: u64 = 512;

/// What does not change while a disk is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskInfo {
    /// Its size; whole sectors.
    pub size_bytes: u64,
    /// The smallest write that does not read first.
    pub block_size: u32,
    /// Writes, discards and zeroes are refused.
    pub read_only: bool,
}

/// A disk.
///
/// *Who checks*: the disk does. Callers pass on the ranges a guest asked for; what does not lie
/// inside [`DiskInfo::size_bytes`] is refused with [`io::ErrorKind::InvalidInput`] before anything
/// is done, and a write to a read-only disk with [`io::ErrorKind::ReadOnlyFilesystem`]. Buffers
/// are the caller's promise: they stay mapped until the call returns.
///
/// Calls may come from several threads at once and block until done; then the host has the data,
/// and [`Disk::flush`] makes it survive the host. Ranges that overlap in concurrent calls are the
/// guest's own race. A back-end with completions of its own (io_uring) will be a second trait for
/// the same requests, made from a disk for one thread; nothing here stands in its way.
pub trait Disk: Send + Sync {
    /// What does not change.
    fn info(&self) -> DiskInfo;

    /// Fills `buffers` from `offset` on.
    ///
    /// # Errors
    /// When the range is not on the disk, or the host fails: the buffers then hold anything.
    fn read(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()>;

    /// Writes `buffers` from `offset` on.
    ///
    /// # Errors
    /// When the range is not on the disk, the disk is read-only, or the host fails: the range
    /// then holds anything.
    fn write(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()>;

    /// Makes finished writes survive a crash of the host.
    ///
    /// # Errors
    /// When the host cannot.
    fn flush(&self) -> io::Result<()>;

    /// Tells that nobody needs these bytes any more. They may read as anything.
    ///
    /// # Errors
    /// As for [`Disk::write`]. A medium that cannot discard keeps the bytes, without an error.
    fn discard(&self, offset: u64, size_bytes: u64) -> io::Result<()>;

    /// Makes these bytes zero; `unmap` allows giving their space back.
    ///
    /// # Errors
    /// As for [`Disk::write`].
    fn write_zeroes(&self, offset: u64, size_bytes: u64, unmap: bool) -> io::Result<()>;
}

#[cfg(test)]
mod tests;
