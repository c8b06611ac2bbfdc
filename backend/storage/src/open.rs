//! From what an operator asks for to a disk.
//!
//! *What decides the format*: the operator, or the file's name, which is the operator's too. Never
//! the content: a guest writes that. A raw disk on which a guest has written a qcow2 header would
//! otherwise come back as an image over any file of the host the guest has named.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::limits::Limited;
use crate::overlay::Overlay;
use crate::qcow2::{Layer, Qcow2Disk};
use crate::{Disk, Limits, OpenError, RawDisk, header, leaks};

/// Most layers of an image: each costs a look in every one above it.
const LAYERS_MAX: usize = 64;

/// How bytes of a file are those of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One by one.
    Raw,
    /// As QEMU's images.
    Qcow2,
}

impl FromStr for Format {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "raw" => Ok(Self::Raw),
            "qcow2" => Ok(Self::Qcow2),
            _ => Err("a disk's format is raw or qcow2; convert others with 'qemu-img convert'"),
        }
    }
}

/// What stands between the disk and the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cache {
    /// The host's page cache; flushes reach the host's disk.
    #[default]
    Writeback,
    /// The same, and every write is flushed.
    Writethrough,
    /// Nothing: the host's disk itself.
    None,
    /// The host's page cache, and flushes do nothing: a crash of the host may cost the disk.
    Unsafe,
}

impl FromStr for Cache {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "writeback" => Ok(Self::Writeback),
            "writethrough" => Ok(Self::Writethrough),
            "none" => Ok(Self::None),
            "unsafe" => Ok(Self::Unsafe),
            _ => Err("cache is writeback, writethrough, none or unsafe"),
        }
    }
}

/// A file of a disk, as it is to be opened.
struct Wanted<'a> {
    path: &'a Path,
    write: bool,
    direct: bool,
}

/// Where a disk's files come from: from the host by their names, or from whoever has opened them.
pub(crate) struct Files<'a>(Option<Vec<(Wanted<'a>, File)>>);

impl Files<'_> {
    /// From the host.
    pub(crate) const HOST: Files<'static> = Files(None);

    pub(crate) fn open(&self, path: &Path, write: bool, direct: bool) -> Result<File, OpenError> {
        let Some(given) = &self.0 else { return open_file(path, write, direct) };
        let is_it = |wanted: &Wanted<'_>| wanted.path == path && wanted.direct == direct;
        let found = given.iter().find(|(wanted, _)| is_it(wanted));
        let (_, file) = found.ok_or_else(|| OpenError::Missing { path: path.into() })?;
        clone(file, path)
    }
}

/// A disk, as an operator asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DiskOptions {
    /// The file or block device.
    pub path: PathBuf,
    /// Its format; without one, the name decides: `.qcow2` is qcow2, all else raw.
    pub format: Option<Format>,
    /// It is not written.
    pub read_only: bool,
    /// What a qcow2 image stands on, from the top down. Only these are opened.
    pub backing: Vec<(PathBuf, Option<Format>)>,
    /// What is between it and the host's disk.
    pub cache: Cache,
    /// Discards by the guest do nothing.
    pub keep_discarded: bool,
    /// How fast it may be.
    pub limits: Limits,
    /// Changes are thrown away at the end.
    pub snapshot: bool,
}

