//! What can be asked of disks.

use model::{Disk, DiskSource, DiskSpec, Name, Operation, Phase, Spec, Verb, Vm, VmSpec};
use store::{Revision, Txn};

use crate::codec::PutJson;
use crate::objects::{Facet, Parts, TRIES, key};
use crate::{Asked, Kept, New, Registry, RegistryError, operations};

/// The image of which a VM's disk is made, and how large it is.
#[derive(Debug, Clone)]
pub struct RootDisk {
    /// The image.
    pub source: DiskSource,
    /// Bytes.
    pub size_bytes: u64,
}

impl Registry {
    /// Asks for a disk.
    ///
    /// # Errors
    /// When it cannot be, its name is taken, the pool has no room for it, or the store fails.
    pub fn create_disk(
        &self,
        new: New<Disk>,
        asked: &Asked,
    ) -> Result<(Kept<Disk>, Operation), RegistryError> {
        let disk = new.object(asked)?;
        check_name(&disk.meta.name)?;
        let operation = operations::new(Verb::Create, &disk, asked);
        let _turn = self.turn(&disk.meta.project)?;
        for _ in 0..TRIES {
            let txn = self.put_new(Txn::new(), &disk)?;
            let txn = self.reserve(txn, &disk.spec.pool, disk.spec.size_bytes)?;
            let txn = txn.put_json(operations::key(operation.id), &operation)?;
            if let Some(revision) = self.commit(&txn)? {
                return Ok((Kept { object: disk, revision }, operation));
            }
        }
        Err(RegistryError::Changed)
    }

    /// Adds to a transaction the disks of a VM that comes to be: those that it names, and one that is made for it.
    pub(crate) fn put_disks(
        &self,
        mut txn: Txn,
        vm: &mut New<Vm>,
        root: Option<RootDisk>,
        asked: &Asked,
    ) -> Result<Txn, RegistryError> {
        for name in &vm.spec.disks {
            let parts = self.parts::<Disk>(&vm.project, name.as_ref())?;
            let spec = attached(&parts.object, &vm.name)?;
            txn = parts.unchanged(txn).put_json(spec_key(&parts.object), &spec)?;
        }
        let Some(RootDisk { source, size_bytes }) = root else { return Ok(txn) };
        let spec = DiskSpec {
            size_bytes,
            source: Some(source),
            pool: model::default_pool(),
            delete_with_vm: true,
            vm: Some(vm.name.clone()),
            revert: None,
            labels: vm.spec.labels.clone(),
        };
        let new = New { name: vm.name.clone(), project: vm.project.clone(), spec };
        check_name(&vm.name)?;
        let disk: Disk = new.object(asked)?;
        txn = self.put_new(txn, &disk)?;
        vm.spec.disks.insert(0, vm.name.clone());
        self.reserve(txn, &disk.spec.pool, size_bytes)
    }

    /// Asks for a larger disk.
    ///
    /// # Errors
    /// When it would be smaller, it is not of the revision that is given, the pool has no room, or the store fails.
    pub fn resize_disk(
        &self,
        project: &Name,
        disk: &str,
        size_bytes: u64,
        revision: Option<Revision>,
        asked: &Asked,
    ) -> Result<Operation, RegistryError> {
        self.change_disk(project, disk, Verb::Resize, revision, asked, |disk, txn| {
            let now = disk.spec.size_bytes;
            if size_bytes < now {
                return Err(RegistryError::Shrink {
                    disk: disk.meta.name.clone(),
                    size_bytes: now,
                });
            }
            let spec = DiskSpec { size_bytes, ..disk.spec.clone() };
            spec.check()?;
            let txn = self.charge(txn, project, disk.spec.takes(), spec.takes())?;
            let txn = self.reserve(txn, &disk.spec.pool, size_bytes - now)?;
            txn.put_json(spec_key(disk), &spec)
        })
    }

