//! A file or block device, byte for byte.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use vm_memory::VolatileSlice;

use crate::open::{Files, lock};
use crate::{
    Cache, Disk, DiskInfo, OpenError, SECTOR_SIZE, check_growth, check_range, total, vectored,
};

/// Requests that pass the page cache by are made of multiples of this, in memory and on disk, where
/// the host does not tell.
const DIRECT_ALIGNMENT: u64 = 4096;

/// A raw image or block device.
#[derive(Debug)]
pub struct RawDisk {
    file: File,
    /// The same file past the page cache, for requests that are aligned.
    direct: Option<File>,
    block_size: u32,
    read_only: bool,
    /// Grows.
    size_bytes: AtomicU64,
    /// Every write is flushed.
    through: bool,
    /// The medium has no holes: do not ask again.
    no_holes: AtomicBool,
}

impl RawDisk {
    /// Opens and locks `path`.
    ///
    /// # Errors
    /// When it is not a disk that can be used so, or another program uses it.
    pub fn open(path: &Path, read_only: bool) -> Result<Self, OpenError> {
        Self::open_with(path, !read_only, Cache::Writeback, &Files::HOST)
    }

    pub(crate) fn open_with(
        path: &Path,
        write: bool,
        cache: Cache,
        files: &Files<'_>,
    ) -> Result<Self, OpenError> {
        let mut disk = Self::new(files.open(path, write, false)?, path, !write)?;
        if cache == Cache::None {
            disk.direct = Some(files.open(path, write, true)?);
        }
        disk.through = cache == Cache::Writethrough;
        Ok(disk)
    }

    /// Locks and uses a file that was opened elsewhere; `path` is for messages.
    ///
    /// # Errors
    /// When it is not a disk, or another program uses it.
    pub fn new(mut file: File, path: &Path, read_only: bool) -> Result<Self, OpenError> {
        let host = |source| OpenError::Host { path: path.into(), source };
        let kind = file.metadata().map_err(host)?.file_type();
        if kind.is_dir() {
            return Err(OpenError::Directory { path: path.into() });
        }
        if !kind.is_file() && !kind.is_block_device() {
            return Err(OpenError::Kind { path: path.into() });
        }
        lock(&file, path, !read_only)?;
        // Block devices have a size only this way.
        let size_bytes = file.seek(SeekFrom::End(0)).map_err(host)?;
        if size_bytes == 0 || !size_bytes.is_multiple_of(SECTOR_SIZE) {
            return Err(OpenError::Size { path: path.into(), size_bytes });
        }
        let block_size = if kind.is_block_device() {
            rustix::fs::ioctl_blksszget(&file).map_err(|e| host(e.into()))?
        } else {
            SECTOR_SIZE as u32
        };
        Ok(Self {
            file,
            direct: None,
            block_size,
            read_only,
            size_bytes: AtomicU64::new(size_bytes),
            through: false,
            no_holes: AtomicBool::new(false),
        })
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes.load(Ordering::Acquire)
    }

    /// The file a request goes to.
    fn file_for(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> &File {
        let aligned = |number: u64| number.is_multiple_of(DIRECT_ALIGNMENT);
        match &self.direct {
            Some(direct)
                if aligned(offset)
                    && buffers.iter().all(|buffer| {
                        let at = buffer.ptr_guard().as_ptr() as u64;
                        aligned(at) && aligned(buffer.len() as u64)
                    }) =>
            {
                direct
            }
            _ => &self.file,
        }
    }

    fn settle(&self) -> io::Result<()> {
        if self.through { self.flush() } else { Ok(()) }
    }

    fn check_write(&self, offset: u64, size_bytes: u64) -> io::Result<()> {
        if self.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        check_range(self.size_bytes(), offset, size_bytes)
    }

    /// Asks the file system to do it; false when it cannot.
    fn allocate(&self, mode: FallocateFlags, offset: u64, size_bytes: u64) -> io::Result<bool> {
        if size_bytes == 0 {
            return Ok(true);
        }
        if self.no_holes.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let mode = mode | FallocateFlags::KEEP_SIZE;
        match rustix::io::retry_on_intr(|| {
            rustix::fs::fallocate(&self.file, mode, offset, size_bytes)
        }) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV | Errno::NOTTY) => {
                if mode.contains(FallocateFlags::PUNCH_HOLE) {
                    self.no_holes.store(true, Ordering::Relaxed);
                }
                Ok(false)
            }
            // Block devices refuse what is not aligned to their blocks.
            Err(Errno::INVAL) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
impl RawDisk {
    /// For tests of hosts without holes.
    pub(crate) fn no_holes(&self) -> &AtomicBool {
        &self.no_holes
    }
}

impl Disk for RawDisk {
    fn info(&self) -> DiskInfo {
        let Self { block_size, read_only, .. } = *self;
        DiskInfo { size_bytes: self.size_bytes(), block_size, read_only }
    }

    fn grow(&self, size_bytes: u64) -> io::Result<()> {
        check_growth(self.info(), size_bytes)?;
        // A block device has the size that it has, and may have become larger.
        if self.file.metadata()?.file_type().is_block_device() {
            if (&mut &self.file).seek(SeekFrom::End(0))? < size_bytes {
                return Err(io::ErrorKind::StorageFull.into());
            }
        } else {
            self.file.set_len(size_bytes)?;
        }
        self.size_bytes.fetch_max(size_bytes, Ordering::AcqRel);
        Ok(())
    }

    fn read(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        check_range(self.size_bytes(), offset, total(buffers)?)?;
        vectored::read(self.file_for(offset, buffers), offset, buffers)
    }

    fn write(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        self.check_write(offset, total(buffers)?)?;
        vectored::write(self.file_for(offset, buffers), offset, buffers)?;
        self.settle()
    }

    fn flush(&self) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(&self.file)?)
    }

    fn discard(&self, offset: u64, size_bytes: u64) -> io::Result<()> {
        self.check_write(offset, size_bytes)?;
        self.allocate(FallocateFlags::PUNCH_HOLE, offset, size_bytes).map(drop)
    }

    fn write_zeroes(&self, offset: u64, size_bytes: u64, unmap: bool) -> io::Result<()> {
        self.check_write(offset, size_bytes)?;
        let mode = if unmap { FallocateFlags::PUNCH_HOLE } else { FallocateFlags::ZERO_RANGE };
        if !self.allocate(mode, offset, size_bytes)? {
            vectored::write_zeroes(&self.file, offset, size_bytes)?;
        }
        self.settle()
    }

    fn file(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> Option<&File> {
        (!self.through).then(|| self.file_for(offset, buffers))
    }

    fn may_wait(&self) -> bool {
        self.direct.is_some() || self.through
    }
}
