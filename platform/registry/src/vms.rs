//! VMs that are asked for.

use model::{Operation, Verb, Vm};
use store::Txn;

use crate::codec::PutJson;
use crate::{Asked, Kept, New, Registry, RegistryError, operations};

impl Registry {
    /// Asks for a VM.
    ///
    /// # Errors
    /// When it cannot be, the name is taken, there is no such project, or the store fails.
    pub fn create_vm(
        &self,
        mut new: New<Vm>,
        asked: &Asked,
    ) -> Result<(Kept<Vm>, Operation), RegistryError> {
        new.spec.boot = 1;
        let vm = new.object(asked)?;
        let operation = operations::of_vm(Verb::Create, &vm, asked);
        let txn = self.put_new(Txn::new(), &vm)?;
        let txn = txn.put_json(operations::key(operation.id), &operation)?;
        let revision = self.commit(&txn)?.ok_or(RegistryError::Changed)?;
        Ok((Kept { object: vm, revision }, operation))
    }
}