    /// Asks that a VM of the same project has a disk, now if it runs.
    ///
    /// # Errors
    /// When another has it, either is not there or going away, or the store fails.
    pub fn attach_disk(
        &self,
        project: &Name,
        disk: &str,
        vm: &str,
        revision: Option<Revision>,
        asked: &Asked,
    ) -> Result<Operation, RegistryError> {
        self.change_disk(project, disk, Verb::Attach, revision, asked, |disk, txn| {
            let parts = self.parts::<Vm>(project, vm)?;
            let vm = &parts.object;
            if vm.meta.deleting {
                return Err(RegistryError::deleting::<Vm>(&vm.meta));
            }
            let spec = attached(disk, &vm.meta.name)?;
            let mut with = vm.spec.clone();
            if !with.disks.contains(&disk.meta.name) {
                with.disks.push(disk.meta.name.clone());
            }
            with.check()?;
            let txn = parts.unchanged(txn).put_json(key::<Vm>(vm.meta.id, Facet::Spec), &with)?;
            txn.put_json(spec_key(disk), &spec)
        })
    }

    /// Asks that a VM has a disk no more. The guest of one that runs is asked to let it go.
    ///
    /// # Errors
    /// When none has it, it is not of the revision that is given, or the store fails.
    pub fn detach_disk(
        &self,
        project: &Name,
        disk: &str,
        revision: Option<Revision>,
        asked: &Asked,
    ) -> Result<Operation, RegistryError> {
        self.change_disk(project, disk, Verb::Detach, revision, asked, |disk, txn| {
            let Some(vm) = &disk.spec.vm else {
                return Err(RegistryError::NotAttached(disk.meta.name.clone()));
            };
            let parts = self.parts::<Vm>(project, vm.as_ref())?;
            let vm = &parts.object;
            let mut disks = vm.spec.disks.clone();
            disks.retain(|name| *name != disk.meta.name);
            let without = VmSpec { disks, ..vm.spec.clone() };
            let spec = DiskSpec { vm: None, delete_with_vm: false, ..disk.spec.clone() };
            let txn =
                parts.unchanged(txn).put_json(key::<Vm>(vm.meta.id, Facet::Spec), &without)?;
            txn.put_json(spec_key(disk), &spec)
        })
    }

    /// Asks that a disk goes away.
    ///
    /// # Errors
    /// When a VM has it, there are snapshots of it and it is not `is_forced`, or the store fails.
    pub fn delete_disk(
        &self,
        project: &Name,
        disk: &str,
        is_forced: bool,
        revision: Option<Revision>,
        asked: &Asked,
    ) -> Result<Operation, RegistryError> {
        self.change_disk(project, disk, Verb::Delete, revision, asked, |disk, txn| {
            if let Some(vm) = disk.spec.vm.as_ref().or(disk.status.vm.as_ref()) {
                let (disk, vm) = (disk.meta.name.clone(), vm.clone());
                return Err(RegistryError::Attached { disk, vm });
            }
            let (snapshots, _) = self.all::<model::Snapshot>(None)?;
            let of_it = snapshots.iter().find(|of| of.spec.disk_ids.contains(&disk.meta.id));
            if let Some(snapshot) = of_it.filter(|_| !is_forced) {
                let snapshot = snapshot.meta.name.clone();
                return Err(RegistryError::HasSnapshots { disk: disk.meta.name.clone(), snapshot });
            }
            let mut meta = disk.meta.clone();
            meta.deleting = true;
            txn.put_json(key::<Disk>(meta.id, Facet::Meta), &meta)
        })
    }

