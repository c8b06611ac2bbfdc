//! A step: for VMs, disks and snapshots that have changed, and from time to time for all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use model::{
    Disk, DiskId, Kind, Phase, SecurityGroup, SecurityGroupStatus, Snapshot, SnapshotId,
    VirtualNetwork, Vm, VmId, VmStatus,
};
use registry::{Batch, Registry, RegistryError};
use uuid::Uuid;

use crate::decide::{Action, decide};
use crate::judge::{World, judge};
use crate::memory::{Id, Memory, Scope};
use crate::networks::{members, status, wanted};
use crate::scene::Scene;
use crate::schedule::Scheduler;
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
    memory: Memory,
    scheduler: Scheduler,
}

impl Reconciler {
    /// Of what is in this registry, on this host.
    pub fn new(registry: Registry, host: Arc<dyn Host>) -> Self {
        let memory = Memory::new(registry.changes());
        Self { registry, host, memory, scheduler: Scheduler::default() }
    }

    /// One step for what has changed.
    ///
    /// # Errors
    /// When the store or the host fails; it is safe to go on with another step, which looks at everything.
    pub fn step(&mut self, now: Timestamp) -> Result<Report, StepError> {
        let done = self.try_step(now);
        if done.is_err() {
            self.memory.forget();
        }
        done
    }

    fn try_step(&mut self, now: Timestamp) -> Result<Report, StepError> {
        let (scope, is_network_due) = self.look(now)?;
        let scene = Scene::of(&self.registry, &self.memory, &scope)?;
        // Before VMs, which are started on them.
        if is_network_due || scene.vms.iter().any(|vm| !vm.spec.networks.is_empty()) {
            self.network()?;
        }
        let mut step = Step {
            registry: &self.registry,
            host: &*self.host,
            memory: &mut self.memory,
            scheduler: &mut self.scheduler,
            scene,
            report: Report::default(),
            batch: Batch::default(),
            now,
        };
        step.disks()?;
        step.snapshots()?;
        step.vms(&scope)?;
        step.finish()
    }

    /// What is to be looked at, as it is by now; and whether networks are.
    fn look(&mut self, now: Timestamp) -> Result<(Scope, bool), StepError> {
        let is_whole = self.memory.is_look_due(now);
        let mut begin = BTreeSet::new();
        let pools: Vec<_> =
            self.registry.pools(None)?.0.into_iter().map(|kept| kept.object).collect();
        if is_whole {
            self.scheduler.offer(self.host.offers()?);
            // What the host has is looked at first: a VM that was asked for since is no stray.
            let (seen, disks) = (self.host.see(None)?, self.host.see_disks(&pools, None)?);
            begin.extend(self.memory.look(seen, disks, now));
            begin.append(&mut self.memory.waiting);
        }
        begin.append(&mut self.memory.unsettled);
        let (_, targets) = self.registry.running_targets()?;
        let changed = self.memory.changed(now);
        let is_of_networks = |(kind, _): &Id| matches!(kind, Kind::Network | Kind::SecurityGroup);
        let is_network_due =
            is_whole || changed.is_all || changed.objects.iter().any(is_of_networks);
        if is_whole {
            begin.extend(targets);
        }
        if changed.is_all {
            begin.extend(self.all()?);
        }
        for (kind, id) in changed.objects {
            if kind == Kind::Operation {
                let operation = self.registry.operation(model::OperationId(id));
                let target = operation.ok().map(|kept| kept.object.target);
                begin.extend(target.map(|target| (target.kind, target.id)));
            } else {
                begin.insert((kind, id));
            }
        }
        let scope = self.memory.scope(&self.registry, begin)?;
        if !is_whole {
            let seen = self.host.see(Some(&scope.vms))?;
            let disks = self.host.see_disks(&pools, Some(&scope.disks))?;
            self.memory.look_at(&scope, seen, disks);
        }
        if is_whole {
            self.memory.strays.clear();
            for id in self.memory.seen.keys() {
                if self.registry.by_id::<Vm>(*id)?.is_none() {
                    self.memory.strays.push(*id);
                }
            }
        }
        Ok((scope, is_network_due))
    }

