//! VMs: a spec of their owner's, a status of the reconciler's.

use jiff::Timestamp;
use model::{Name, Operation, Verb, Vm, VmId, VmMeta, VmSpec, VmStatus};
use serde::{Deserialize, Serialize};
use store::{Entry, Range, Revision, Txn};

use crate::codec::{PutJson, read};
use crate::{Asked, Kept, Registry, RegistryError, operations, projects};

const PREFIX: &str = "/vms/";

/// A VM that is asked for.
#[derive(Debug, Clone)]
pub struct NewVm {
    /// Its name.
    pub name: Name,
    /// Its project.
    pub project: Name,
    /// What is wanted of it.
    pub spec: VmSpec,
}

/// Which part of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Facet {
    Meta,
    Spec,
    Status,
}

pub(crate) fn key(id: VmId, facet: Facet) -> String {
    let facet = match facet {
        Facet::Meta => "meta",
        Facet::Spec => "spec",
        Facet::Status => "status",
    };
    format!("{PREFIX}{id}/{facet}")
}

pub(crate) fn names_of(project: &Name) -> String {
    format!("/names/vms/{project}/")
}

fn name_key(project: &Name, name: &Name) -> String {
    format!("{}{name}", names_of(project))
}

/// A VM and the revisions of its parts.
pub(crate) struct Parts {
    pub vm: Vm,
    pub meta: Revision,
    pub spec: Revision,
}

/// VMs of entries in the order of their keys. `meta` comes before `spec` before `status`.
fn assemble(entries: &[Entry]) -> Result<Vec<Parts>, RegistryError> {
    let whole = |part: &[Entry]| {
        let [meta, spec, status] = part else { return Ok(None) };
        let vm = Vm { meta: read(meta)?, spec: read(spec)?, status: read(status)? };
        Ok(Some(Parts { vm, meta: meta.modified, spec: spec.modified }))
    };
    let id = |entry: &Entry| entry.key.rfind('/').map_or(0, |end| end);
    let groups = entries.chunk_by(|a, b| a.key[..id(a)] == b.key[..id(b)]);
    groups.filter_map(|part| whole(part).transpose()).collect()
}

/// The name of a VM alone, as it is kept.
#[derive(Serialize, Deserialize)]
struct NameRecord {
    id: VmId,
}

impl Registry {
    /// Asks for a VM.
    ///
    /// # Errors
    /// When it cannot be, the name is taken, there is no such project, or the store fails.
    pub fn create_vm(
        &self,
        new: NewVm,
        asked: &Asked,
    ) -> Result<(Kept<Vm>, Operation), RegistryError> {
        new.spec.check()?;
        let project = self.project(&new.project)?;
        let NewVm { name, project: project_name, spec } = new;
        let id = VmId::new();
        let meta = VmMeta {
            id,
            name: name.clone(),
            project: project_name.clone(),
            created: asked.at,
            deleting: false,
        };
        let spec = VmSpec { boot: 1, ..spec };
        let vm = Vm { meta, spec, status: VmStatus::default() };
        let operation = operations::new(Verb::Create, &vm, asked);
        let (name_key, project_key) =
            (name_key(&project_name, &name), projects::key(&project_name));
        let txn = Txn::new()
            .if_absent(&name_key)
            .if_modified(&project_key, project.revision)
            .put_json(&name_key, &NameRecord { id })?
            .put_json(key(id, Facet::Meta), &vm.meta)?
            .put_json(key(id, Facet::Spec), &vm.spec)?
            .put_json(key(id, Facet::Status), &vm.status)?
            .put_json(operations::key(operation.id), &operation)?;
        match self.commit(&txn)? {
            Some(revision) => Ok((Kept { object: vm, revision }, operation)),
            None if self.store.get(&name_key)?.0.is_some() => {
                Err(RegistryError::Exists { kind: "VM", name })
            }
            None => Err(RegistryError::Changed),
        }
    }

    /// A VM, by its name in the project or by its ID.
    ///
    /// # Errors
    /// When there is none, or the store fails.
    pub fn vm(&self, project: &Name, name_or_id: &str) -> Result<Kept<Vm>, RegistryError> {
        let parts = self.parts(project, name_or_id)?;
        Ok(Kept { object: parts.vm, revision: parts.spec })
    }

    pub(crate) fn parts(&self, project: &Name, name_or_id: &str) -> Result<Parts, RegistryError> {
        let missing = || RegistryError::Missing { kind: "VM", name: name_or_id.to_owned() };
        let id = match name_or_id.parse::<VmId>() {
            Ok(id) => id,
            Err(_) => {
                let name = name_or_id.parse().map_err(|_| missing())?;
                let record = self.read::<NameRecord>(&name_key(project, &name))?;
                record.ok_or_else(missing)?.object.id
            }
        };
        let found = self.parts_of(id)?;
        found.filter(|parts| parts.vm.meta.project == *project).ok_or_else(missing)
    }

    fn parts_of(&self, id: VmId) -> Result<Option<Parts>, RegistryError> {
        let page = self.store.range(&Range::prefix(format!("{PREFIX}{id}/")))?;
        Ok(assemble(&page.entries)?.pop())
    }

    /// A VM of whatever project, if it is there.
    ///
    /// # Errors
    /// When the store fails.
    pub fn vm_by_id(&self, id: VmId) -> Result<Option<Kept<Vm>>, RegistryError> {
        let parts = self.parts_of(id)?;
        Ok(parts.map(|parts| Kept { object: parts.vm, revision: parts.spec }))
    }

    /// All VMs of all projects, the oldest first, and the revision they are of.
    ///
    /// # Errors
    /// When the revision is compacted, or the store fails.
    pub fn vms(&self, at: Option<Revision>) -> Result<(Vec<Kept<Vm>>, Revision), RegistryError> {
        let page = self.store.range(&Range { at, ..Range::prefix(PREFIX) })?;
        let all = assemble(&page.entries)?.into_iter();
        let all = all.map(|parts| Kept { object: parts.vm, revision: parts.spec }).collect();
        Ok((all, page.revision))
    }

    /// Writes down how a VM is. Only its reconciler does.
    ///
    /// # Errors
    /// When the store fails.
    pub fn set_status(&self, vm: VmId, status: &VmStatus) -> Result<(), RegistryError> {
        let meta = self.store.get(&key(vm, Facet::Meta))?.0;
        // One that is gone has no status.
        let Some(meta) = meta else { return Ok(()) };
        let txn = Txn::new().if_modified(&meta.key, meta.modified);
        self.commit(&txn.put_json(key(vm, Facet::Status), status)?)?;
        Ok(())
    }

    /// Forgets a VM of which the host has nothing more, and finishes its operations.
    ///
    /// # Errors
    /// When the store fails.
    pub fn forget_vm(
        &self,
        vm: &Vm,
        done: &[Kept<Operation>],
        now: Timestamp,
    ) -> Result<(), RegistryError> {
        let id = vm.meta.id;
        let mut txn = Txn::new()
            .delete(name_key(&vm.meta.project, &vm.meta.name))
            .delete(key(id, Facet::Meta))
            .delete(key(id, Facet::Spec))
            .delete(key(id, Facet::Status));
        // A transaction has room for so many; more are cancelled when their VM is missed.
        for kept in done.iter().filter(|kept| kept.object.target.vm == id).take(64) {
            let mut operation = kept.object.clone();
            operation.finish(None, now);
            let key = operations::key(operation.id);
            txn = txn.if_modified(&key, kept.revision).put_json(&key, &operation)?;
        }
        self.commit(&txn)?;
        Ok(())
    }
}
