//! A qcow2 image and the layers below it, through the `imago` crate.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use imago::file::File as ImagoFile;
use imago::format::PreallocateMode;
use imago::io_buffers::{IoVector, IoVectorMut};
use imago::qcow2::Qcow2;
use imago::raw::Raw;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder, StorageOpenOptions};
use vm_memory::VolatileSlice;

use crate::{Cache, Disk, DiskInfo, SECTOR_SIZE, check_growth, check_range, total};

type Access = FormatAccess<ImagoFile>;

/// A file that was checked and locked, for the library.
fn storage(file: File, path: &Path, write: bool, direct: bool) -> io::Result<ImagoFile> {
    let options = StorageOpenOptions::new().filename(path).write(write).direct(direct);
    ImagoFile::from_open_file(file, options)
}

/// A layer others stand on: read only.
pub(crate) enum Layer {
    Raw(File),
    /// With what it stands on.
    Qcow2(File, Option<Box<Layer>>),
}

impl Layer {
    /// Nothing is opened by a name in an image: the gate refuses, and what an image names is
    /// replaced by what the operator did.
    fn open(self, path: &Path, write: bool, direct: bool) -> io::Result<Access> {
        match self {
            Self::Raw(file) => {
                let builder = Raw::builder(storage(file, path, write, direct)?).write(write);
                Ok(FormatAccess::new(builder.open(DenyImplicitOpenGate::default())?))
            }
            Self::Qcow2(file, below) => {
                let below = below.map(|layer| layer.open(path, false, direct).map(Arc::new));
                let builder = Qcow2::builder(storage(file, path, write, direct)?)
                    .write(write)
                    .backing(below.transpose()?)
                    .data_file(None);
                Ok(FormatAccess::new(builder.open(DenyImplicitOpenGate::default())?))
            }
        }
    }
}

/// A qcow2 image.
///
/// *Lock*: requests share it, discards and a new size have it alone: they take mappings away that
/// others would still be using.
pub(crate) struct Qcow2Disk {
    read_only: bool,
    /// Grows.
    size_bytes: AtomicU64,
    /// Every write is flushed.
    through: bool,
    access: RwLock<Access>,
}

impl fmt::Debug for Qcow2Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Qcow2Disk({:?})", self.info())
    }
}

impl Qcow2Disk {
    pub(crate) fn new(top: Layer, path: &Path, write: bool, cache: Cache) -> io::Result<Self> {
        let access = top.open(path, write, cache == Cache::None)?;
        let size_bytes = AtomicU64::new(access.size());
        let through = cache == Cache::Writethrough;
        Ok(Self { read_only: !write, size_bytes, through, access: RwLock::new(access) })
    }

    /// A panic in the library, under this lock, leaves its caches in a state nobody knows: all
    /// requests after it fail, and nothing more is written.
    fn shared(&self) -> io::Result<RwLockReadGuard<'_, Access>> {
        self.access.read().map_err(|_| io::Error::other("the image failed before"))
    }

    fn alone(&self) -> io::Result<RwLockWriteGuard<'_, Access>> {
        self.access.write().map_err(|_| io::Error::other("the image failed before"))
    }

    fn settle(&self) -> io::Result<()> {
        if self.through { self.flush() } else { Ok(()) }
    }

    fn check_write(&self, offset: u64, size_bytes: u64) -> io::Result<()> {
        if self.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        check_range(self.info().size_bytes, offset, size_bytes)
    }
}

impl Disk for Qcow2Disk {
    fn info(&self) -> DiskInfo {
        let size_bytes = self.size_bytes.load(Ordering::Acquire);
        DiskInfo { size_bytes, block_size: SECTOR_SIZE as u32, read_only: self.read_only }
    }

    fn grow(&self, size_bytes: u64) -> io::Result<()> {
        check_growth(self.info(), size_bytes)?;
        let access = self.alone()?;
        access.resize_grow(size_bytes, PreallocateMode::None)?;
        access.flush()?;
        access.sync()?;
        self.size_bytes.fetch_max(size_bytes, Ordering::AcqRel);
        Ok(())
    }

    fn read(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        check_range(self.info().size_bytes, offset, total(buffers)?)?;
        let (vector, _guard) = IoVectorMut::from_volatile_slice(buffers);
        self.shared()?.readv(vector, offset)
    }

    fn write(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        self.check_write(offset, total(buffers)?)?;
        let (vector, _guard) = IoVector::from_volatile_slice(buffers);
        self.shared()?.writev(vector, offset)?;
        self.settle()
    }

    fn flush(&self) -> io::Result<()> {
        if self.read_only {
            return Ok(());
        }
        let access = self.shared()?;
        access.flush()?;
        access.sync()
    }

    fn discard(&self, offset: u64, size_bytes: u64) -> io::Result<()> {
        self.check_write(offset, size_bytes)?;
        match self.alone()?.discard_to_any(offset, size_bytes) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
            result => result,
        }
    }

    fn write_zeroes(&self, offset: u64, size_bytes: u64, unmap: bool) -> io::Result<()> {
        self.check_write(offset, size_bytes)?;
        if unmap {
            self.alone()?.discard_to_zero(offset, size_bytes)?;
        } else {
            self.shared()?.write_zeroes(offset, size_bytes)?;
        }
        self.settle()
    }
}
