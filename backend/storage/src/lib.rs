//! Disks: what a disk device of any machine reads and writes, and how its requests run side by side.
//!
//! [`DiskOptions`] is a disk as an operator asks for it: raw or qcow2, with its layers, cache and
//! limits. [`Disk`] is the trait: one request is one call, which blocks. [`Lane`] carries the
//! requests of one queue of a device and tells when they are done: through the host's io_uring,
//! or on threads.
//!
//! *Invariants*: nothing is opened that the operator has not named, whatever an image or a guest
//! says. An image opened for writing is locked against every other opener of ours; one
//! opened read-only is shared with readers only.
//!
//! What this crate may not know: guests, PCI, virtio.

mod error;
mod header;
mod lane;
mod layers;
mod leaks;
mod limits;
mod open;
mod overlay;
mod parse;
mod qcow2;
mod raw;
mod vectored;

pub use error::OpenError;
pub use header::Qcow2Error;
pub use lane::{Done, Kind, Lane, Transfer, Work};
pub use layers::{create_layer, merge_layers};
pub use limits::{Limit, Limits, Rate};
pub use open::{Cache, DiskOptions, Format};
pub use raw::RawDisk;

use std::fs::File;
use std::io;

use vm_memory::VolatileSlice;

/// Bytes of the unit of sizes and addresses, whatever the medium's own is.
pub const SECTOR_SIZE: u64 = 512;

/// What does not change while a disk is open, but for a size that grows by [`Disk::grow`].
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
/// guest's own race.
pub trait Disk: Send + Sync {
    /// What it is.
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

    /// Makes it larger; what is new reads as zero.
    ///
    /// # Errors
    /// When it cannot be so large, or not at all.
    fn grow(&self, _size_bytes: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Goes on in a new layer, which stands on what the disk has been so far: that is only read from now on.
    /// Requests wait meanwhile. `files` are those of
    /// [`DiskOptions::open_files`]. A disk that is laid over with this layer already stays as it is.
    ///
    /// # Errors
    /// When the disk is not made of layers, these are not its own and one above, or the host refuses: it then
    /// goes on as before.
    fn lay(&self, over: &DiskOptions, _files: Vec<File>) -> Result<(), OpenError> {
        Err(OpenError::NoLayers { path: over.path.clone() })
    }

    /// While on, no request waits for a limit: what is in flight shall end soon.
    fn hurry(&self, _on: bool) {}

    /// The file that such a read or write goes to byte for byte, and flushes too, if there is one:
    /// the host's kernel may then be given it directly.
    fn file(&self, _offset: u64, _buffers: &[VolatileSlice<'_>]) -> Option<&File> {
        None
    }

    /// Requests may take long even when the data is at hand.
    fn may_wait(&self) -> bool {
        false
    }
}

/// # Errors
/// When the range is not inside a disk of this size.
fn check_range(disk_bytes: u64, offset: u64, size_bytes: u64) -> io::Result<()> {
    let inside = offset.checked_add(size_bytes).is_some_and(|end| end <= disk_bytes);
    if inside { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// # Errors
/// When a disk of this size cannot become one of the other.
fn check_growth(info: DiskInfo, size_bytes: u64) -> io::Result<()> {
    if info.read_only {
        return Err(io::ErrorKind::ReadOnlyFilesystem.into());
    }
    let possible = size_bytes.is_multiple_of(SECTOR_SIZE)
        && (info.size_bytes..=i64::MAX as u64).contains(&size_bytes);
    if possible { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// Bytes of all buffers.
fn total(buffers: &[VolatileSlice<'_>]) -> io::Result<u64> {
    let add = |sum: u64, buffer: &VolatileSlice<'_>| sum.checked_add(buffer.len() as u64);
    buffers.iter().try_fold(0, add).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests;
