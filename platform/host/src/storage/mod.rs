//! Disks in pools.
//!
//! ```text
//! POOL/ID/disk.json   what the disk is made of
//!         layer-N     a layer: qcow2, or an image's bytes as another name of its file
//! POOL/.going-ID      a disk that goes away
//! ```

mod jobs;
mod manifest;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{Disk, DiskId, Name, Pool, Revert, SnapshotId, default_pool};
use reconcile::{DiskState, HostError, SeenDisk, SeenSnapshot};
use storage::DiskOptions;

use crate::folder::Folder;
pub(crate) use manifest::{DiskFolder, Manifest};

/// What a folder is called while it goes away.
const GOING: &str = ".going-";

/// Something that is being done to a disk, on a thread of its own.
enum Job {
    /// It is being made; so much of 100 is done.
    Making(u8),
    /// It could not be.
    Failed(String),
    /// A snapshot is being taken.
    Snapshot,
    /// Layers are being merged, until this is set.
    Merging(Arc<AtomicBool>),
    /// It went wrong, and is not tried again before this.
    Trouble(String, std::time::Instant),
}

/// What is known of a disk between looks.
#[derive(Default)]
struct Memory {
    folder: Option<DiskFolder>,
    job: Option<Job>,
}

/// The disks of this host.
#[derive(Clone)]
pub(crate) struct Storage(Arc<Inner>);

struct Inner {
    /// Where the default pool is.
    home: PathBuf,
    vms: PathBuf,
    images: images::Store,
    pools: Mutex<BTreeMap<Name, PathBuf>>,
    memories: Mutex<BTreeMap<DiskId, Memory>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What went wrong with a folder, in words for people.
fn told(doing: &str, at: &Path) -> impl Fn(io::Error) -> HostError {
    let (doing, at) = (doing.to_owned(), at.display().to_string());
    move |error| {
        HostError(match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                format!("no space is left for {at}: make room there")
            }
            _ => format!("cannot {doing} in {at}: {}", errchain::Chain(&error)),
        })
    }
}

impl Storage {
    /// Disks of the default pool are in this folder.
    pub fn open(home: &Path, vms: &Path, images: images::Store) -> io::Result<Self> {
        let home = std::path::absolute(home)?;
        fs::create_dir_all(&home)?;
        // Of disks that were sent and never made.
        for image in images.list().unwrap_or_default() {
            if image.name.as_ref().starts_with(crate::UPLOAD) && !is_linked(&image.path) {
                let _ = images.remove(&image.name);
            }
        }
        let pools = Mutex::new([(default_pool(), home.clone())].into());
        let vms = vms.to_owned();
        Ok(Self(Arc::new(Inner { home, vms, images, pools, memories: Mutex::default() })))
    }

    fn pool(&self, name: &Name) -> Result<PathBuf, HostError> {
        let missing = || HostError(format!("there is no pool '{name}'"));
        lock(&self.0.pools).get(name).cloned().ok_or_else(missing)
    }

    /// All disks of these pools, or those of them that are there. A pool whose folder cannot be read has none.
    pub fn see(
        &self,
        pools: &[Pool],
        of: Option<&BTreeSet<DiskId>>,
    ) -> Result<Vec<SeenDisk>, HostError> {
        let place = |pool: &Pool| {
            let path = pool.path.as_ref().map_or_else(|| self.0.home.clone(), PathBuf::from);
            (pool.name.clone(), path)
        };
        let places: BTreeMap<Name, PathBuf> = pools.iter().map(place).collect();
        lock(&self.0.pools).clone_from(&places);
        let mut seen = Vec::new();
        if let Some(ids) = of {
            for (path, id) in places.values().flat_map(|path| ids.iter().map(move |id| (path, *id)))
            {
                let folder = DiskFolder::of(path, id);
                if folder.path().exists() {
                    seen.push(self.look(id, folder).map_err(told("look", path))?);
                }
            }
            return Ok(seen);
        }
        for path in places.values() {
            let Ok(entries) = fs::read_dir(path) else { continue };
            for entry in entries {
                let entry = entry.map_err(told("look", path))?;
                let name = entry.file_name();
                let Some(name) = name.to_str() else { continue };
                if name.starts_with(GOING) {
                    fs::remove_dir_all(entry.path()).map_err(told("tidy up", path))?;
                } else if let Ok(id) = name.parse::<DiskId>() {
                    let folder = DiskFolder::of(path, id);
                    seen.push(self.look(id, folder).map_err(told("look", path))?);
                }
            }
        }
        Ok(seen)
    }

