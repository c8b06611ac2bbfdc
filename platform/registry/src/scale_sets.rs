//! Scale sets.

use model::{Meta, Name, ScaleSet, check_scale_set_name};
use store::{Revision, Txn};

use crate::codec::PutJson;
use crate::objects::{Facet, key};
use crate::{Asked, Kept, New, Registry, RegistryError};

impl Registry {
    /// Makes a scale set.
    ///
    /// # Errors
    /// When it cannot be, the name is taken, there is no such project, or the store fails.
    pub fn create_scale_set(
        &self,
        new: New<ScaleSet>,
        asked: &Asked,
    ) -> Result<Kept<ScaleSet>, RegistryError> {
        check_scale_set_name(&new.name)?;
        self.check_cards(&new.spec.template, &new.project, None)?;
        let object = new.object(asked)?;
        let txn = self.put_new(Txn::new(), &object)?;
        let revision = self.commit(&txn)?.ok_or(RegistryError::Changed)?;
        Ok(Kept { object, revision })
    }

    /// Asks that a scale set goes away, and its VMs with it.
    ///
    /// # Errors
    /// When there is none, it is no longer of the revision that is given, or the store fails.
    pub fn delete_scale_set(
        &self,
        project: &Name,
        name_or_id: &str,
        revision: Option<Revision>,
    ) -> Result<Kept<ScaleSet>, RegistryError> {
        let mut parts = self.parts::<ScaleSet>(project, name_or_id)?;
        if revision.is_some_and(|revision| revision != parts.spec) {
            return Err(RegistryError::Changed);
        }
        let meta = Meta { deleting: true, ..parts.object.meta.clone() };
        let txn = parts.unchanged(Txn::new());
        let txn = txn.put_json(key::<ScaleSet>(meta.id, Facet::Meta), &meta)?;
        self.commit(&txn)?.ok_or(RegistryError::Changed)?;
        parts.object.meta = meta;
        Ok(Kept { object: parts.object, revision: parts.spec })
    }
}
