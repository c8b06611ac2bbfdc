//! SSH keys, and the VMs that are made with them.

use model::{CloudInit, Name, SshKey};
use store::{Revision, Txn};

use crate::objects::{Parts, delete};
use crate::{Asked, Kept, New, Registry, RegistryError};

impl Registry {
    /// Makes a key known.
    ///
    /// # Errors
    /// When it is none, its name is taken, or the store fails.
    pub fn create_ssh_key(
        &self,
        new: New<SshKey>,
        asked: &Asked,
    ) -> Result<Kept<SshKey>, RegistryError> {
        let mut key = new.object(asked)?;
        key.status = key.spec.read()?;
        self.create(key)
    }

    /// Forgets a key. VMs that were made with it have it all the same.
    ///
    /// # Errors
    /// When there is none, it is no longer of the revision that is given, or the store fails.
    pub fn delete_ssh_key(
        &self,
        project: &Name,
        name_or_id: &str,
        revision: Option<Revision>,
    ) -> Result<(), RegistryError> {
        let parts = self.parts::<SshKey>(project, name_or_id)?;
        if revision.is_some_and(|revision| revision != parts.spec) {
            return Err(RegistryError::Changed);
        }
        let txn = delete(parts.unchanged(Txn::new()), &parts.object);
        self.commit(&txn)?.map(|_| ()).ok_or(RegistryError::Changed)
    }

    /// Adds to what a guest is told the keys that are named in it.
    pub(crate) fn look_up_keys(
        &self,
        told: &mut CloudInit,
        project: &Name,
    ) -> Result<(), RegistryError> {
        for name in &told.keys {
            let Parts { object: key, .. } = self.parts::<SshKey>(project, name.as_ref())?;
            let key = key.spec.public_key.trim().to_owned();
            if !told.ssh_keys.contains(&key) {
                told.ssh_keys.push(key);
            }
        }
        Ok(())
    }
}