impl DiskOptions {
    /// A file, and everything else as it is when nothing is said.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), ..Self::default() }
    }

    /// Opens and locks the disk and all layers below it.
    ///
    /// # Errors
    /// When a file is not what it must be, another program uses it, or the host refuses.
    pub fn open(&self) -> Result<Arc<dyn Disk>, OpenError> {
        self.open_from(&Files::HOST, None)
    }

    /// Opens the files of the disk, for a process that cannot: [`DiskOptions::open_given`] there.
    ///
    /// # Errors
    /// When one is not there, or the host refuses.
    pub fn open_files(&self) -> Result<Vec<File>, OpenError> {
        let open = |wanted: Wanted<'_>| open_file(wanted.path, wanted.write, wanted.direct);
        let mut files: Vec<File> = self.wanted().into_iter().map(open).collect::<Result<_, _>>()?;
        if self.has_overlay() {
            let directory = Overlay::directory();
            let made = Overlay::make_file(&directory);
            files.push(made.map_err(|source| OpenError::Overlay { directory, source })?);
        }
        Ok(files)
    }

    /// As [`DiskOptions::open`], with files that [`DiskOptions::open_files`] of the same options has opened.
    ///
    /// # Errors
    /// As there, and when a file is missing.
    pub fn open_given(&self, mut files: Vec<File>) -> Result<Arc<dyn Disk>, OpenError> {
        let overlay = if self.has_overlay() { files.pop() } else { None };
        self.open_from(&self.given(files), overlay)
    }

    /// The files of [`DiskOptions::open_files`].
    pub(crate) fn given(&self, files: Vec<File>) -> Files<'_> {
        Files(Some(self.wanted().into_iter().zip(files).collect()))
    }

    fn has_overlay(&self) -> bool {
        self.snapshot && !self.read_only
    }

    /// Each of the disk's files, and, where the host's cache is passed by, each once more for that.
    fn wanted(&self) -> Vec<Wanted<'_>> {
        let write = !self.read_only && !self.snapshot;
        let below = self.backing.iter().map(|(path, _)| (path.as_path(), false));
        let names = std::iter::once((self.path.as_path(), write)).chain(below);
        let ways: &[bool] = if self.cache == Cache::None { &[false, true] } else { &[false] };
        let each =
            |(path, write)| ways.iter().map(move |direct| Wanted { path, write, direct: *direct });
        names.flat_map(each).collect()
    }

    fn open_from(
        &self,
        files: &Files<'_>,
        overlay: Option<File>,
    ) -> Result<Arc<dyn Disk>, OpenError> {
        let path = &self.path;
        let write = !self.read_only && !self.snapshot;
        let format = format_of(path, self.format, files)?;
        if format == Format::Raw && !self.backing.is_empty() {
            return Err(OpenError::RawBacking { path: path.clone() });
        }
        let disk: Arc<dyn Disk> = match format {
            Format::Raw => Arc::new(RawDisk::open_with(path, write, self.cache, files)?),
            Format::Qcow2 => Arc::new(self.open_qcow2(write, files)?),
        };
        let disk: Arc<dyn Disk> = if self.has_overlay() {
            let directory = Overlay::directory();
            let file = overlay.map_or_else(|| Overlay::make_file(&directory), Ok);
            let made = file.and_then(|file| Overlay::new(disk, file));
            Arc::new(made.map_err(|source| OpenError::Overlay { directory, source })?)
        } else {
            disk
        };
        let disk: Arc<dyn Disk> = match self.cache {
            Cache::Unsafe => {
                Arc::new(Adjusted { disk, flush: false, discard: !self.keep_discarded })
            }
            _ if self.keep_discarded => Arc::new(Adjusted { disk, flush: true, discard: false }),
            _ => disk,
        };
        Ok(if self.limits == Limits::default() {
            disk
        } else {
            Arc::new(Limited::new(disk, &self.limits))
        })
    }

    fn open_qcow2(&self, write: bool, files: &Files<'_>) -> Result<Qcow2Disk, OpenError> {
        let top = self.chain(write, files, None)?;
        let failed = |source| OpenError::Host { path: self.path.clone(), source };
        let disk = Qcow2Disk::new(top, &self.path, write, self.cache).map_err(failed)?;
        let size_bytes = disk.info().size_bytes;
        if size_bytes == 0 || !size_bytes.is_multiple_of(crate::SECTOR_SIZE) {
            return Err(OpenError::Size { path: self.path.clone(), size_bytes });
        }
        Ok(disk)
    }

    /// Opens, locks and checks the files of a qcow2 disk. With `unlocked`, only the first is locked, and the
    /// others come there, for who has them locked in another way to do it later.
    pub(crate) fn chain(
        &self,
        write: bool,
        files: &Files<'_>,
        mut unlocked: Option<&mut Vec<File>>,
    ) -> Result<Layer, OpenError> {
        let names = std::iter::once((&self.path, Some(Format::Qcow2)))
            .chain(self.backing.iter().map(|(path, format)| (path, *format)));
        let direct = self.cache == Cache::None;
        let mut layers = Vec::new();
        let mut seen = Vec::new();
        for (n, (path, format)) in names.enumerate() {
            let write = write && n == 0;
            let file = files.open(path, write, direct)?;
            let host = |source| OpenError::Host { path: path.clone(), source };
            let metadata = file.metadata().map_err(host)?;
            let identity = (metadata.dev(), metadata.ino());
            if seen.contains(&identity) || n >= LAYERS_MAX {
                return Err(OpenError::Loop { path: path.clone() });
            }
            seen.push(identity);
            match &mut unlocked {
                Some(unlocked) if n > 0 => unlocked.push(clone(&file, path)?),
                _ => lock(&file, path, write)?,
            }
            let refused = |source| OpenError::Qcow2 { path: path.clone(), source };
            let last = n == self.backing.len();
            if format_of(path, format, files)? == Format::Raw {
                if !last {
                    return Err(OpenError::RawBacking { path: path.clone() });
                }
                layers.push(Layer::Raw(file));
                continue;
            }
            // The library reads through descriptors that may be direct: the header is not aligned.
            let looked = if direct { files.open(path, false, false)? } else { clone(&file, path)? };
            let header = header::check(&looked, write).map_err(refused)?;
            if write {
                // What a writer that was killed has left.
                let file = if direct { &files.open(path, true, false)? } else { &file };
                leaks::reclaim(file, &header.tables).map_err(refused)?;
            }
            match (header.backing, last) {
                (Some(name), true) => {
                    return Err(refused(crate::Qcow2Error::BackingNotNamed(name)));
                }
                (None, false) => return Err(refused(crate::Qcow2Error::NoBacking)),
                _ => layers.push(Layer::Qcow2(file, None)),
            }
        }
        let chain = layers.into_iter().rev().reduce(|below, layer| match layer {
            Layer::Qcow2(file, _) => Layer::Qcow2(file, Some(Box::new(below))),
            raw @ Layer::Raw(_) => raw,
        });
        chain.ok_or_else(|| OpenError::Missing { path: self.path.clone() })
    }
}

