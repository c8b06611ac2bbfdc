//! A qcow2 image and the layers below it, through the `imago` crate.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use imago::file::File as ImagoFile;
use imago::format::PreallocateMode;
use imago::io_buffers::{IoVector, IoVectorMut};
use imago::qcow2::Qcow2;
use imago::raw::Raw;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder, StorageOpenOptions};
use vm_memory::VolatileSlice;

use crate::open::lock;
use crate::{
    Cache, Disk, DiskInfo, DiskOptions, OpenError, SECTOR_SIZE, check_growth, check_range, total,
};

pub(crate) type Access = FormatAccess<ImagoFile>;

/// A file that was checked and locked, for the library.
pub(crate) fn storage(file: File, path: &Path, write: bool, direct: bool) -> io::Result<ImagoFile> {
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
    pub(crate) fn open(self, path: &Path, write: bool, direct: bool) -> io::Result<Access> {
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
    /// The layer that is written.
    top: Mutex<PathBuf>,
    cache: Cache,
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
        let (access, top) = (RwLock::new(access), Mutex::new(path.to_owned()));
        Ok(Self { read_only: !write, size_bytes, through, access, top, cache })
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

    fn lay(&self, over: &DiskOptions, files: Vec<File>) -> Result<(), OpenError> {
        let failed = |source| OpenError::Host { path: over.path.clone(), source };
        let mut top = self.top.lock().unwrap_or_else(PoisonError::into_inner);
        if *top == over.path {
            return Ok(());
        }
        if self.read_only || over.backing.first().is_none_or(|(below, _)| below != &*top) {
            return Err(OpenError::NoLayers { path: over.path.clone() });
        }
        let over = DiskOptions { cache: self.cache, ..over.clone() };
        let mut access = self.alone().map_err(failed)?;
        access.flush().and_then(|()| access.sync()).map_err(failed)?;
        // What has been written is still locked as that: it becomes a layer like the others when it is closed.
        let mut below = Vec::new();
        let chain = over.chain(true, &over.given(files), Some(&mut below))?;
        let new = chain.open(&over.path, true, self.cache == Cache::None).map_err(failed)?;
        if new.size() != access.size() {
            return Err(OpenError::NoLayers { path: over.path.clone() });
        }
        *access = new;
        for (file, (path, _)) in below.iter().zip(&over.backing) {
            lock(file, path, false)?;
        }
        *top = over.path;
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