    /// Everything there is.
    fn all(&mut self) -> Result<BTreeSet<Id>, StepError> {
        let mut all = BTreeSet::new();
        self.scheduler.clear();
        for vm in self.registry.all::<Vm>(None)?.0.iter() {
            all.insert((Kind::Vm, vm.meta.id.into()));
            self.scheduler.note(vm);
        }
        let disks = self.registry.all::<Disk>(None)?.0;
        all.extend(disks.iter().map(|disk| (Kind::Disk, disk.meta.id.into())));
        let snapshots = self.registry.all::<Snapshot>(None)?.0;
        all.extend(snapshots.iter().map(|of| (Kind::Snapshot, of.meta.id.into())));
        Ok(all)
    }

    /// Makes networks as they are wanted, and writes down how they are.
    fn network(&self) -> Result<(), StepError> {
        let networks = self.registry.all::<VirtualNetwork>(None)?.0;
        let groups = self.registry.all::<SecurityGroup>(None)?.0;
        let vms = self.registry.all::<Vm>(None)?.0;
        let vms: Vec<&Vm> =
            vms.iter().map(|vm| &**vm).filter(|vm| !vm.spec.networks.is_empty()).collect();
        let wanted = wanted(&networks, &groups, vms.iter().copied());
        let seen = self.host.network(&wanted)?;
        let mut batch = Batch::default();
        for (network, wanted) in networks.iter().zip(&wanted.networks) {
            let status = status(wanted, seen.get(&network.meta.id));
            if status != network.status {
                let id = network.meta.id;
                self.registry.put_status::<VirtualNetwork>(&mut batch, id, &status)?;
            }
        }
        for group in groups.iter() {
            let cards = members(group, vms.iter().copied());
            if cards != group.status.cards {
                let status = SecurityGroupStatus { cards };
                let id = group.meta.id;
                self.registry.put_status::<SecurityGroup>(&mut batch, id, &status)?;
            }
        }
        self.registry.write(batch)?;
        Ok(())
    }
}

/// A step that is being taken.
struct Step<'a> {
    registry: &'a Registry,
    host: &'a dyn Host,
    memory: &'a mut Memory,
    scheduler: &'a mut Scheduler,
    scene: Scene,
    report: Report,
    /// What is written at its end.
    batch: Batch,
    now: Timestamp,
}