    fn look(&self, id: DiskId, folder: DiskFolder) -> io::Result<SeenDisk> {
        let mut seen = SeenDisk {
            id,
            state: DiskState::None,
            is_busy: false,
            is_untidy: false,
            size_bytes: 0,
            used_bytes: 0,
            snapshots: Vec::new(),
            reverts: 0,
            trouble: None,
        };
        let manifest = {
            let mut memories = lock(&self.0.memories);
            let memory = memories.entry(id).or_default();
            memory.folder = Some(folder.clone());
            match &memory.job {
                Some(Job::Making(percent)) => {
                    return Ok(SeenDisk { state: DiskState::Making(*percent), ..seen });
                }
                Some(Job::Failed(why)) => {
                    return Ok(SeenDisk { state: DiskState::Failed(why.clone()), ..seen });
                }
                Some(Job::Snapshot) => seen.is_busy = true,
                Some(Job::Trouble(why, until)) => {
                    seen.trouble = Some(why.clone());
                    if std::time::Instant::now() >= *until {
                        memory.job = None;
                    }
                }
                Some(Job::Merging(_)) | None => {}
            }
            // Under the lock: a job replaces the manifest and ends in one.
            folder.load()?
        };
        let Some(manifest) = manifest else { return Ok(seen) };
        if manifest.pending.is_some() && !seen.is_busy && seen.trouble.is_none() {
            // A daemon that was killed has begun it.
            seen.is_busy = true;
            self.resume_snapshot(id, &folder, &manifest);
        }
        seen.state = DiskState::Ready;
        seen.is_untidy = manifest.mergeable(true).is_some()
            || manifest.mergeable(false).is_some() && !folder.is_in_use(&manifest)?;
        seen.size_bytes = manifest.size_bytes;
        seen.used_bytes = folder.used_bytes(&manifest);
        seen.reverts = manifest.reverts;
        let snapshot = |(id, taken): (&SnapshotId, &manifest::Taken)| SeenSnapshot {
            id: *id,
            size_bytes: taken.size_bytes,
            consistency: taken.consistency,
        };
        seen.snapshots = manifest.snapshots.iter().map(snapshot).collect();
        Ok(seen)
    }

    fn folder(&self, disk: &Disk) -> Result<DiskFolder, HostError> {
        Ok(DiskFolder::of(&self.pool(&disk.spec.pool)?, disk.meta.id))
    }

    /// Does something with a disk that nothing else is being done with; when something is, it is told to end and this
    /// is done another time: `None`.
    fn alone<T>(
        &self,
        disk: &Disk,
        doing: &str,
        does: impl FnOnce(&DiskFolder, &mut Manifest) -> io::Result<T>,
    ) -> Result<Option<T>, HostError> {
        let folder = self.folder(disk)?;
        let mut memories = lock(&self.0.memories);
        match memories.get(&disk.meta.id).and_then(|memory| memory.job.as_ref()) {
            Some(Job::Merging(stops)) => {
                stops.store(true, Ordering::Relaxed);
                return Ok(None);
            }
            Some(Job::Making(_) | Job::Snapshot) => return Ok(None),
            Some(Job::Trouble(..) | Job::Failed(_)) | None => {}
        }
        let failed = told(doing, folder.path());
        let Some(mut manifest) = folder.load().map_err(&failed)? else {
            return Err(HostError("the disk is not made yet".to_owned()));
        };
        let done = does(&folder, &mut manifest).map_err(failed);
        if done.is_ok() {
            memories.entry(disk.meta.id).or_default().job = None;
        }
        done.map(Some)
    }

