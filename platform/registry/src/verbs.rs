//! What can be asked of a VM that is there.

use model::{
    Kind, Name, Operation, OperationId, OperationState, Phase, Power, Spec, Target, Verb, Vm, VmId,
    VmSpec,
};
use store::{Revision, Txn};

use crate::codec::PutJson;
use crate::objects::{Facet, Parts, TRIES, key};
use crate::{Asked, Kept, Registry, RegistryError, operations};

/// What shall change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It runs. One that runs is left so.
    Start,
    /// It does not run: its guest shuts down, or ends at once.
    Stop {
        /// At once.
        is_forced: bool,
    },
    /// It is stopped and started.
    Restart,
    /// It and its clock stand.
    Pause,
    /// It goes on.
    Resume,
    /// It has so many CPUs and so much RAM: at once, as far as there is room, else from its next start.
    Resize {
        /// So many CPUs.
        cpus: Option<u32>,
        /// So much RAM, in bytes.
        memory_bytes: Option<u64>,
    },
    /// It goes away.
    Delete {
        /// Also if it runs.
        is_forced: bool,
        /// Its disks stay.
        keeps_disks: bool,
    },
}

impl Change {
    fn verb(&self) -> Verb {
        match self {
            Self::Start => Verb::Start,
            Self::Stop { .. } => Verb::Stop,
            Self::Restart => Verb::Restart,
            Self::Pause => Verb::Pause,
            Self::Resume => Verb::Resume,
            Self::Resize { .. } => Verb::Resize,
            Self::Delete { .. } => Verb::Delete,
        }
    }
}

impl Registry {
    /// Asks for a change of a VM.
    ///
    /// # Errors
    /// When the VM is not there, its state does not allow that, it is no longer of the revision that
    /// is given, or the store fails.
    pub fn change_vm(
        &self,
        project: &Name,
        name_or_id: &str,
        change: &Change,
        revision: Option<Revision>,
        asked: &Asked,
    ) -> Result<Operation, RegistryError> {
        for _ in 0..TRIES {
            let parts = self.parts::<Vm>(project, name_or_id)?;
            if revision.is_some_and(|revision| revision != parts.spec) {
                return Err(RegistryError::Changed);
            }
            let (vm, verb) = (&parts.object, change.verb());
            let mut with_spec = vm.clone();
            with_spec.spec = changed(vm, change)?.unwrap_or_else(|| vm.spec.clone());
            with_spec.spec.check()?;
            let operation = operations::of_vm(verb, &with_spec, asked);
            let id = vm.meta.id;
            let mut txn =
                parts.unchanged(Txn::new()).put_json(operations::key(operation.id), &operation)?;
            if with_spec.spec != vm.spec {
                txn = txn.put_json(key::<Vm>(id, Facet::Spec), &with_spec.spec)?;
                let (less, more) = (vm.spec.takes(), with_spec.spec.takes());
                if more != less {
                    txn = self.charge(txn, project, less, more)?;
                }
            }
            if verb == Verb::Delete {
                let mut meta = vm.meta.clone();
                meta.deleting = true;
                txn = txn.put_json(key::<Vm>(id, Facet::Meta), &meta)?;
            }
            if matches!(change, Change::Delete { keeps_disks: true, .. }) {
                txn = self.keep_disks(txn, vm)?;
            }
            if self.commit(&txn)?.is_some() {
                return Ok(operation);
            }
        }
        Err(RegistryError::Changed)
    }

    /// Cancels an operation that has not come to its end: the VM is then to be off.
    ///
    /// # Errors
    /// When it is over or none that can be cancelled, or the store fails.
    pub fn cancel(&self, id: OperationId, asked: &Asked) -> Result<Operation, RegistryError> {
        for _ in 0..TRIES {
            let Kept { object: mut operation, revision } = self.operation(id)?;
            if !operation.can_cancel || operation.state != OperationState::Running {
                return Err(RegistryError::NotCancellable(id));
            }
            let Target { kind: Kind::Vm, id: vm, .. } = operation.target else {
                return Err(RegistryError::NotCancellable(id));
            };
            let parts = self.parts_of::<Vm>(VmId(vm))?;
            let Parts { object: vm, spec: of_spec, .. } =
                parts.ok_or(RegistryError::NotCancellable(id))?;
            if vm.spec.boot != operation.boot || vm.meta.deleting {
                return Err(RegistryError::NotCancellable(id));
            }
            operation.finish_as(OperationState::Cancelled, None, asked.at);
            let (spec_key, operation_key) =
                (key::<Vm>(vm.meta.id, Facet::Spec), operations::key(id));
            let spec = VmSpec { power: Power::OffNow, ..vm.spec };
            let txn = Txn::new()
                .if_modified(&spec_key, of_spec)
                .if_modified(&operation_key, revision)
                .put_json(&spec_key, &spec)?
                .put_json(&operation_key, &operation)?;
            if self.commit(&txn)?.is_some() {
                return Ok(operation);
            }
        }
        Err(RegistryError::Changed)
    }
}

/// The spec that a change makes; `None` when it makes no other.
fn changed(vm: &Vm, change: &Change) -> Result<Option<VmSpec>, RegistryError> {
    let name = || vm.meta.name.clone();
    if vm.meta.deleting {
        return Err(RegistryError::deleting::<Vm>(&vm.meta));
    }
    let is_up = matches!(vm.status.phase, Phase::Starting | Phase::Running | Phase::Paused);
    let is_coming = vm.spec.power.is_on() && vm.status.boot < vm.spec.boot;
    let with_power = |power| VmSpec { power, ..vm.spec.clone() };
    let anew = |power| VmSpec { boot: vm.spec.boot + 1, ..with_power(power) };
    Ok(match change {
        Change::Start if vm.spec.power.is_on() && (is_up || is_coming) => None,
        Change::Start => Some(anew(Power::On)),
        Change::Restart if vm.spec.power.is_on() => Some(anew(Power::On)),
        Change::Pause if is_up || is_coming => Some(with_power(Power::Paused)),
        Change::Resume if is_up || is_coming => Some(with_power(Power::On)),
        Change::Restart | Change::Pause | Change::Resume => {
            return Err(RegistryError::NotRunning(name()));
        }
        Change::Stop { is_forced: false } if vm.spec.power == Power::OffNow => None,
        Change::Stop { is_forced: false } => Some(with_power(Power::Off)),
        Change::Stop { is_forced: true } => Some(with_power(Power::OffNow)),
        Change::Resize { cpus, memory_bytes } => {
            let cpus = cpus.unwrap_or(vm.spec.cpus);
            let memory_bytes = memory_bytes.unwrap_or(vm.spec.memory_bytes);
            Some(VmSpec {
                cpus,
                memory_bytes,
                // What is beyond them counts from the next start, and so do they.
                cpus_max: vm.spec.cpus_max.map(|most| most.max(cpus)),
                memory_max_bytes: vm.spec.memory_max_bytes.map(|most| most.max(memory_bytes)),
                ..vm.spec.clone()
            })
        }
        Change::Delete { .. } if vm.spec.protected => {
            return Err(RegistryError::Protected(name()));
        }
        Change::Delete { is_forced: false, .. }
            if is_up || vm.status.phase == Phase::Stopping || is_coming =>
        {
            return Err(RegistryError::Running(name()));
        }
        Change::Delete { .. } => Some(with_power(Power::OffNow)),
    })
}
