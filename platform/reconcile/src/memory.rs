//! What is remembered between steps, so that only what has changed is looked at again.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::{SignedDuration, Timestamp};
use model::{Disk, DiskId, Kind, Name, Phase, Snapshot, SnapshotId, Vm, VmId};
use registry::{Changed, Changes, Registry, RegistryError};
use uuid::Uuid;

use crate::{Process, Seen, SeenDisk};

/// How often all that the host has is looked at: it may change by itself.
const LOOK: SignedDuration = SignedDuration::from_millis(900);
/// How often everything is looked at, whether it has changed or not.
const RESYNC: SignedDuration = SignedDuration::from_mins(10);

/// An object.
pub(crate) type Id = (Kind, Uuid);

/// All that is looked at together: VMs, their disks, and those's snapshots.
#[derive(Default)]
pub(crate) struct Scope {
    pub vms: BTreeSet<VmId>,
    pub disks: BTreeSet<DiskId>,
    pub snapshots: BTreeSet<SnapshotId>,
    /// Also what is gone: operations are about it.
    pub targets: BTreeSet<Uuid>,
}

/// What is remembered.
pub(crate) struct Memory {
    changes: Changes,
    pub seen: BTreeMap<VmId, Seen>,
    pub seen_disks: BTreeMap<DiskId, SeenDisk>,
    /// What the next step looks at, whatever happens.
    pub unsettled: BTreeSet<Id>,
    /// What waits for a time.
    pub waiting: BTreeSet<Id>,
    pub strays: Vec<VmId>,
    phases: HashMap<VmId, Phase>,
    disks_of: BTreeMap<SnapshotId, Vec<DiskId>>,
    snapshots_of: HashMap<DiskId, Vec<SnapshotId>>,
    looked: Option<Timestamp>,
    resynced: Option<Timestamp>,
}

impl Memory {
    /// Nothing yet.
    pub fn new(changes: Changes) -> Self {
        Self {
            changes,
            seen: BTreeMap::new(),
            seen_disks: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            waiting: BTreeSet::new(),
            strays: Vec::new(),
            phases: HashMap::new(),
            disks_of: BTreeMap::new(),
            snapshots_of: HashMap::new(),
            looked: None,
            resynced: None,
        }
    }

    /// What was begun was cut off: nothing is known.
    pub fn forget(&mut self) {
        *self = Self::new(self.changes.clone());
    }

    /// It is time to look at all that the host has. A clock that is set is no time to wait for.
    pub fn is_look_due(&self, now: Timestamp) -> bool {
        is_due(self.looked, LOOK, now)
    }

    /// Takes what the host has by now; what of it has changed.
    pub fn look(&mut self, seen: Vec<Seen>, disks: Vec<SeenDisk>, now: Timestamp) -> BTreeSet<Id> {
        let seen: BTreeMap<_, _> = seen.into_iter().map(|seen| (seen.id, seen)).collect();
        let disks: BTreeMap<_, _> = disks.into_iter().map(|seen| (seen.id, seen)).collect();
        let vms = differences(&self.seen, &seen).map(|id| (Kind::Vm, id.into()));
        let mut changed: BTreeSet<Id> = vms.collect();
        changed.extend(differences(&self.seen_disks, &disks).map(|id| (Kind::Disk, id.into())));
        (self.seen, self.seen_disks, self.looked) = (seen, disks, Some(now));
        changed
    }

    /// What the store says has changed; all of it from time to time.
    pub fn changed(&mut self, now: Timestamp) -> Changed {
        let mut changed = self.changes.take();
        if changed.is_all || is_due(self.resynced, RESYNC, now) {
            self.resynced = Some(now);
            changed.is_all = true;
            self.phases.clear();
        }
        changed
    }