    /// Makes a disk that no VM runs with larger, or notes that its VM has.
    pub fn grow(&self, disk: &Disk, is_grown: bool) -> Result<(), HostError> {
        let size_bytes = disk.spec.size_bytes;
        self.alone(disk, "make a disk larger", |folder, manifest| {
            if !is_grown {
                let opened = folder.options(manifest, manifest.top).open();
                opened.map_err(io::Error::other)?.grow(size_bytes)?;
            }
            manifest.size_bytes = size_bytes;
            folder.save(manifest)
        })
        .map(drop)
    }

    pub fn revert(&self, disk: &Disk, revert: &Revert) -> Result<(), HostError> {
        self.alone(disk, "revert a disk", |folder, manifest| {
            if manifest.reverts < revert.number && folder.is_in_use(manifest)? {
                return Err(io::Error::other("the disk is in use"));
            }
            folder.revert(manifest, revert.to, revert.number)
        })
        .map(drop)
    }

    pub fn tidy(&self, disk: &Disk, keep: &[SnapshotId]) -> Result<(), HostError> {
        {
            let memories = lock(&self.0.memories);
            let job = memories.get(&disk.meta.id).and_then(|memory| memory.job.as_ref());
            if matches!(job, Some(Job::Merging(_))) {
                return Ok(());
            }
        }
        let found = self.alone(disk, "forget snapshots of a disk", |folder, manifest| {
            folder.keep(manifest, keep)?;
            let is_in_use = folder.is_in_use(manifest)?;
            Ok(manifest.mergeable(is_in_use).map(|pair| (folder.clone(), manifest.clone(), pair)))
        })?;
        if let Some(Some((folder, manifest, pair))) = found {
            self.merge(disk.meta.id, folder, manifest, pair)?;
        }
        Ok(())
    }

    /// What a VM's process is told to open, and that as it is. `None`: not now.
    pub fn open_as(&self, disk: &Disk) -> Result<Option<(String, DiskOptions)>, HostError> {
        self.alone(disk, "open a disk", |folder, manifest| {
            let options = folder.options(manifest, manifest.top);
            Ok((format!("{},serial={}", folder.told(&options), disk.meta.name), options))
        })
    }

    pub fn remove(&self, id: DiskId) -> Result<(), HostError> {
        let mut memories = lock(&self.0.memories);
        let Some(memory) = memories.get(&id) else { return Ok(()) };
        match &memory.job {
            Some(Job::Making(_) | Job::Snapshot) => return Ok(()),
            Some(Job::Merging(stops)) => {
                stops.store(true, Ordering::Relaxed);
                return Ok(());
            }
            _ => {}
        }
        let Some(folder) = memory.folder.clone() else { return Ok(()) };
        let failed = told("remove a disk", folder.path());
        if let Some(manifest) = folder.load().map_err(&failed)?
            && folder.is_in_use(&manifest).unwrap_or(false)
        {
            return Err(HostError("the disk is in use".to_owned()));
        }
        let Some(pool) = folder.path().parent() else { return Ok(()) };
        let going = pool.join(format!("{GOING}{id}"));
        let gone = fs::rename(folder.path(), &going).and_then(|()| fs::remove_dir_all(&going));
        memories.remove(&id);
        gone.map_err(failed)
    }

    fn vm_folder(&self, vm: model::VmId) -> Folder {
        Folder::of(&self.0.vms, vm)
    }
}

/// A disk has these bytes, too.
fn is_linked(image: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(image).is_ok_and(|metadata| metadata.nlink() > 1)
}
