//! Objects of a kind.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{Meta, Name, Object};
use store::{Entry, Revision};

use crate::RegistryError;
use crate::codec::read;

/// Lists that are remembered, so that all pages of one are of one revision.
const LISTS: usize = 8;

/// An object and the revisions of its parts.
pub(crate) struct Row<O> {
    pub object: Arc<O>,
    pub meta: Revision,
    pub spec: Revision,
}

/// One of which not all parts are known yet: the rest is in the same transaction.
struct Parts<O: Object> {
    meta: Option<(Meta<O::Id>, Revision)>,
    spec: Option<(O::Spec, Revision)>,
    status: Option<O::Status>,
}

/// A list, and from when on and until when it was so.
struct List<O> {
    from: Revision,
    to: Revision,
    rows: Arc<[Arc<O>]>,
}

/// All objects of a kind.
pub struct Table<O: Object> {
    rows: BTreeMap<O::Id, Row<O>>,
    parts: BTreeMap<O::Id, Parts<O>>,
    names: HashMap<Name, HashMap<Name, O::Id>>,
    changed: Revision,
    lists: Mutex<VecDeque<List<O>>>,
}

impl<O: Object> Default for Table<O> {
    fn default() -> Self {
        Self {
            rows: BTreeMap::new(),
            parts: BTreeMap::new(),
            names: HashMap::new(),
            changed: Revision::NONE,
            lists: Mutex::default(),
        }
    }
}

impl<O: Object> Table<O> {
    pub(crate) fn get(&self, id: O::Id) -> Option<&Row<O>> {
        self.rows.get(&id)
    }

    pub(crate) fn id(&self, project: &Name, name: &Name) -> Option<O::Id> {
        self.names.get(project)?.get(name).copied()
    }

    /// All there are, the oldest first, as they are at `now`.
    pub(crate) fn list(&self, now: Revision) -> Arc<[Arc<O>]> {
        let mut lists = self.lists();
        if let Some(last) = lists.back_mut().filter(|last| last.from == self.changed) {
            last.to = now;
            return last.rows.clone();
        }
        let rows: Arc<[Arc<O>]> = self.rows.values().map(|row| row.object.clone()).collect();
        if lists.len() == LISTS {
            lists.pop_front();
        }
        lists.push_back(List { from: self.changed, to: now, rows: rows.clone() });
        rows
    }

    /// All there were, if that is remembered.
    pub(crate) fn list_at(&self, at: Revision, now: Revision) -> Option<Arc<[Arc<O>]>> {
        if (self.changed..=now).contains(&at) {
            return Some(self.list(now));
        }
        let lists = self.lists();
        let found = lists.iter().find(|list| (list.from..=list.to).contains(&at));
        found.map(|list| list.rows.clone())
    }

    fn lists(&self) -> MutexGuard<'_, VecDeque<List<O>>> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what a key has now, if it is there.
    pub(crate) fn note(
        &mut self,
        id: O::Id,
        facet: &str,
        entry: Option<&Entry>,
        at: Revision,
    ) -> Result<(), RegistryError> {
        self.changed = at;
        let Some(entry) = entry else {
            self.parts.remove(&id);
            if let Some(row) = self.rows.remove(&id) {
                let meta = row.object.meta();
                if self.id(&meta.project, &meta.name) == Some(id)
                    && let Some(names) = self.names.get_mut(&meta.project)
                {
                    names.remove(&meta.name);
                }
            }
            return Ok(());
        };
        let mut parts = self.parts.remove(&id).unwrap_or_else(|| match self.rows.get(&id) {
            Some(Row { object, meta, spec }) => Parts {
                meta: Some((object.meta().clone(), *meta)),
                spec: Some((object.spec().clone(), *spec)),
                status: Some(object.status().clone()),
            },
            None => Parts { meta: None, spec: None, status: None },
        });
        match facet {
            "meta" => parts.meta = Some((read(entry)?, entry.modified)),
            "spec" => parts.spec = Some((read(entry)?, entry.modified)),
            "status" => parts.status = Some(read(entry)?),
            _ => {}
        }
        match parts {
            Parts { meta: Some(meta), spec: Some(spec), status: Some(status) } => {
                let object = Arc::new(O::of(meta.0, spec.0, status));
                let Meta { project, name, .. } = object.meta();
                self.names.entry(project.clone()).or_default().insert(name.clone(), id);
                self.rows.insert(id, Row { object, meta: meta.1, spec: spec.1 });
            }
            parts => {
                self.parts.insert(id, parts);
            }
        }
        Ok(())
    }
}
