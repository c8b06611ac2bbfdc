//! What can be asked of snapshots.

use model::{Disk, DiskSpec, Name, Operation, Revert, Snapshot, Verb, Vm};
use store::Txn;

use crate::codec::PutJson;
use crate::disks::{is_up, spec_key};
use crate::objects::{Facet, TRIES, key};
use crate::{Asked, Kept, New, Registry, RegistryError, operations};

impl Registry {
    /// Asks for a snapshot.
    ///
    /// # Errors
    /// When a disk or VM that it names is not there, its name is taken, or the store fails.
    pub fn create_snapshot(
        &self,
        mut new: New<Snapshot>,
        asked: &Asked,
    ) -> Result<(Kept<Snapshot>, Operation), RegistryError> {
        if let (Some(vm), true) = (&new.spec.vm, new.spec.disks.is_empty()) {
            new.spec.disks = self.get::<Vm>(&new.project, vm.as_ref())?.object.spec.disks;
            if new.spec.disks.is_empty() {
                return Err(RegistryError::NoDisks(vm.clone()));
            }
        }
        new.spec.disk_ids.clear();
        let mut txn = Txn::new();
        for name in &new.spec.disks {
            let parts = self.parts::<Disk>(&new.project, name.as_ref())?;
            let disk = &parts.object;
            if disk.meta.deleting {
                return Err(RegistryError::deleting::<Disk>(&disk.meta));
            }
            // Of one moment are those of one VM.
            match (&new.spec.vm, &disk.spec.vm) {
                (None, vm) => new.spec.vm.clone_from(vm),
                (Some(vm), of) if of.as_ref() != Some(vm) => {
                    return Err(RegistryError::ApartFrom { disk: name.clone(), vm: vm.clone() });
                }
                _ => {}
            }
            new.spec.disk_ids.push(disk.meta.id);
            let meta_key = key::<Disk>(disk.meta.id, Facet::Meta);
            txn = txn.if_modified(meta_key, parts.meta);
        }
        let snapshot = new.object(asked)?;
        let operation = operations::new(Verb::Create, &snapshot, asked);
        let _turn = self.turn(&snapshot.meta.project)?;
        for _ in 0..TRIES {
            let txn = self.put_new(txn.clone(), &snapshot)?;
            let txn = txn.put_json(operations::key(operation.id), &operation)?;
            if let Some(revision) = self.commit(&txn)? {
                return Ok((Kept { object: snapshot, revision }, operation));
            }
        }
        Err(RegistryError::Changed)
    }

    /// Asks that a snapshot's disks become what they were then.
    ///
    /// # Errors
    /// When it is not there yet, a VM runs with one of them, or the store fails.
    pub fn revert(
        &self,
        project: &Name,
        snapshot: &str,
        asked: &Asked,
    ) -> Result<Operation, RegistryError> {
        for _ in 0..TRIES {
            let parts = self.parts::<Snapshot>(project, snapshot)?;
            let snapshot = &parts.object;
            if snapshot.meta.deleting {
                return Err(RegistryError::deleting::<Snapshot>(&snapshot.meta));
            }
            if snapshot.status.phase != model::SnapshotPhase::Ready {
                return Err(RegistryError::NotTaken(snapshot.meta.name.clone()));
            }
            let mut txn = parts.unchanged(Txn::new());
            let mut vms = Vec::new();
            for id in &snapshot.spec.disk_ids {
                let Some(parts) = self.parts_of::<Disk>(*id)? else { continue };
                let disk = &parts.object;
                vms.extend(disk.spec.vm.clone());
                let number = disk.spec.revert.as_ref().map_or(0, |revert| revert.number) + 1;
                let revert = Some(Revert { to: snapshot.meta.id, number });
                let spec = DiskSpec { revert, ..disk.spec.clone() };
                txn = parts.unchanged(txn).put_json(spec_key(disk), &spec)?;
            }
            vms.sort();
            vms.dedup();
            for vm in vms {
                let parts = self.parts::<Vm>(project, vm.as_ref())?;
                if is_up(&parts.object) {
                    return Err(RegistryError::RunningDisk(vm));
                }
                // And it is not started meanwhile.
                txn = parts.unchanged(txn);
            }
            let operation = operations::new(Verb::Revert, snapshot, asked);
            let txn = txn.put_json(operations::key(operation.id), &operation)?;
            if self.commit(&txn)?.is_some() {
                return Ok(operation);
            }
        }
        Err(RegistryError::Changed)
    }

    /// Asks that a snapshot goes away. Its disks stay as they are.
    ///
    /// # Errors
    /// When there is none, or the store fails.
    pub fn delete_snapshot(
        &self,
        project: &Name,
        snapshot: &str,
        asked: &Asked,
    ) -> Result<Operation, RegistryError> {
        for _ in 0..TRIES {
            let parts = self.parts::<Snapshot>(project, snapshot)?;
            let mut meta = parts.object.meta.clone();
            if meta.deleting {
                return Err(RegistryError::deleting::<Snapshot>(&meta));
            }
            meta.deleting = true;
            let operation = operations::new(Verb::Delete, &parts.object, asked);
            let txn = parts
                .unchanged(Txn::new())
                .put_json(key::<Snapshot>(meta.id, Facet::Meta), &meta)?
                .put_json(operations::key(operation.id), &operation)?;
            if self.commit(&txn)?.is_some() {
                return Ok(operation);
            }
        }
        Err(RegistryError::Changed)
    }
}
