//! A step for all VMs, disks and snapshots.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use model::{
    Disk, DiskId, OperationState, Phase, SecurityGroup, SecurityGroupStatus, Snapshot, SnapshotId,
    VirtualNetwork, Vm, VmId, VmStatus,
};
use registry::{Registry, RegistryError};

use crate::decide::{Action, decide};
use crate::judge::{World, judge};
use crate::networks::{members, status, wanted};
use crate::scene::Scene;
use crate::storage::{self, DiskAction, DiskState, SeenDisk, decide_disk, decide_snapshot};
use crate::{Host, HostError};

/// Why a step was cut off.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The store fails.
    #[error("the state cannot be read or written")]
    Registry(#[from] RegistryError),
    /// The host cannot tell what there is.
    #[error("the host cannot tell what runs")]
    Host(#[from] HostError),
}

/// Something that the host refused: for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Of what.
    pub of: String,
    /// What was asked.
    pub action: String,
    /// Why not.
    pub why: String,
}

/// What a step found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// VMs that are there, by phase.
    pub phases: BTreeMap<Phase, u64>,
    /// Operations that are not over.
    pub operations: u64,
    /// Something is on its way: the next step is soon.
    pub is_unsettled: bool,
    /// VMs that the host has and the store does not know. They are left alone.
    pub strays: Vec<VmId>,
    /// What the host refused.
    pub refused: Vec<Refusal>,
}

impl Report {
    fn refuse(&mut self, of: impl ToString, action: impl std::fmt::Debug, error: &HostError) {
        let (of, action) = (of.to_string(), format!("{action:?}"));
        self.refused.push(Refusal { of, action, why: error.0.clone() });
    }
}

/// Takes steps.
pub struct Reconciler {
    registry: Registry,
    host: Arc<dyn Host>,
}

impl Reconciler {
    /// Of what is in this registry, on this host.
    pub fn new(registry: Registry, host: Arc<dyn Host>) -> Self {
        Self { registry, host }
    }

    /// One step for everything.
    ///
    /// # Errors
    /// When the store or the host fails; it is safe to go on with another step.
    pub fn step(&self, now: Timestamp) -> Result<Report, StepError> {
        let mut report = Report::default();
        let mut scene = Scene::look(&self.registry, &*self.host)?;
        // Before VMs, which are started on them.
        self.network(&scene.vms)?;
        self.step_disks(&mut scene, &mut report, now)?;
        self.step_snapshots(&mut scene, &mut report, now)?;
        self.step_vms(&mut scene, &mut report, now)?;
        let world = World {
            vms: scene.vms.iter().map(|vm| (vm.meta.id.into(), vm)).collect(),
            disks: scene.disks.iter().map(|(id, disk)| (*id, disk)).collect(),
            snapshots: scene.snapshots.iter().map(|of| (of.meta.id.into(), of)).collect(),
        };
        for kept in &scene.operations {
            let mut kept = kept.clone();
            let before = kept.object.clone();
            judge(&mut kept.object, &world, now);
            report.operations += u64::from(kept.object.state == OperationState::Running);
            // Who changed it meanwhile had a reason; the next step sees that.
            if kept.object != before && !self.registry.report(&kept)? {
                report.is_unsettled = true;
            }
        }
        Ok(report)
    }

