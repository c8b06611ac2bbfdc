//! Disks on their way in.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use tempfile::NamedTempFile;

use crate::error::host;
use crate::store::Record;
use crate::{Image, ImageError, Name, Progress, Store, digest};

/// A file in the store that nobody else sees. It is gone with this, unless it was committed.
#[derive(Debug)]
pub struct Partial<'a> {
    store: &'a Store,
    file: NamedTempFile,
}

impl<'a> Partial<'a> {
    /// An empty file.
    pub(crate) fn new(store: &'a Store) -> Result<Self, ImageError> {
        let folder = store.partials();
        // Between its making and its lock, it looks like one whose maker was killed.
        let _lock = store.lock()?;
        sweep(&folder)?;
        let made = tempfile::Builder::new().prefix("").tempfile_in(&folder);
        let file = made.map_err(host("make a file in", &folder))?;
        flock(file.as_file(), FlockOperation::LockExclusive)
            .map_err(|e| host("lock", file.path())(e.into()))?;
        Ok(Self { store, file })
    }

    /// The file, to be filled in any way.
    pub fn file(&self) -> &File {
        self.file.as_file()
    }

    /// Where it is, for other programs to fill.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Makes it an image. An image of that name stays only as a disk under its other names.
    ///
    /// # Errors
    /// When it is no disk, the name is taken and is not to be replaced, or the host refuses.
    pub fn commit(
        self,
        name: &Name,
        source: &str,
        replace: bool,
        progress: Progress<'_>,
    ) -> Result<Image, ImageError> {
        let path = self.path().to_owned();
        let (file, failed) = (self.file.as_file(), host("store", &path));
        let size_bytes = file.metadata().map_err(&failed)?.len();
        if size_bytes == 0 || !size_bytes.is_multiple_of(512) {
            return Err(ImageError::Size { what: source.to_owned(), size_bytes });
        }
        let id = digest::of(file, progress).map_err(&failed)?;
        file.set_permissions(Permissions::from_mode(0o444)).map_err(&failed)?;
        file.sync_all().map_err(&failed)?;

        let record = Record {
            version: Record::VERSION,
            name: name.clone(),
            id,
            size_bytes,
            created: Timestamp::now(),
            source: source.to_owned(),
        };
        let store = self.store;
        let _lock = store.lock()?;
        let before = match store.find(name) {
            Ok(_) if !replace => return Err(ImageError::Exists(name.to_string())),
            Ok(image) => Some(image),
            Err(ImageError::Missing(_)) => None,
            Err(error) => return Err(error),
        };
        let to = store.disk(id);
        if !to.exists() {
            let keep = self.file.persist(&to);
            keep.map_err(|error| host("store", &to)(error.error))?;
            store.sync("disks")?;
        }
        store.write(&record)?;
        if let Some(before) = before {
            store.forget_disk(before.id)?;
        }
        Ok(store.image(record))
    }
}

/// Removes what killed processes left. The store is locked.
fn sweep(folder: &Path) -> Result<(), ImageError> {
    for entry in fs::read_dir(folder).map_err(host("list", folder))? {
        let path = entry.map_err(host("list", folder))?.path();
        // Its maker may have just finished with it.
        let Ok(file) = File::open(&path) else { continue };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = fs::remove_file(&path);
        }
    }
    Ok(())
}
