//! A file or block device, byte for byte.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use vm_memory::VolatileSlice;

use crate::{Disk, DiskInfo, OpenError, SECTOR_SIZE, vectored};

/// Bytes of zeroes written at once where the host cannot make holes.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// A raw image or block device.
#[derive(Debug)]
pub struct RawDisk {
    file: File,
    info: DiskInfo,
    /// The medium has no holes: do not ask again.
    no_holes: AtomicBool,
}

impl RawDisk {
    /// Opens and locks `path`.
    ///
    /// # Errors
    /// When it is not a disk that can be used so, or another program uses it.
    pub fn open(path: &Path, read_only: bool) -> Result<Self, OpenError> {
        let access = if read_only { OFlags::RDONLY } else { OFlags::RDWR };
        // Without NONBLOCK, opening a pipe would wait for its other end for ever.
        let flags = access | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| match error {
            Errno::NOENT | Errno::NOTDIR => OpenError::Missing { path: path.into() },
            Errno::ISDIR => OpenError::Directory { path: path.into() },
            Errno::ACCESS | Errno::PERM | Errno::ROFS => {
                OpenError::Permission { path: path.into(), write: !read_only }
            }
            Errno::NXIO => OpenError::Kind { path: path.into() },
            error => OpenError::Host { path: path.into(), source: error.into() },
        })?;
        Self::new(file.into(), path, read_only)
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
        let lock = if read_only {
            FlockOperation::NonBlockingLockShared
        } else {
            FlockOperation::NonBlockingLockExclusive
        };
        match rustix::fs::flock(&file, lock) {
            Err(Errno::WOULDBLOCK) => return Err(OpenError::Locked { path: path.into() }),
            // File systems without locks exist; two writers there are the operator's care.
            Err(Errno::NOLCK | Errno::NOSYS | Errno::OPNOTSUPP) => {}
            result => result.map_err(|e| host(e.into()))?,
        }
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
        let info = DiskInfo { size_bytes, block_size, read_only };
        Ok(Self { file, info, no_holes: AtomicBool::new(false) })
    }

    fn check(&self, offset: u64, size_bytes: u64) -> io::Result<()> {
        let inside = offset.checked_add(size_bytes).is_some_and(|e| e <= self.info.size_bytes);
        if inside { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }

    fn check_write(&self, offset: u64, size_bytes: u64) -> io::Result<()> {
        if self.info.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        self.check(offset, size_bytes)
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

fn total(buffers: &[VolatileSlice<'_>]) -> io::Result<u64> {
    let add = |sum: u64, buffer: &VolatileSlice<'_>| sum.checked_add(buffer.len() as u64);
    buffers.iter().try_fold(0, add).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

impl Disk for RawDisk {
    fn info(&self) -> DiskInfo {
        self.info
    }

    fn read(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        self.check(offset, total(buffers)?)?;
        vectored::read(&self.file, offset, buffers)
    }

    fn write(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        self.check_write(offset, total(buffers)?)?;
        vectored::write(&self.file, offset, buffers)
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
        if self.allocate(mode, offset, size_bytes)? {
            return Ok(());
        }
        let (mut at, end) = (offset, offset + size_bytes);
        while at < end {
            let part = &ZEROES[..ZEROES.len().min(usize::try_from(end - at).unwrap_or(usize::MAX))];
            match rustix::io::retry_on_intr(|| rustix::io::pwrite(&self.file, part, at))? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                done => at += done as u64,
            }
        }
        Ok(())
    }
}