    fn step_disks(
        &self,
        scene: &mut Scene,
        report: &mut Report,
        now: Timestamp,
    ) -> Result<(), StepError> {
        let ids: Vec<DiskId> = scene.disks.keys().copied().collect();
        let snapshots_of = scene.snapshots_of();
        for id in ids {
            let Some(mut disk) = scene.disks.get(&id).cloned() else { continue };
            let seen = scene.seen_disks.get(&id).cloned();
            if disk.meta.deleting && seen.is_none() {
                self.registry.forget(&disk, &scene.operations, now)?;
                scene.disks.remove(&id);
                report.is_unsettled = true;
                continue;
            }
            let snapshots: &[SnapshotId] = snapshots_of.get(&id).map_or(&[], Vec::as_slice);
            let (vm, user) = scene.holder(&disk);
            let is_in_use = user.is_some();
            let (status, action) = decide_disk(&disk, seen.as_ref(), vm, is_in_use, snapshots, now);
            let user = user.map(|(id, _)| id);
            let done = match action {
                None => Ok(()),
                Some(DiskAction::Make) => self.host.make_disk(&disk),
                Some(DiskAction::Grow) => self.host.grow_disk(&disk, user),
                Some(DiskAction::Revert) => match &disk.spec.revert {
                    Some(revert) => self.host.revert_disk(&disk, revert),
                    None => Ok(()),
                },
                Some(DiskAction::Tidy) => self.host.tidy_disk(&disk, snapshots),
                Some(DiskAction::Remove) => self.host.remove_disk(id),
            };
            let status = match done {
                Ok(()) => status,
                Err(error) => {
                    report.refuse(format!("disk {id}"), action, &error);
                    storage::refused(status, error.0, now)
                }
            };
            if status != disk.status {
                self.registry.set_status::<Disk>(id, &status)?;
                disk.status = status;
            }
            let is_moving = seen.is_none_or(|seen| {
                seen.is_busy || matches!(seen.state, DiskState::Making(_)) || disk.meta.deleting
            });
            // What the host has refused is tried again, but not soon.
            let waits = disk.status.retry_at.is_some();
            report.is_unsettled |= (action.is_some() || is_moving) && !waits;
            if action.is_some()
                && let Some(seen) = scene.seen_disks.get_mut(&id)
            {
                // What comes next sees it as it is by then.
                seen.is_busy = true;
            }
            scene.disks.insert(id, disk);
        }
        Ok(())
    }

    fn step_snapshots(
        &self,
        scene: &mut Scene,
        report: &mut Report,
        now: Timestamp,
    ) -> Result<(), StepError> {
        for mut snapshot in std::mem::take(&mut scene.snapshots) {
            let id = snapshot.meta.id;
            let disks: Vec<Disk> = snapshot
                .spec
                .disk_ids
                .iter()
                .filter_map(|id| scene.disks.get(id).filter(|disk| !disk.meta.deleting).cloned())
                .collect();
            let seen: Vec<&SeenDisk> =
                disks.iter().filter_map(|disk| scene.seen_disks.get(&disk.meta.id)).collect();
            let is_there = seen.iter().any(|disk| disk.snapshots.iter().any(|of| of.id == id));
            if disks.is_empty() || snapshot.meta.deleting && !is_there {
                report.is_unsettled = true;
                self.registry.forget(&snapshot, &scene.operations, now)?;
                continue;
            }
            let all_seen = seen.len() == disks.len();
            let (mut status, is_to_take) = decide_snapshot(&snapshot.status, id, &seen);
            if snapshot.meta.deleting {
                status.phase = model::SnapshotPhase::Deleting;
                report.is_unsettled = true;
            } else if is_to_take {
                report.is_unsettled = true;
                let holders: Vec<_> = disks.iter().map(|disk| scene.holder(disk).1).collect();
                let user = holders.iter().copied().flatten().next();
                let pending = |disk: &Disk| {
                    disk.spec.revert.as_ref().is_some_and(|of| of.number > disk.status.reverts)
                };
                let can_be_taken = all_seen
                    && seen.iter().all(|disk| !disk.is_busy && disk.state == DiskState::Ready)
                    && !disks.iter().any(pending)
                    && !scene.is_starting(user);
                if can_be_taken {
                    if let Err(error) = self.host.take_snapshot(&snapshot, &disks, user) {
                        report.refuse(format!("snapshot {id}"), "take", &error);
                        status.reason = Some(error.0);
                    }
                    for disk in &disks {
                        if let Some(seen) = scene.seen_disks.get_mut(&disk.meta.id) {
                            seen.is_busy = true;
                        }
                    }
                }
            }
            if status != snapshot.status {
                self.registry.set_status::<Snapshot>(id, &status)?;
                snapshot.status = status;
            }
            scene.snapshots.push(snapshot);
        }
        Ok(())
    }

