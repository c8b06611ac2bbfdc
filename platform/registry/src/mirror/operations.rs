//! Operations, and which of them are about what.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{Operation, OperationId, OperationState};
use store::{Entry, Revision};
use uuid::Uuid;

use crate::codec::read;
use crate::{Kept, RegistryError};

/// All operations.
#[derive(Default)]
pub(crate) struct Operations {
    all: BTreeMap<OperationId, Arc<Kept<Operation>>>,
    /// Those that are not over, by what they are about.
    running: BTreeMap<Uuid, BTreeSet<OperationId>>,
    changed: Revision,
}

impl Operations {
    pub fn get(&self, id: OperationId) -> Option<&Arc<Kept<Operation>>> {
        self.all.get(&id)
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<Kept<Operation>>> {
        self.all.values()
    }

    /// When one was changed last.
    pub fn changed(&self) -> Revision {
        self.changed
    }

    /// What is not over of what is about this.
    pub fn running_of(&self, target: Uuid) -> impl Iterator<Item = &Arc<Kept<Operation>>> {
        self.running.get(&target).into_iter().flatten().filter_map(|id| self.all.get(id))
    }

    /// About what there are some that are not over.
    pub fn targets(&self) -> impl Iterator<Item = (model::Kind, Uuid)> {
        let first = |ids: &BTreeSet<OperationId>| self.all.get(ids.first()?);
        self.running
            .iter()
            .filter_map(move |(target, ids)| Some((first(ids)?.object.target.kind, *target)))
    }

    /// How many are not over.
    pub fn running(&self) -> usize {
        self.running.values().map(BTreeSet::len).sum()
    }

    pub fn note(
        &mut self,
        id: OperationId,
        entry: Option<&Entry>,
        at: Revision,
    ) -> Result<(), RegistryError> {
        self.changed = at;
        let before = match entry {
            None => self.all.remove(&id),
            Some(entry) => {
                let object: Operation = read(entry)?;
                let kept = Arc::new(Kept { object, revision: entry.modified });
                self.all.insert(id, kept)
            }
        };
        let target = |kept: &Arc<Kept<Operation>>| kept.object.target.id;
        if let Some(before) = before
            && let Some(ids) = self.running.get_mut(&target(&before))
        {
            ids.remove(&id);
            if ids.is_empty() {
                self.running.remove(&target(&before));
            }
        }
        if let Some(now) = self.all.get(&id)
            && now.object.state == OperationState::Running
        {
            self.running.entry(target(now)).or_default().insert(id);
        }
        Ok(())
    }
}
