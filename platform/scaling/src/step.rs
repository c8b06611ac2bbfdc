//! A step for all sets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use model::{Membership, Meta, Name, Object, Requestor, ScaleSet, ScaleSetPhase, Vm, VmId, VmSpec};
use registry::{Asked, Batch, Change, New, Registry, RegistryError, RootDisk};
use sha2::{Digest, Sha256};

use crate::decide::{Action, decide};
use crate::load::Loads;

/// Why a step was cut off.
#[derive(Debug, thiserror::Error)]
pub enum ScaleError {
    /// The store fails.
    #[error("the state cannot be read or written")]
    Registry(#[from] RegistryError),
}

/// What there is around sets.
pub trait Around: Send + Sync {
    /// The disk of a VM that is made of this image, so large.
    ///
    /// # Errors
    /// When there is no such image, or it is larger: in words for people.
    fn root_disk(&self, image: &str, size_bytes: Option<u64>) -> Result<RootDisk, String>;

    /// The time of the host's CPUs that a VM has used, in milliseconds; `None` when it does not run.
    fn cpu_ms(&self, vm: VmId) -> Option<u64>;
}

/// Takes steps.
pub struct Scaler {
    registry: Registry,
    around: Arc<dyn Around>,
    loads: Loads,
}

impl Scaler {
    /// Of the sets in this registry.
    pub fn new(registry: Registry, around: Arc<dyn Around>) -> Self {
        Self { registry, around, loads: Loads::default() }
    }

    /// One step for every set.
    ///
    /// # Errors
    /// When the store fails; it is safe to go on with another step.
    pub fn step(&mut self, now: Timestamp) -> Result<(), ScaleError> {
        let sets = self.registry.all::<ScaleSet>(None)?.0;
        if sets.is_empty() {
            return Ok(());
        }
        let mut members: BTreeMap<(Name, Name), Vec<Vm>> = BTreeMap::new();
        for vm in self.registry.all::<Vm>(None)?.0.iter() {
            if let Some(of) = &vm.spec.scale_set {
                let set = (vm.meta.project.clone(), of.name.clone());
                members.entry(set).or_default().push(Vm::clone(vm));
            }
        }
        self.loads.keep(&members.values().flatten().map(|vm| vm.meta.id).collect());
        for set in sets.iter() {
            let vms = members.remove(&(set.meta.project.clone(), set.meta.name.clone()));
            self.step_set(set, &vms.unwrap_or_default(), now)?;
        }
        Ok(())
    }

    fn step_set(&mut self, set: &ScaleSet, vms: &[Vm], now: Timestamp) -> Result<(), ScaleError> {
        if set.meta.deleting && vms.is_empty() {
            let mut batch = Batch::default();
            self.registry.forget(&mut batch, set, &[], now)?;
            self.registry.write(batch)?;
            return Ok(());
        }
        let template = digest(&set.spec.template);
        let load = self.load(vms, now);
        let (mut status, actions) = decide(set, vms, &template, load, now);
        for action in actions {
            if let Err(error) = self.act(set, vms, &template, &action, now) {
                // The others go on; the next step tries again.
                status.phase = ScaleSetPhase::Failed;
                status.reason = Some(error);
            }
        }
        if status != set.status {
            self.registry.set_status::<ScaleSet>(set.meta.id, &status)?;
        }
        Ok(())
    }

    /// The average of those that run.
    fn load(&mut self, vms: &[Vm], now: Timestamp) -> Option<u32> {
        let mut each = Vec::new();
        for vm in vms {
            let cpu_ms = self.around.cpu_ms(vm.meta.id);
            each.extend(cpu_ms.and_then(|cpu_ms| self.loads.of(vm, cpu_ms, now)));
        }
        let count = u32::try_from(each.len()).ok().filter(|count| *count > 0)?;
        Some(each.iter().sum::<u32>() / count)
    }

    fn act(
        &self,
        set: &ScaleSet,
        vms: &[Vm],
        template: &str,
        action: &Action,
        now: Timestamp,
    ) -> Result<(), String> {
        let who = format!("scale-set:{}", set.meta.name);
        let asked = Asked { by: Requestor { who, request: set.meta.id.to_string() }, at: now };
        let project = &set.meta.project;
        let told = |error: RegistryError| error.to_string();
        match action {
            Action::Make(count) => {
                let image = set.spec.template.image.as_deref();
                let root =
                    image.map(|image| self.around.root_disk(image, set.spec.template.disk_bytes));
                let root = root.transpose()?;
                let of = Membership { name: set.meta.name.clone(), template: template.to_owned() };
                for name in free_names(&set.meta, vms).take(*count) {
                    let spec = VmSpec { scale_set: Some(of.clone()), ..set.spec.template.clone() };
                    let new = New { name, project: project.clone(), spec };
                    self.registry.create_vm(new, root.clone(), &asked).map_err(told)?;
                }
            }
            Action::Stop(vm) => {
                let (id, change) = (vm.meta.id.to_string(), Change::Stop { is_forced: false });
                self.registry.change_vm(project, &id, &change, None, &asked).map_err(told)?;
            }
            Action::Delete(vm) => {
                let change = Change::Delete { is_forced: true, keeps_disks: false };
                let id = vm.meta.id.to_string();
                self.registry.change_vm(project, &id, &change, None, &asked).map_err(told)?;
            }
        }
        Ok(())
    }
}

/// Names that none of the VMs has: the set's and a number.
fn free_names<'a>(
    set: &'a Meta<<ScaleSet as Object>::Id>,
    vms: &'a [Vm],
) -> impl Iterator<Item = Name> {
    let taken: BTreeSet<&Name> = vms.iter().map(|vm| &vm.meta.name).collect();
    let names = (1u32..).filter_map(|number| format!("{}-{number}", set.name).parse().ok());
    names.filter(move |name| !taken.contains(name))
}

/// Tells one template from another.
pub(crate) fn digest(template: &VmSpec) -> String {
    let text = serde_json::to_vec(template).unwrap_or_default();
    Sha256::digest(text).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
