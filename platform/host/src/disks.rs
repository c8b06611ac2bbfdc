//! Disks on their way.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use images::{Format, Store};
use model::{Vm, VmId};
use reconcile::{Disk, HostError};

use crate::folder::Folder;

/// What is being made, and what could not be.
#[derive(Default)]
pub(crate) struct Disks(Arc<Mutex<BTreeMap<VmId, Disk>>>);

impl Disks {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<VmId, Disk>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn see(&self, id: VmId, folder: &Folder) -> Disk {
        if folder.is_ready() {
            return Disk::Ready;
        }
        self.lock().get(&id).cloned().unwrap_or(Disk::None)
    }

    /// VMs that are being made, whether or not there is a folder yet, and those that could not be.
    pub fn ids(&self) -> Vec<VmId> {
        self.lock().keys().copied().collect()
    }

    pub fn is_making(&self, id: VmId) -> bool {
        matches!(self.lock().get(&id), Some(Disk::Making(_)))
    }

    pub fn forget(&self, id: VmId) {
        self.lock().remove(&id);
    }

    /// Begins to make what the VM starts with, on a thread of its own.
    pub fn make(&self, vm: &Vm, folder: &Folder, images: &Store) -> Result<(), HostError> {
        let (id, boot) = (vm.meta.id, vm.spec.boot);
        if matches!(self.lock().insert(id, Disk::Making(0)), Some(Disk::Making(_))) {
            return Ok(());
        }
        let (vm, folder, images, all) =
            (vm.clone(), folder.clone(), images.clone(), self.0.clone());
        let work = move || {
            let tell = |percent| {
                let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                all.insert(id, Disk::Making(percent));
            };
            let made = make(&vm, &folder, &images, tell);
            let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
            match made {
                Ok(()) => all.remove(&id),
                Err(reason) => all.insert(id, Disk::Failed(boot, reason)),
            };
        };
        let started = thread::Builder::new().name("disk".into()).spawn(work);
        started.map(|_| ()).map_err(|error| {
            self.forget(id);
            HostError(format!("cannot start a thread for the disk: {error}"))
        })
    }
}

fn make(vm: &Vm, folder: &Folder, images: &Store, tell: impl Fn(u8)) -> Result<(), String> {
    let failed =
        |error: std::io::Error| format!("cannot make {}: {error}", folder.path().display());
    folder.make().map_err(failed)?;
    if let Some(image) = &vm.spec.image {
        // What a copy that was cut off has left.
        for entry in fs::read_dir(folder.path()).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name().to_string_lossy().starts_with(".tmp") {
                fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        if folder.disk().exists() {
            fs::remove_file(folder.disk()).map_err(failed)?;
        }
        let said = |error: images::ImageError| errchain::Chain(&error).to_string();
        let image = images.find(&image.parse().map_err(said)?).map_err(said)?;
        let mut progress = |done: u64, all: Option<u64>| {
            let of = all.unwrap_or(image.size_bytes).max(1);
            tell(u8::try_from(done.saturating_mul(100) / of).unwrap_or(100).min(99));
        };
        images::export(&image, &folder.disk(), Format::Raw, &mut progress).map_err(said)?;
        if let Some(bytes) = vm.spec.disk_bytes {
            if bytes < image.size_bytes {
                let least = image.size_bytes;
                return Err(format!("the disk is smaller than its image: give {least} or more"));
            }
            let disk = File::options().write(true).open(folder.disk()).map_err(failed)?;
            disk.set_len(bytes).and_then(|()| disk.sync_all()).map_err(failed)?;
        }
    }
    folder.set_ready().map_err(failed)
}
