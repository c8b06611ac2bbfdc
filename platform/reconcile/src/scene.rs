//! What is looked at in a step: what is wanted, and what the host has.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use model::{Disk, DiskId, Name, Operation, Snapshot, SnapshotId, Vm, VmId};
use registry::{Kept, Mirrored, Registry};

use crate::memory::{Memory, Scope};
use crate::storage::{self, SeenDisk};
use crate::{Process, Readiness, Seen, StepError};

/// A project's name, and one in it.
type FullName = (Name, Name);

/// What is looked at together. VMs, disks and snapshots go on as the step leaves them.
pub(crate) struct Scene {
    pub seen: BTreeMap<VmId, Seen>,
    pub seen_disks: BTreeMap<DiskId, SeenDisk>,
    pub vms: Vec<Vm>,
    pub disks: BTreeMap<DiskId, Disk>,
    pub snapshots: Vec<Snapshot>,
    pub operations: Vec<Arc<Kept<Operation>>>,
    vm_ids: HashMap<FullName, VmId>,
    disk_ids: HashMap<FullName, DiskId>,
}

fn full(project: &Name, name: &Name) -> FullName {
    (project.clone(), name.clone())
}

fn copies<O: Mirrored>(
    registry: &Registry,
    ids: impl Iterator<Item = O::Id>,
) -> Result<Vec<O>, StepError> {
    let copies = ids.filter_map(|id| registry.by_id::<O>(id).transpose());
    Ok(copies.map(|found| found.map(Arc::unwrap_or_clone)).collect::<Result<_, _>>()?)
}

impl Scene {
    /// What is in this scope.
    pub fn of(registry: &Registry, memory: &Memory, scope: &Scope) -> Result<Self, StepError> {
        // Operations before what they are about, which then is as it was asked to be, or newer.
        let operations = registry.running_operations(scope.targets.iter().copied())?;
        let vms: Vec<Vm> = copies(registry, scope.vms.iter().copied())?;
        let disks: Vec<Disk> = copies(registry, scope.disks.iter().copied())?;
        let seen = |id: &VmId| Some((*id, memory.seen.get(id)?.clone()));
        let seen_disk = |id: &DiskId| Some((*id, memory.seen_disks.get(id)?.clone()));
        Ok(Self {
            seen: scope.vms.iter().filter_map(seen).collect(),
            seen_disks: scope.disks.iter().filter_map(seen_disk).collect(),
            vm_ids: vms
                .iter()
                .map(|of| (full(&of.meta.project, &of.meta.name), of.meta.id))
                .collect(),
            disk_ids: disks
                .iter()
                .map(|of| (full(&of.meta.project, &of.meta.name), of.meta.id))
                .collect(),
            vms,
            disks: disks.into_iter().map(|disk| (disk.meta.id, disk)).collect(),
            snapshots: copies(registry, scope.snapshots.iter().copied())?,
            operations,
        })
    }

    /// The VM that has a disk, and whether its process has.
    pub fn holder(&self, disk: &Disk) -> (Option<Name>, Option<(VmId, bool)>) {
        for name in disk.spec.vm.iter().chain(&disk.status.vm) {
            let Some(&id) = self.vm_ids.get(&full(&disk.meta.project, name)) else { continue };
            match self.seen.get(&id).map(|seen| &seen.process) {
                Some(Process::Live { disks, is_paused, .. }) if disks.contains(&disk.meta.name) => {
                    return (Some(name.clone()), Some((id, *is_paused)));
                }
                // Nobody knows what it has opened.
                Some(Process::Starting { .. }) => return (Some(name.clone()), Some((id, true))),
                _ => {}
            }
        }
        (disk.spec.vm.clone(), None)
    }

    /// A VM, as [`Scene::holder`] gives it, of which nobody knows yet what it has opened.
    pub fn is_starting(&self, vm: Option<(VmId, bool)>) -> bool {
        let seen = vm.and_then(|(id, _)| self.seen.get(&id));
        matches!(seen.map(|seen| &seen.process), Some(Process::Starting { .. }))
    }

    /// The disk of this name.
    pub fn disk(&self, project: &Name, name: &Name) -> Option<&Disk> {
        self.disks.get(self.disk_ids.get(&full(project, name))?)
    }

    /// The snapshots that are to be kept, by their disks.
    pub fn snapshots_of(&self) -> HashMap<DiskId, Vec<SnapshotId>> {
        let mut all: HashMap<DiskId, Vec<SnapshotId>> = HashMap::new();
        for snapshot in self.snapshots.iter().filter(|of| !of.meta.deleting) {
            for disk in &snapshot.spec.disk_ids {
                all.entry(*disk).or_default().push(snapshot.meta.id);
            }
        }
        all
    }

    /// Whether a VM can start with its disks.
    pub fn readiness(&self, vm: &Vm) -> Readiness {
        storage::readiness(vm.spec.disks.iter().map(|name| {
            let disk = self.disk(&vm.meta.project, name);
            (name, disk.map(|disk| (disk, self.is_busy(disk.meta.id))))
        }))
    }

    fn is_busy(&self, disk: DiskId) -> bool {
        self.seen_disks.get(&disk).is_some_and(|seen| seen.is_busy)
    }
}
