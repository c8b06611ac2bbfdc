//! Operations.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use model::{Kind, Object, Operation, OperationId, OperationState, Target, Verb, Vm};
use store::{Revision, Txn};
use uuid::Uuid;

use crate::codec::PutJson;
use crate::{Asked, Batch, Kept, Registry, RegistryError};

const PREFIX: &str = "/operations/";
/// How long what has become of an operation can be looked up.
const KEPT: SignedDuration = SignedDuration::from_hours(7 * 24);
/// And of how many.
const KEPT_MAX: usize = 1000;

pub(crate) fn key(id: OperationId) -> String {
    format!("{PREFIX}{id}")
}

/// One that has just begun.
pub(crate) fn new<O: Object>(verb: Verb, object: &O, asked: &Asked) -> Operation {
    let meta = object.meta();
    Operation {
        id: OperationId::new(),
        verb,
        target: Target {
            kind: O::KIND,
            id: meta.id.into(),
            name: meta.name.clone(),
            project: meta.project.clone(),
        },
        boot: 0,
        requestor: asked.by.clone(),
        state: OperationState::Running,
        phase: "waiting".to_owned(),
        percent: 0,
        can_cancel: false,
        error: None,
        created: asked.at,
        finished: None,
    }
}

pub(crate) fn of_vm(verb: Verb, vm: &Vm, asked: &Asked) -> Operation {
    let can_cancel = matches!(verb, Verb::Create | Verb::Start | Verb::Restart);
    Operation { boot: vm.spec.boot, can_cancel, ..new(verb, vm, asked) }
}

impl Registry {
    /// An operation.
    ///
    /// # Errors
    /// When there is none, or the store fails.
    pub fn operation(&self, id: OperationId) -> Result<Kept<Operation>, RegistryError> {
        let missing = RegistryError::Missing { kind: "operation", name: id.to_string() };
        let found = self.mirror.read(|tables, _| tables.operations().get(id).cloned())?;
        found.map(|kept| (*kept).clone()).ok_or(missing)
    }

    /// All operations, the oldest first, and the revision they are of.
    ///
    /// # Errors
    /// When the revision is compacted, or the store fails.
    pub fn operations(
        &self,
        at: Option<Revision>,
    ) -> Result<(Vec<Kept<Operation>>, Revision), RegistryError> {
        let found = self.mirror.read(|tables, now| {
            let operations = tables.operations();
            let is_so = at.is_none_or(|at| (operations.changed()..=now).contains(&at));
            is_so.then(|| (operations.all().map(|kept| (**kept).clone()).collect(), now))
        })?;
        match (found, at) {
            (Some((all, now)), at) => Ok((all, at.unwrap_or(now))),
            (None, at) => self.read_all(PREFIX, at),
        }
    }

    /// Those that are not over, about any of these.
    ///
    /// # Errors
    /// When the store fails.
    pub fn running_operations(
        &self,
        targets: impl IntoIterator<Item = Uuid>,
    ) -> Result<Vec<Arc<Kept<Operation>>>, RegistryError> {
        self.mirror.read(|tables, _| {
            let of = |target| tables.operations().running_of(target).cloned();
            targets.into_iter().flat_map(of).collect()
        })
    }

    /// How many are not over, and about what they are.
    ///
    /// # Errors
    /// When the store fails.
    pub fn running_targets(&self) -> Result<(usize, Vec<(Kind, Uuid)>), RegistryError> {
        self.mirror.read(|tables, _| {
            let operations = tables.operations();
            (operations.running(), operations.targets().collect())
        })
    }

    /// Writes down how far an operation is, if nobody else has meanwhile.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn report(
        &self,
        batch: &mut Batch,
        operation: &Kept<Operation>,
    ) -> Result<(), RegistryError> {
        let key = key(operation.object.id);
        let txn = Txn::new().if_modified(&key, operation.revision);
        batch.0.push(txn.put_json(&key, &operation.object)?);
        Ok(())
    }

    /// Forgets what has long been over.
    ///
    /// # Errors
    /// When the store fails.
    pub fn forget_operations(&self, now: Timestamp) -> Result<(), RegistryError> {
        let (over, _) = self.operations(None)?;
        let over: Vec<_> = over.iter().filter(|kept| kept.object.finished.is_some()).collect();
        let is_old = |kept: &Kept<Operation>| {
            kept.object.finished.is_some_and(|then| now.duration_since(then) > KEPT)
        };
        let surplus = over.len().saturating_sub(KEPT_MAX);
        let forgotten = over.iter().enumerate().filter(|(n, kept)| *n < surplus || is_old(kept));
        self.delete_all(forgotten.map(|(_, kept)| key(kept.object.id)))
    }
}