    fn step_vms(
        &self,
        scene: &mut Scene,
        report: &mut Report,
        now: Timestamp,
    ) -> Result<(), StepError> {
        let mut known = Vec::new();
        let mut ids = BTreeSet::new();
        for mut vm in scene.vms.clone() {
            ids.insert(vm.meta.id);
            let seen = scene.seen.get(&vm.meta.id).cloned();
            if vm.meta.deleting && seen.is_none() {
                report.is_unsettled = true;
                if self.release(scene, &vm)? {
                    self.registry.forget_vm(&vm, &scene.operations, now)?;
                } else {
                    known.push(vm);
                }
                continue;
            }
            let disks = scene.readiness(&vm);
            let (status, action) = decide(&vm, seen.as_ref(), &disks, now);
            report.is_unsettled |= action.is_some();
            let status = self.act(&vm, scene, status, action, report);
            if status != vm.status {
                self.registry.set_status::<Vm>(vm.meta.id, &status)?;
                vm.status = status;
            }
            *report.phases.entry(vm.status.phase).or_default() += 1;
            report.is_unsettled |= !is_settled(&vm);
            known.push(vm);
        }
        report.strays = scene.seen.keys().copied().filter(|id| !ids.contains(id)).collect();
        scene.vms = known;
        Ok(())
    }

    /// Makes networks as they are wanted, and writes down how they are.
    fn network(&self, vms: &[Vm]) -> Result<(), StepError> {
        let networks = self.registry.all::<VirtualNetwork>(None)?.0;
        let networks: Vec<_> = networks.into_iter().map(|kept| kept.object).collect();
        let groups = self.registry.all::<SecurityGroup>(None)?.0;
        let groups: Vec<_> = groups.into_iter().map(|kept| kept.object).collect();
        let wanted = wanted(&networks, &groups, vms.iter());
        let seen = self.host.network(&wanted)?;
        for (network, wanted) in networks.iter().zip(&wanted.networks) {
            let status = status(wanted, seen.get(&network.meta.id));
            if status != network.status {
                self.registry.set_status::<VirtualNetwork>(network.meta.id, &status)?;
            }
        }
        for group in &groups {
            let cards = members(group, vms.iter());
            if cards != group.status.cards {
                let status = SecurityGroupStatus { cards };
                self.registry.set_status::<SecurityGroup>(group.meta.id, &status)?;
            }
        }
        Ok(())
    }

    /// A VM that goes away gives its disks free; true when those that go with it are gone.
    fn release(&self, scene: &Scene, vm: &Vm) -> Result<bool, StepError> {
        let has = |disk: &&Disk| {
            disk.spec.vm.as_ref() == Some(&vm.meta.name) && disk.meta.project == vm.meta.project
        };
        if !scene.disks.values().any(|disk| has(&disk)) {
            return Ok(true);
        }
        if scene.disks.values().filter(has).any(|disk| !disk.meta.deleting) {
            self.registry.release_disks(vm)?;
        }
        Ok(false)
    }

    /// Does what was decided. A refusal is in the status until something else comes of it.
    fn act(
        &self,
        vm: &Vm,
        scene: &Scene,
        status: VmStatus,
        action: Option<Action>,
        report: &mut Report,
    ) -> VmStatus {
        let Some(action) = action else { return status };
        let id = vm.meta.id;
        let disks = || -> Vec<Disk> {
            let disk = |name| scene.disk(&vm.meta.project, name).cloned();
            vm.spec.disks.iter().filter_map(disk).collect()
        };
        let done = match &action {
            Action::Start => self.host.start(vm, &disks()),
            Action::Pause => self.host.pause(id),
            Action::Resume => self.host.resume(id),
            Action::Grow { cpus, memory_bytes } => self.host.grow(vm, *cpus, *memory_bytes),
            Action::PowerButton => self.host.press_power_button(id),
            Action::End => self.host.end(id),
            Action::Attach(name) => match scene.disk(&vm.meta.project, name) {
                Some(disk) => self.host.attach(id, disk),
                None => Ok(()),
            },
            Action::Detach(name) => self.host.detach(id, name),
            Action::Remove => self.host.remove(id),
        };
        let Err(error) = done else { return status };
        report.refuse(format!("VM {id}"), &action, &error);
        VmStatus { reason: Some(error.0), ..status }
    }
}

/// Nothing comes next by itself.
fn is_settled(vm: &Vm) -> bool {
    let is_at_rest =
        matches!(vm.status.phase, Phase::Running | Phase::Paused | Phase::Stopped | Phase::Failed);
    is_at_rest && !vm.meta.deleting
}
