//! What is where, and who may change it.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::error::host;
use crate::{Id, ImageError, Name, Partial, Progress, digest};

/// The store.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// What a name stands for, as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub version: u32,
    pub name: Name,
    pub id: Id,
    pub size_bytes: u64,
    pub created: Timestamp,
    pub source: String,
}

impl Record {
    /// Fields are added without a new number.
    pub const VERSION: u32 = 1;
}

/// An image.
#[derive(Debug, Clone, Serialize)]
pub struct Image {
    /// What people call it.
    pub name: Name,
    /// What it is.
    pub id: Id,
    /// Bytes of the disk.
    pub size_bytes: u64,
    /// Bytes it takes here.
    pub used_bytes: u64,
    /// When it came.
    pub created: Timestamp,
    /// From where.
    pub source: String,
    /// The disk: a raw image nobody writes to.
    pub path: PathBuf,
}

impl Store {
    /// The user's own: in `$TRINE_HOME`, `$XDG_DATA_HOME/trine` or `~/.local/share/trine`.
    ///
    /// # Errors
    /// When there is none of these, or it cannot be made.
    pub fn of_user() -> Result<Self, ImageError> {
        let variable = |name| std::env::var_os(name).map(PathBuf::from);
        // The XDG Base Directory specification: what is not absolute does not count.
        let absolute = |path: &PathBuf| path.is_absolute();
        let home = variable("TRINE_HOME").filter(|path| !path.as_os_str().is_empty());
        let home = home
            .or_else(|| variable("XDG_DATA_HOME").filter(absolute).map(|path| path.join("trine")))
            .or_else(|| {
                variable("HOME").filter(absolute).map(|path| path.join(".local/share/trine"))
            });
        Self::open(&home.ok_or(ImageError::NoHome)?.join("images"))
    }

    /// The one in this folder, which is made.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(root: &Path) -> Result<Self, ImageError> {
        for folder in ["disks", "names", "partial"] {
            let path = root.join(folder);
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
            made.map_err(host("make the folder", &path))?;
        }
        // Programs of other folders are told its paths.
        let root = std::path::absolute(root).map_err(host("find", root))?;
        Ok(Self { root })
    }

    /// A new disk on its way in.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn partial(&self) -> Result<Partial<'_>, ImageError> {
        Partial::new(self)
    }

    /// All images, by name.
    ///
    /// # Errors
    /// When the host refuses, or a record is damaged.
    pub fn list(&self) -> Result<Vec<Image>, ImageError> {
        let folder = self.root.join("names");
        let failed = host("list", &folder);
        let mut images = Vec::new();
        for entry in fs::read_dir(&folder).map_err(&failed)? {
            let file_name = entry.map_err(&failed)?.file_name();
            // Others are on their way.
            let Some(Ok(name)) = file_name.to_str().map(str::parse::<Name>) else { continue };
            match self.find(&name) {
                Err(ImageError::Missing(_)) => {}
                image => images.push(image?),
            }
        }
        images.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(images)
    }

    /// The image of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(&self, name: &Name) -> Result<Image, ImageError> {
        let path = self.record(name);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ImageError::Missing(name.to_string()));
            }
            text => text.map_err(host("read", &path))?,
        };
        let record: Record =
            serde_json::from_slice(&text).map_err(|source| ImageError::Record { path, source })?;
        Ok(self.image(record))
    }

    /// Forgets a name; the disk goes with its last one.
    ///
    /// # Errors
    /// When there is no such image, or a VM uses its disk.
    pub fn remove(&self, name: &Name) -> Result<(), ImageError> {
        let _lock = self.lock()?;
        let image = self.find(name)?;
        let is_last = self.names_of(image.id)? == 1;
        if is_last && is_used(&image.path)? {
            return Err(ImageError::InUse(name.to_string()));
        }
        let path = self.record(name);
        fs::remove_file(&path).map_err(host("remove", &path))?;
        self.sync("names")?;
        self.forget_disk(image.id)
    }

    /// Reads an image's disk and compares it with its ID.
    ///
    /// # Errors
    /// When it is not the same.
    pub fn verify(&self, image: &Image, progress: Progress<'_>) -> Result<(), ImageError> {
        let failed = host("read", &image.path);
        let file = File::open(&image.path).map_err(&failed)?;
        let is_same = digest::of(&file, progress).map_err(&failed)? == image.id;
        if is_same { Ok(()) } else { Err(ImageError::Damaged { name: image.name.to_string() }) }
    }

    /// Makes changes wait for each other, until the file is dropped. Nothing long is done under it.
    pub(crate) fn lock(&self) -> Result<File, ImageError> {
        let path = self.root.join("lock");
        let failed = host("lock", &path);
        let file = File::create(&path).map_err(&failed)?;
        rustix::io::retry_on_intr(|| flock(&file, FlockOperation::LockExclusive))
            .map_err(|e| failed(e.into()))?;
        Ok(file)
    }

    pub(crate) fn partials(&self) -> PathBuf {
        self.root.join("partial")
    }

    pub(crate) fn disk(&self, id: Id) -> PathBuf {
        self.root.join("disks").join(id.to_string())
    }

    fn record(&self, name: &Name) -> PathBuf {
        self.root.join("names").join(name.as_ref())
    }

    pub(crate) fn image(&self, record: Record) -> Image {
        let Record { version: _, name, id, size_bytes, created, source } = record;
        let path = self.disk(id);
        let used_bytes = fs::metadata(&path).map_or(0, |disk| disk.blocks() * 512);
        Image { name, id, size_bytes, used_bytes, created, source, path }
    }

    /// Writes a record: the old one or the new one is there, whatever happens.
    pub(crate) fn write(&self, record: &Record) -> Result<(), ImageError> {
        let path = self.record(&record.name);
        let failed = host("write", &path);
        let mut text = serde_json::to_vec_pretty(record)
            .map_err(|source| ImageError::Record { path: path.clone(), source })?;
        text.push(b'\n');
        let mut file = NamedTempFile::new_in(self.partials()).map_err(&failed)?;
        file.write_all(&text).map_err(&failed)?;
        file.as_file().sync_all().map_err(&failed)?;
        file.persist(&path).map_err(|error| failed(error.error))?;
        self.sync("names")
    }

    /// Brings a folder's changes to the medium.
    pub(crate) fn sync(&self, folder: &str) -> Result<(), ImageError> {
        let path = self.root.join(folder);
        let synced = File::open(&path).and_then(|folder| folder.sync_all());
        synced.map_err(host("write", &path))
    }

    /// Removes a disk that has no name any more and is not used. The store is locked.
    pub(crate) fn forget_disk(&self, id: Id) -> Result<(), ImageError> {
        let path = self.disk(id);
        if self.names_of(id)? > 0 || is_used(&path)? {
            return Ok(());
        }
        fs::remove_file(&path).map_err(host("remove", &path))?;
        self.sync("disks")
    }

    fn names_of(&self, id: Id) -> Result<usize, ImageError> {
        Ok(self.list()?.iter().filter(|image| image.id == id).count())
    }
}

/// Whoever runs a VM from a disk holds a lock on it.
fn is_used(path: &Path) -> Result<bool, ImageError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file.map_err(host("open", path))?,
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Ok(true),
        _ => Ok(false),
    }
}
