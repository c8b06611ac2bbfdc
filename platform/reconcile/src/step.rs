//! A step for all VMs.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use model::{
    Operation, OperationState, Phase, SecurityGroup, SecurityGroupStatus, VirtualNetwork, Vm, VmId,
    VmStatus,
};
use registry::{Kept, Registry, RegistryError};

use crate::decide::{Action, decide};
use crate::judge::judge;
use crate::networks::{members, status, wanted};
use crate::{Host, HostError, Seen};

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

/// What a step found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// VMs that are there, by phase.
    pub phases: BTreeMap<Phase, u64>,
    /// Operations that are not over.
    pub operations: u64,
    /// Something is on its way: the next step is soon.
    pub is_unsettled: bool,
    /// What the host has and the store does not know. It is left alone.
    pub strays: Vec<VmId>,
    /// What the host refused: for the log.
    pub refused: Vec<(VmId, Action, String)>,
}

/// Takes steps.
pub struct Reconciler {
    registry: Registry,
    host: Arc<dyn Host>,
}

impl Reconciler {
    /// Of the VMs in this registry, on this host.
    pub fn new(registry: Registry, host: Arc<dyn Host>) -> Self {
        Self { registry, host }
    }

    /// One step for every VM.
    ///
    /// # Errors
    /// When the store or the host fails; it is safe to go on with another step.
    pub fn step(&self, now: Timestamp) -> Result<Report, StepError> {
        // What the host has is looked at first: a VM that was asked for since is no stray.
        let mut seen: BTreeMap<VmId, Seen> =
            self.host.see()?.into_iter().map(|seen| (seen.id, seen)).collect();
        let (vms, _) = self.registry.all::<Vm>(None)?;
        let (operations, _) = self.registry.operations(None)?;
        // Before VMs, which are started on them.
        self.network(&vms)?;
        let mut report = Report::default();
        let mut known = BTreeMap::new();
        for Kept { object: mut vm, .. } in vms {
            let seen = seen.remove(&vm.meta.id);
            if vm.meta.deleting && seen.is_none() {
                self.registry.forget_vm(&vm, &unfinished(&operations), now)?;
                report.is_unsettled = true;
                continue;
            }
            let (status, action) = decide(&vm, seen.as_ref(), now);
            let status = self.act(&vm, status, action, &mut report);
            if status != vm.status {
                self.registry.set_status::<Vm>(vm.meta.id, &status)?;
                vm.status = status;
            }
            *report.phases.entry(vm.status.phase).or_default() += 1;
            report.is_unsettled |= action.is_some() || !is_settled(&vm);
            known.insert(vm.meta.id, vm);
        }
        report.strays = seen.into_keys().collect();
        for mut kept in unfinished(&operations) {
            let before = kept.object.clone();
            judge(&mut kept.object, known.get(&VmId(before.target.id)), now);
            report.operations += u64::from(kept.object.state == OperationState::Running);
            // Who changed it meanwhile had a reason; the next step sees that.
            if kept.object != before && !self.registry.report(&kept)? {
                report.is_unsettled = true;
            }
        }
        Ok(report)
    }

    /// Makes networks as they are wanted, and writes down how they are.
    fn network(&self, vms: &[Kept<Vm>]) -> Result<(), StepError> {
        let networks = self.registry.all::<VirtualNetwork>(None)?.0;
        let networks: Vec<_> = networks.into_iter().map(|kept| kept.object).collect();
        let groups = self.registry.all::<SecurityGroup>(None)?.0;
        let groups: Vec<_> = groups.into_iter().map(|kept| kept.object).collect();
        let wanted = wanted(&networks, &groups, vms.iter().map(|kept| &kept.object));
        let seen = self.host.network(&wanted)?;
        for (network, wanted) in networks.iter().zip(&wanted.networks) {
            let status = status(wanted, seen.get(&network.meta.id));
            if status != network.status {
                self.registry.set_status::<VirtualNetwork>(network.meta.id, &status)?;
            }
        }
        for group in &groups {
            let cards = members(group, vms.iter().map(|kept| &kept.object));
            if cards != group.status.cards {
                let status = SecurityGroupStatus { cards };
                self.registry.set_status::<SecurityGroup>(group.meta.id, &status)?;
            }
        }
        Ok(())
    }

    /// Does what was decided. A refusal is in the status until something else comes of it.
    fn act(
        &self,
        vm: &Vm,
        status: VmStatus,
        action: Option<Action>,
        report: &mut Report,
    ) -> VmStatus {
        let Some(action) = action else { return status };
        let id = vm.meta.id;
        let done = match action {
            Action::Prepare => self.host.prepare(vm),
            Action::Start => self.host.start(vm),
            Action::Pause => self.host.pause(id),
            Action::Resume => self.host.resume(id),
            Action::PowerButton => self.host.press_power_button(id),
            Action::End => self.host.end(id),
            Action::Remove => self.host.remove(id),
        };
        let Err(HostError(message)) = done else { return status };
        report.refused.push((id, action, message.clone()));
        VmStatus { reason: Some(message), ..status }
    }
}

fn unfinished(all: &[Kept<Operation>]) -> Vec<Kept<Operation>> {
    all.iter().filter(|kept| kept.object.state == OperationState::Running).cloned().collect()
}

/// Nothing comes next by itself.
fn is_settled(vm: &Vm) -> bool {
    let is_at_rest =
        matches!(vm.status.phase, Phase::Running | Phase::Paused | Phase::Stopped | Phase::Failed);
    is_at_rest && !vm.meta.deleting
}