    /// One transaction: the operation, and what `change` adds for the disk as it is.
    fn change_disk(
        &self,
        project: &Name,
        name_or_id: &str,
        verb: Verb,
        revision: Option<Revision>,
        asked: &Asked,
        change: impl Fn(&Disk, Txn) -> Result<Txn, RegistryError>,
    ) -> Result<Operation, RegistryError> {
        for _ in 0..TRIES {
            let parts = self.parts::<Disk>(project, name_or_id)?;
            if revision.is_some_and(|revision| revision != parts.spec) {
                return Err(RegistryError::Changed);
            }
            let disk = &parts.object;
            if disk.meta.deleting {
                return Err(RegistryError::deleting::<Disk>(&disk.meta));
            }
            let operation = operations::new(verb, disk, asked);
            let txn = change(disk, parts.unchanged(Txn::new()))?;
            let txn = txn.put_json(operations::key(operation.id), &operation)?;
            if self.commit(&txn)?.is_some() {
                return Ok(operation);
            }
        }
        Err(RegistryError::Changed)
    }

    /// A VM that goes away and does not run gives its disks free: some go with it.
    ///
    /// # Errors
    /// When the store fails.
    pub fn release_disks(&self, vm: &Vm) -> Result<(), RegistryError> {
        for name in &vm.spec.disks {
            let parts = match self.parts::<Disk>(&vm.meta.project, name.as_ref()) {
                Err(RegistryError::Missing { .. }) => continue,
                parts => parts?,
            };
            let Parts { object: disk, .. } = &parts;
            if disk.spec.vm.as_ref() != Some(&vm.meta.name) {
                continue;
            }
            let txn = parts.unchanged(Txn::new());
            let txn = if disk.spec.delete_with_vm {
                let mut meta = disk.meta.clone();
                meta.deleting = true;
                txn.put_json(key::<Disk>(meta.id, Facet::Meta), &meta)?
            } else {
                txn.put_json(spec_key(disk), &DiskSpec { vm: None, ..disk.spec.clone() })?
            };
            self.commit(&txn)?;
        }
        Ok(())
    }

    /// Adds to the transaction by which a VM goes away that its disks stay.
    pub(crate) fn keep_disks(&self, mut txn: Txn, vm: &Vm) -> Result<Txn, RegistryError> {
        for name in &vm.spec.disks {
            let parts = self.parts::<Disk>(&vm.meta.project, name.as_ref())?;
            let spec = DiskSpec { delete_with_vm: false, ..parts.object.spec.clone() };
            txn = parts.unchanged(txn).put_json(spec_key(&parts.object), &spec)?;
        }
        Ok(txn)
    }
}

pub(crate) fn spec_key(disk: &Disk) -> String {
    key::<Disk>(disk.meta.id, Facet::Spec)
}

/// A VM's other cards are called so.
fn check_name(name: &Name) -> Result<(), RegistryError> {
    let text: &str = name.as_ref();
    let is_card = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if text == "cloud-init" || text.strip_prefix("net").is_some_and(is_card) {
        return Err(RegistryError::Spec(model::SpecError {
            field: "name",
            message: format!("'{text}' is what a VM calls another device: choose another name"),
        }));
    }
    Ok(())
}

/// The spec of a disk that a VM has.
fn attached(disk: &Disk, vm: &Name) -> Result<DiskSpec, RegistryError> {
    if disk.meta.deleting {
        return Err(RegistryError::deleting::<Disk>(&disk.meta));
    }
    let other = disk.spec.vm.as_ref().or(disk.status.vm.as_ref()).filter(|other| *other != vm);
    match other {
        Some(other) => {
            Err(RegistryError::Attached { disk: disk.meta.name.clone(), vm: other.clone() })
        }
        None => Ok(DiskSpec { vm: Some(vm.clone()), ..disk.spec.clone() }),
    }
}

/// Its process is there, or about to be.
pub(crate) fn is_up(vm: &Vm) -> bool {
    let is_coming = vm.spec.power.is_on() && vm.status.boot < vm.spec.boot;
    let is_there = matches!(
        vm.status.phase,
        Phase::Starting | Phase::Running | Phase::Paused | Phase::Stopping
    );
    is_coming || is_there
}
