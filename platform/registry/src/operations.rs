//! Operations.

use jiff::{SignedDuration, Timestamp};
use model::{Object, Operation, OperationId, OperationState, Target, Verb, Vm};
use store::{Revision, Txn};

use crate::codec::PutJson;
use crate::{Asked, Kept, Registry, RegistryError};

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
        self.read(&key(id))?.ok_or(missing)
    }

    /// All operations, the oldest first, and the revision they are of.
    ///
    /// # Errors
    /// When the revision is compacted, or the store fails.
    pub fn operations(
        &self,
        at: Option<Revision>,
    ) -> Result<(Vec<Kept<Operation>>, Revision), RegistryError> {
        self.read_all(PREFIX, at)
    }

    /// Writes down how far an operation is, if nobody else has meanwhile.
    ///
    /// # Errors
    /// When the store fails.
    pub fn report(&self, operation: &Kept<Operation>) -> Result<bool, RegistryError> {
        let key = key(operation.object.id);
        let txn = Txn::new().if_modified(&key, operation.revision);
        Ok(self.commit(&txn.put_json(&key, &operation.object)?)?.is_some())
    }

    /// Forgets what has long been over.
    ///
    /// # Errors
    /// When the store fails.
    pub fn forget_operations(
        &self,
        all: &[Kept<Operation>],
        now: Timestamp,
    ) -> Result<(), RegistryError> {
        let over: Vec<_> = all.iter().filter(|kept| kept.object.finished.is_some()).collect();
        let is_old = |kept: &Kept<Operation>| {
            kept.object.finished.is_some_and(|then| now.duration_since(then) > KEPT)
        };
        let surplus = over.len().saturating_sub(KEPT_MAX);
        let forgotten = over.iter().enumerate().filter(|(n, kept)| *n < surplus || is_old(kept));
        for (_, kept) in forgotten {
            self.commit(&Txn::new().delete(key(kept.object.id)))?;
        }
        Ok(())
    }
}
