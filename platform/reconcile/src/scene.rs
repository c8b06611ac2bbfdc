//! What is looked at in a step: what is wanted, and what the host has.

use std::collections::{BTreeMap, HashMap};

use model::{Disk, DiskId, Name, Operation, OperationState, Snapshot, SnapshotId, Vm, VmId};
use registry::{Kept, Registry};

use crate::storage::{self, SeenDisk};
use crate::{Host, Process, Readiness, Seen, StepError};

/// A project's name, and one in it.
type FullName = (Name, Name);

/// All of it. VMs, disks and snapshots go on as the step leaves them.
pub(crate) struct Scene {
    pub seen: BTreeMap<VmId, Seen>,
    pub seen_disks: BTreeMap<DiskId, SeenDisk>,
    pub vms: Vec<Vm>,
    pub disks: BTreeMap<DiskId, Disk>,
    pub snapshots: Vec<Snapshot>,
    pub operations: Vec<Kept<Operation>>,
    vm_ids: HashMap<FullName, VmId>,
    disk_ids: HashMap<FullName, DiskId>,
}

fn objects<T, R>((all, _): (Vec<Kept<T>>, R)) -> Vec<T> {
    all.into_iter().map(|kept| kept.object).collect()
}

fn full(project: &Name, name: &Name) -> FullName {
    (project.clone(), name.clone())
}

impl Scene {
    /// Looks.
    pub fn look(registry: &Registry, host: &dyn Host) -> Result<Self, StepError> {
        // What the host has is looked at first: a VM that was asked for since is no stray. And operations before what
        // they are about, which then is as it was asked to be, or newer.
        let seen = host.see()?.into_iter().map(|seen| (seen.id, seen)).collect();
        let pools = objects(registry.pools(None)?);
        let seen_disks = host.see_disks(&pools)?.into_iter().map(|seen| (seen.id, seen)).collect();
        let is_running = |kept: &Kept<Operation>| kept.object.state == OperationState::Running;
        let operations = registry.operations(None)?.0.into_iter().filter(is_running).collect();
        let disks = objects(registry.all::<Disk>(None)?);
        let vms = objects(registry.all::<Vm>(None)?);
        Ok(Self {
            seen,
            seen_disks,
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
            snapshots: objects(registry.all::<Snapshot>(None)?),
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
