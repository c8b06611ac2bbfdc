//! VMs that are asked for, and forgotten.

use std::sync::Arc;

use jiff::Timestamp;
use model::{Operation, Verb, Vm};
use store::Txn;

use crate::codec::PutJson;
use crate::disks::RootDisk;
use crate::objects::TRIES;
use crate::{Asked, Batch, Kept, New, Registry, RegistryError, networks, operations};

impl Registry {
    /// Asks for a VM, and for a disk that is made for it.
    ///
    /// # Errors
    /// When it cannot be, the name is taken, there is no such project, or the store fails.
    pub fn create_vm(
        &self,
        mut new: New<Vm>,
        root: Option<RootDisk>,
        asked: &Asked,
    ) -> Result<(Kept<Vm>, Operation), RegistryError> {
        new.spec.boot = 1;
        self.check_cards(&new.spec, &new.project, None)?;
        if let Some(told) = &mut new.spec.cloud_init {
            self.look_up_keys(told, &new.project)?;
        }
        let _turn = self.turn(&new.project)?;
        for _ in 0..TRIES {
            let mut new = new.clone();
            let txn = self.put_disks(Txn::new(), &mut new, root.clone(), asked)?;
            let mut vm = new.object(asked)?;
            let (cards, txn) = self.take_addresses(&vm, txn)?;
            vm.status.networks = cards;
            let operation = operations::of_vm(Verb::Create, &vm, asked);
            let txn = self.put_new(txn, &vm)?;
            let txn = txn.put_json(operations::key(operation.id), &operation)?;
            if let Some(revision) = self.commit(&txn)? {
                return Ok((Kept { object: vm, revision }, operation));
            }
            // Somebody else has taken the name, an address or a disk.
        }
        Err(RegistryError::Changed)
    }

    /// Forgets a VM of which the host has nothing more: its addresses are free, and its operations finished.
    ///
    /// # Errors
    /// When the VM cannot be written.
    pub fn forget_vm(
        &self,
        batch: &mut Batch,
        vm: &Vm,
        done: &[Arc<Kept<Operation>>],
        now: Timestamp,
    ) -> Result<(), RegistryError> {
        let txn = vm.status.networks.iter().fold(Txn::new(), networks::release);
        self.forget_with(txn, batch, vm, done, now)
    }
}
