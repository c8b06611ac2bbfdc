//! What a project's objects take together, and whether there is room for more.
//!
//! In a project with a quota, what is to take something writes one key, which it compares: no two take the same
//! room. What goes away writes nothing: it only makes room.

use std::sync::Arc;

use model::{Amounts, Disk, Name, Object, Quota, Snapshot, Spec, Vm};
use store::{Compare, Op, Revision, Txn};

use crate::codec::{PutJson, write};
use crate::{Registry, RegistryError, projects};

/// Written by who takes something of a project's quota: with how much.
pub(crate) fn key(project: &Name) -> String {
    format!("/project-uses/{project}")
}

impl Registry {
    /// What a project's objects take together.
    ///
    /// # Errors
    /// When the store fails.
    pub fn used(&self, project: &Name) -> Result<Amounts, RegistryError> {
        let of = sum(project, &self.all::<Vm>(None)?.0)
            .with(sum(project, &self.all::<Disk>(None)?.0))
            .with(sum(project, &self.all::<Snapshot>(None)?.0));
        Ok(of)
    }

    /// Adds to a transaction that something of a project's is taken: `less` no more, and `more`. It happens only if the
    /// project is there and stays, and its quota has room.
    pub(crate) fn charge(
        &self,
        txn: Txn,
        project: &Name,
        less: Amounts,
        more: Amounts,
    ) -> Result<Txn, RegistryError> {
        let of = self.lasting_project(project)?;
        let project_key = projects::key(project);
        let is_compared = txn
            .when
            .iter()
            .any(|when| matches!(when, Compare::Modified(key, _) if *key == project_key));
        let txn = if is_compared { txn } else { txn.if_modified(project_key, of.revision) };
        if of.object.quota == Quota::default() || more == less {
            return Ok(txn);
        }
        self.take(txn, project, &of.object.quota, less, more)
    }

    fn take(
        &self,
        mut txn: Txn,
        project: &Name,
        quota: &Quota,
        less: Amounts,
        more: Amounts,
    ) -> Result<Txn, RegistryError> {
        let key = key(project);
        let damaged = |source| RegistryError::Damaged { key: key.clone(), source };
        let earlier = txn.then.iter_mut().find_map(|op| match op {
            Op::Put(of, value, _) if *of == key => Some(value),
            _ => None,
        });
        // Another object of the same transaction takes something, too.
        let taken: Amounts = match &earlier {
            Some(value) => serde_json::from_slice(value).map_err(damaged)?,
            None => Amounts::default(),
        };
        // Before it is counted: who has taken something meanwhile has written it.
        let last = self.store.get(&key)?.0.map_or(Revision::NONE, |entry| entry.modified);
        self.mirror.wrote(last);
        let before = self.used(project)?.with(taken);
        if let Some(overrun) = quota.overrun(before, before.changed(less, more)) {
            return Err(RegistryError::ProjectQuota { project: project.clone(), overrun });
        }
        let taken = taken.with(more);
        match earlier {
            Some(value) => *value = write(&key, &taken)?,
            None => txn = txn.if_modified(&key, last).put_json(&key, &taken)?,
        }
        Ok(txn)
    }
}

fn sum<O: Object>(project: &Name, all: &[Arc<O>]) -> Amounts {
    let own = all.iter().filter(|of| of.meta().project == *project);
    own.fold(Amounts::default(), |sum, of| sum.with(of.spec().takes()))
}