fn clone(file: &File, path: &Path) -> Result<File, OpenError> {
    file.try_clone().map_err(|source| OpenError::Host { path: path.into(), source })
}

/// The format of `path`, when what its content claims does not speak against it.
fn format_of(path: &Path, asked: Option<Format>, files: &Files<'_>) -> Result<Format, OpenError> {
    if let Some(format) = asked {
        return Ok(format);
    }
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("qcow2")) {
        return Ok(Format::Qcow2);
    }
    let file = files.open(path, false, false)?;
    match header::magic_of(&file) {
        Some(found) => Err(OpenError::Unclear { path: path.into(), found }),
        None => Ok(Format::Raw),
    }
}

/// Opens a file or block device.
///
/// # Errors
/// When nothing is there, it is something else, or the host refuses.
pub(crate) fn open_file(path: &Path, write: bool, direct: bool) -> Result<File, OpenError> {
    let access = if write { OFlags::RDWR } else { OFlags::RDONLY };
    // Without NONBLOCK, opening a pipe would wait for its other end for ever.
    let mut flags = access | OFlags::CLOEXEC | OFlags::NONBLOCK;
    flags.set(OFlags::DIRECT, direct);
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| match error {
        Errno::NOENT | Errno::NOTDIR => OpenError::Missing { path: path.into() },
        Errno::ISDIR => OpenError::Directory { path: path.into() },
        Errno::ACCESS | Errno::PERM | Errno::ROFS => {
            OpenError::Permission { path: path.into(), write }
        }
        Errno::NXIO => OpenError::Kind { path: path.into() },
        Errno::INVAL if direct => OpenError::NoDirect { path: path.into() },
        error => OpenError::Host { path: path.into(), source: error.into() },
    })?;
    Ok(file.into())
}

/// Locks a file against other openers of ours: for writing alone, for reading with readers.
///
/// # Errors
/// When another has it.
pub(crate) fn lock(file: &File, path: &Path, write: bool) -> Result<(), OpenError> {
    let lock = if write {
        FlockOperation::NonBlockingLockExclusive
    } else {
        FlockOperation::NonBlockingLockShared
    };
    match rustix::fs::flock(file, lock) {
        Err(Errno::WOULDBLOCK) => Err(OpenError::Locked { path: path.into() }),
        // File systems without locks exist; two writers there are the operator's care.
        Err(Errno::NOLCK | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(()),
        result => result.map_err(|e| OpenError::Host { path: path.into(), source: e.into() }),
    }
}

/// A disk of which something is left out.
struct Adjusted {
    disk: Arc<dyn Disk>,
    flush: bool,
    discard: bool,
}

impl Disk for Adjusted {
    fn info(&self) -> crate::DiskInfo {
        self.disk.info()
    }

    fn grow(&self, size_bytes: u64) -> std::io::Result<()> {
        self.disk.grow(size_bytes)
    }

    fn lay(&self, over: &DiskOptions, files: Vec<File>) -> Result<(), OpenError> {
        self.disk.lay(over, files)
    }

    fn read(&self, offset: u64, buffers: &[vm_memory::VolatileSlice<'_>]) -> std::io::Result<()> {
        self.disk.read(offset, buffers)
    }

    fn write(&self, offset: u64, buffers: &[vm_memory::VolatileSlice<'_>]) -> std::io::Result<()> {
        self.disk.write(offset, buffers)
    }

    fn flush(&self) -> std::io::Result<()> {
        if self.flush { self.disk.flush() } else { Ok(()) }
    }

    fn discard(&self, offset: u64, size_bytes: u64) -> std::io::Result<()> {
        if self.discard {
            return self.disk.discard(offset, size_bytes);
        }
        crate::check_range(self.info().size_bytes, offset, size_bytes)
    }

    fn write_zeroes(&self, offset: u64, size_bytes: u64, unmap: bool) -> std::io::Result<()> {
        self.disk.write_zeroes(offset, size_bytes, unmap && self.discard)
    }

    fn may_wait(&self) -> bool {
        self.disk.may_wait()
    }

    fn hurry(&self, on: bool) {
        self.disk.hurry(on);
    }
}