    /// All that is to be looked at with these.
    pub fn scope(
        &mut self,
        registry: &Registry,
        begin: BTreeSet<Id>,
    ) -> Result<Scope, RegistryError> {
        let mut scope = Scope::default();
        let mut left: Vec<Id> = begin.into_iter().collect();
        if left.iter().any(|(kind, _)| *kind == Kind::Snapshot) {
            // Also the disks of one that is gone.
            let of = |id: &Id| self.disks_of.get(&SnapshotId(id.1)).cloned();
            let of_gone: Vec<DiskId> = left.iter().filter_map(of).flatten().collect();
            left.extend(of_gone.into_iter().map(|id| (Kind::Disk, id.into())));
            self.index_snapshots(registry)?;
        }
        while let Some((kind, id)) = left.pop() {
            if !scope.targets.insert(id) {
                continue;
            }
            match kind {
                Kind::Vm if scope.vms.insert(VmId(id)) => {
                    let Some(vm) = registry.by_id::<Vm>(VmId(id))? else { continue };
                    let live: &[Name] = match self.seen.get(&vm.meta.id).map(|of| &of.process) {
                        Some(Process::Live { disks, .. }) => disks,
                        _ => &[],
                    };
                    for name in vm.spec.disks.iter().chain(&vm.status.disks).chain(live) {
                        let disk = registry.by_name::<Disk>(&vm.meta.project, name)?;
                        left.extend(disk.map(|disk| (Kind::Disk, disk.meta.id.into())));
                    }
                }
                Kind::Disk if scope.disks.insert(DiskId(id)) => {
                    let of_it = self.snapshots_of.get(&DiskId(id)).into_iter().flatten();
                    left.extend(of_it.map(|of| (Kind::Snapshot, of.0)));
                    let Some(disk) = registry.by_id::<Disk>(DiskId(id))? else { continue };
                    for name in disk.spec.vm.iter().chain(&disk.status.vm) {
                        let vm = registry.by_name::<Vm>(&disk.meta.project, name)?;
                        left.extend(vm.map(|vm| (Kind::Vm, vm.meta.id.into())));
                    }
                }
                Kind::Snapshot if scope.snapshots.insert(SnapshotId(id)) => {
                    let disks = self.disks_of.get(&SnapshotId(id)).into_iter().flatten();
                    left.extend(disks.map(|of| (Kind::Disk, of.0)));
                }
                _ => {}
            }
        }
        Ok(scope)
    }

    fn index_snapshots(&mut self, registry: &Registry) -> Result<(), RegistryError> {
        self.disks_of.clear();
        self.snapshots_of.clear();
        for snapshot in registry.all::<Snapshot>(None)?.0.iter() {
            let id = snapshot.meta.id;
            self.disks_of.insert(id, snapshot.spec.disk_ids.clone());
            for disk in &snapshot.spec.disk_ids {
                self.snapshots_of.entry(*disk).or_default().push(id);
            }
        }
        Ok(())
    }

    /// Takes what the host has of these, and of no more of them.
    pub fn look_at(&mut self, scope: &Scope, seen: Vec<Seen>, disks: Vec<SeenDisk>) {
        for id in &scope.vms {
            self.seen.remove(id);
        }
        for id in &scope.disks {
            self.seen_disks.remove(id);
        }
        self.seen.extend(seen.into_iter().map(|seen| (seen.id, seen)));
        self.seen_disks.extend(disks.into_iter().map(|seen| (seen.id, seen)));
    }

    /// How a VM is, or that there is none.
    pub fn note_phase(&mut self, vm: VmId, phase: Option<Phase>) {
        match phase {
            Some(phase) => self.phases.insert(vm, phase),
            None => self.phases.remove(&vm),
        };
    }

    /// How many VMs are how.
    pub fn phases(&self) -> BTreeMap<Phase, u64> {
        let mut counts = BTreeMap::new();
        for phase in self.phases.values() {
            *counts.entry(*phase).or_default() += 1;
        }
        counts
    }
}

fn is_due(last: Option<Timestamp>, every: SignedDuration, now: Timestamp) -> bool {
    last.is_none_or(|last| now.duration_since(last).abs() >= every)
}

/// What is in one, and not in the other as it is there.
fn differences<'a, K: Copy + Ord + 'a, V: PartialEq>(
    a: &'a BTreeMap<K, V>,
    b: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = K> + 'a {
    let new = b.iter().filter(|(id, seen)| a.get(id) != Some(*seen)).map(|(id, _)| *id);
    let gone = a.keys().filter(|id| !b.contains_key(id)).copied();
    new.chain(gone)
}