impl Step<'_> {
    /// The next step looks at it.
    fn go_on(&mut self, kind: Kind, id: impl Into<Uuid>) {
        self.memory.unsettled.insert((kind, id.into()));
    }

    fn disks(&mut self) -> Result<(), StepError> {
        let ids: Vec<DiskId> = self.scene.disks.keys().copied().collect();
        let snapshots_of = self.scene.snapshots_of();
        for id in ids {
            let Some(mut disk) = self.scene.disks.get(&id).cloned() else { continue };
            let seen = self.scene.seen_disks.get(&id).cloned();
            if disk.meta.deleting && seen.is_none() {
                self.registry.forget(&mut self.batch, &disk, &self.scene.operations, self.now)?;
                self.scene.disks.remove(&id);
                self.go_on(Kind::Disk, id);
                continue;
            }
            let snapshots: &[SnapshotId] = snapshots_of.get(&id).map_or(&[], Vec::as_slice);
            let (vm, user) = self.scene.holder(&disk);
            let is_in_use = user.is_some();
            let (status, action) =
                decide_disk(&disk, seen.as_ref(), vm, is_in_use, snapshots, self.now);
            let status = self.act_on_disk(&disk, status, action, user.map(|(id, _)| id), snapshots);
            if status != disk.status {
                self.registry.put_status::<Disk>(&mut self.batch, id, &status)?;
                disk.status = status;
            }
            let is_moving = seen.is_none_or(|seen| {
                seen.is_busy || matches!(seen.state, DiskState::Making(_)) || disk.meta.deleting
            });
            if disk.status.retry_at.is_some() {
                // What the host has refused is tried again, but not soon.
                self.memory.waiting.insert((Kind::Disk, id.into()));
            } else if action.is_some() || is_moving {
                self.go_on(Kind::Disk, id);
            }
            if action.is_some()
                && let Some(seen) = self.scene.seen_disks.get_mut(&id)
            {
                // What comes next sees it as it is by then.
                seen.is_busy = true;
            }
            self.scene.disks.insert(id, disk);
        }
        Ok(())
    }

    /// Does what was decided for a disk. A refusal is in its status for a while.
    fn act_on_disk(
        &mut self,
        disk: &Disk,
        status: model::DiskStatus,
        action: Option<DiskAction>,
        user: Option<VmId>,
        snapshots: &[SnapshotId],
    ) -> model::DiskStatus {
        let done = match action {
            None => Ok(()),
            Some(DiskAction::Make) => self.host.make_disk(disk),
            Some(DiskAction::Grow) => self.host.grow_disk(disk, user),
            Some(DiskAction::Revert) => match &disk.spec.revert {
                Some(revert) => self.host.revert_disk(disk, revert),
                None => Ok(()),
            },
            Some(DiskAction::Tidy) => self.host.tidy_disk(disk, snapshots),
            Some(DiskAction::Remove) => self.host.remove_disk(disk.meta.id),
        };
        let Err(error) = done else { return status };
        self.report.refuse(format!("disk {}", disk.meta.id), action, &error);
        storage::refused(status, error.0, self.now)
    }

    fn snapshots(&mut self) -> Result<(), StepError> {
        for mut snapshot in std::mem::take(&mut self.scene.snapshots) {
            let id = snapshot.meta.id;
            let scene = &self.scene;
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
                let operations = &self.scene.operations;
                self.registry.forget(&mut self.batch, &snapshot, operations, self.now)?;
                self.go_on(Kind::Snapshot, id);
                continue;
            }
            let all_seen = seen.len() == disks.len();
            let (mut status, is_to_take) = decide_snapshot(&snapshot.status, id, &seen);
            let can_be_taken =
                all_seen && seen.iter().all(|disk| !disk.is_busy && disk.state == DiskState::Ready);
            if snapshot.meta.deleting {
                status.phase = model::SnapshotPhase::Deleting;
                self.go_on(Kind::Snapshot, id);
            } else if is_to_take {
                self.go_on(Kind::Snapshot, id);
                if can_be_taken && let Err(error) = self.take(&snapshot, &disks) {
                    self.report.refuse(format!("snapshot {id}"), "take", &error);
                    status.reason = Some(error.0);
                }
            }
            if status != snapshot.status {
                self.registry.put_status::<Snapshot>(&mut self.batch, id, &status)?;
                snapshot.status = status;
            }
            self.scene.snapshots.push(snapshot);
        }
        Ok(())
    }

    /// Begins to take a snapshot, if its VM and reverts of its disks let it.
    fn take(&mut self, snapshot: &Snapshot, disks: &[Disk]) -> Result<(), HostError> {
        let user = disks.iter().find_map(|disk| self.scene.holder(disk).1);
        let pending = |disk: &Disk| {
            disk.spec.revert.as_ref().is_some_and(|of| of.number > disk.status.reverts)
        };
        if disks.iter().any(pending) || self.scene.is_starting(user) {
            return Ok(());
        }
        let taken = self.host.take_snapshot(snapshot, disks, user);
        for disk in disks {
            if let Some(seen) = self.scene.seen_disks.get_mut(&disk.meta.id) {
                seen.is_busy = true;
            }
        }
        taken
    }

    fn vms(&mut self, scope: &Scope) -> Result<(), StepError> {
        let mut known = Vec::new();
        for id in &scope.vms {
            self.memory.note_phase(*id, None);
        }
        for mut vm in std::mem::take(&mut self.scene.vms) {
            let id = vm.meta.id;
            let seen = self.scene.seen.get(&id).cloned();
            if vm.meta.deleting && seen.is_none() {
                self.go_on(Kind::Vm, id);
                self.scheduler.forget(id);
                if self.release(&vm)? {
                    let operations = &self.scene.operations;
                    self.registry.forget_vm(&mut self.batch, &vm, operations, self.now)?;
                } else {
                    self.memory.note_phase(id, Some(vm.status.phase));
                    known.push(vm);
                }
                continue;
            }
            let disks = self.scene.readiness(&vm);
            let (status, action) = decide(&vm, seen.as_ref(), &disks, self.now);
            let has_action = action.is_some();
            let (status, action) = self.place(&vm, status, action);
            let waits = has_action && action.is_none() && status.host == vm.status.host;
            let status = self.act(&vm, status, action);
            if status != vm.status {
                self.registry.put_status::<Vm>(&mut self.batch, id, &status)?;
                vm.status = status;
            }
            self.scheduler.note(&vm);
            self.memory.note_phase(id, Some(vm.status.phase));
            if waits {
                self.memory.waiting.insert((Kind::Vm, id.into()));
            } else if has_action || !is_settled(&vm) {
                self.go_on(Kind::Vm, id);
            }
            known.push(vm);
        }
        self.scene.vms = known;
        Ok(())
    }

    /// Finds a host for a VM that is to start. That is written down, and the VM started by the next step; of one host
    /// there is nothing to write.
    fn place(
        &mut self,
        vm: &Vm,
        status: VmStatus,
        action: Option<Action>,
    ) -> (VmStatus, Option<Action>) {
        if action != Some(Action::Start) {
            return (status, action);
        }
        match self.scheduler.place(vm) {
            Ok(host) => {
                let is_written =
                    self.scheduler.hosts() == 1 || vm.status.host.as_ref() == Some(&host);
                (VmStatus { host: Some(host), ..status }, action.filter(|_| is_written))
            }
            Err(why) => (VmStatus { phase: Phase::Pending, reason: Some(why), ..status }, None),
        }
    }

    /// A VM that goes away gives its disks free; true when those that go with it are gone.
    fn release(&self, vm: &Vm) -> Result<bool, StepError> {
        let has = |disk: &&Disk| {
            disk.spec.vm.as_ref() == Some(&vm.meta.name) && disk.meta.project == vm.meta.project
        };
        let disks = &self.scene.disks;
        if !disks.values().any(|disk| has(&disk)) {
            return Ok(true);
        }
        if disks.values().filter(has).any(|disk| !disk.meta.deleting) {
            self.registry.release_disks(vm)?;
        }
        Ok(false)
    }

    /// Does what was decided. A refusal is in the status until something else comes of it.
    fn act(&mut self, vm: &Vm, status: VmStatus, action: Option<Action>) -> VmStatus {
        let Some(action) = action else { return status };
        let (id, scene) = (vm.meta.id, &self.scene);
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
        self.report.refuse(format!("VM {id}"), &action, &error);
        VmStatus { reason: Some(error.0), ..status }
    }

    /// Brings operations up to date, and writes everything down.
    fn finish(mut self) -> Result<Report, StepError> {
        let scene = &self.scene;
        let world = World {
            vms: scene.vms.iter().map(|vm| (vm.meta.id.into(), vm)).collect(),
            disks: scene.disks.iter().map(|(id, disk)| (*id, disk)).collect(),
            snapshots: scene.snapshots.iter().map(|of| (of.meta.id.into(), of)).collect(),
        };
        let others = self.batch.len();
        let mut reported = Vec::new();
        for kept in &scene.operations {
            let mut now = (**kept).clone();
            judge(&mut now.object, &world, self.now);
            if now.object != kept.object {
                self.registry.report(&mut self.batch, &now)?;
                reported.push((now.object.target.kind, now.object.target.id));
            }
        }
        let batch = std::mem::take(&mut self.batch);
        if !batch.is_empty() {
            let done = self.registry.write(batch)?;
            for (target, is_done) in reported.into_iter().zip(&done[others..]) {
                // Who changed it meanwhile had a reason; the next step sees that.
                if !is_done {
                    self.memory.unsettled.insert(target);
                }
            }
        }
        self.report.operations = self.registry.running_targets()?.0 as u64;
        self.report.is_unsettled = !self.memory.unsettled.is_empty();
        self.report.phases = self.memory.phases();
        self.report.strays.clone_from(&self.memory.strays);
        Ok(self.report)
    }
}

/// Nothing comes next by itself.
fn is_settled(vm: &Vm) -> bool {
    let is_at_rest =
        matches!(vm.status.phase, Phase::Running | Phase::Paused | Phase::Stopped | Phase::Failed);
    is_at_rest && !vm.meta.deleting
}
