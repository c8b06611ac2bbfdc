//! Objects with a spec and a status, of whatever kind: how they are kept, found, changed and forgotten.

use std::sync::Arc;

use jiff::Timestamp;
use model::{Amounts, Meta, Name, Object, Operation, Spec};
use serde::{Deserialize, Serialize};
use store::{Entry, Range, Revision, Txn};

use crate::codec::{PutJson, read};
use crate::mirror::{Row, Table};
use crate::{Asked, Batch, Kept, Mirrored, Registry, RegistryError, operations};

/// An object that is asked for.
#[derive(Debug, Clone)]
pub struct New<O: Object> {
    /// Its name.
    pub name: Name,
    /// Its project.
    pub project: Name,
    /// What is wanted of it.
    pub spec: O::Spec,
}

impl<O: Object> New<O> {
    /// The object of it.
    pub(crate) fn object(self, asked: &Asked) -> Result<O, RegistryError> {
        self.spec.check()?;
        let Self { name, project, spec } = self;
        let id = O::Id::default();
        let meta = Meta { id, name, project, created: asked.at, deleting: false };
        Ok(O::of(meta, spec, O::Status::default()))
    }
}

/// Which part of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Facet {
    Meta,
    Spec,
    Status,
}

fn prefix<O: Object>() -> String {
    format!("/{}/", O::KIND.plural())
}

pub(crate) fn key<O: Object>(id: O::Id, facet: Facet) -> String {
    let facet = match facet {
        Facet::Meta => "meta",
        Facet::Spec => "spec",
        Facet::Status => "status",
    };
    format!("{}{id}/{facet}", prefix::<O>())
}

/// What keys of the names of a project's objects begin with.
pub(crate) fn names_of(project: &Name) -> String {
    format!("/names/{project}/")
}

pub(crate) fn name_key<O: Object>(project: &Name, name: &Name) -> String {
    format!("{}{}/{name}", names_of(project), O::KIND.plural())
}

/// An object and the revisions of its parts.
pub(crate) struct Parts<O> {
    pub object: O,
    pub meta: Revision,
    pub spec: Revision,
}

impl<O: Object> Parts<O> {
    fn of(row: &Row<O>) -> Self {
        Self { object: O::clone(&row.object), meta: row.meta, spec: row.spec }
    }

    /// A transaction that happens only if the object is still so, whatever its status.
    pub fn unchanged(&self, txn: Txn) -> Txn {
        let id = self.object.meta().id;
        txn.if_modified(key::<O>(id, Facet::Spec), self.spec)
            .if_modified(key::<O>(id, Facet::Meta), self.meta)
    }

    fn kept(self) -> Kept<O> {
        Kept { object: self.object, revision: self.spec }
    }
}

/// Objects of entries in the order of their keys. `meta` comes before `spec` before `status`.
fn assemble<O: Object>(entries: &[Entry]) -> Result<Vec<Arc<O>>, RegistryError> {
    let whole = |part: &[Entry]| {
        let [meta, spec, status] = part else { return Ok(None) };
        Ok(Some(Arc::new(O::of(read(meta)?, read(spec)?, read(status)?))))
    };
    let id = |entry: &Entry| entry.key.rfind('/').map_or(0, |end| end);
    let groups = entries.chunk_by(|a, b| a.key[..id(a)] == b.key[..id(b)]);
    groups.filter_map(|part| whole(part).transpose()).collect()
}

/// What an object's name stands for, as it is kept.
#[derive(Serialize, Deserialize)]
struct NameRecord<Id> {
    id: Id,
}

/// Adds to a transaction that this object comes to be, if its name is free.
pub(crate) fn write_new<O: Object>(txn: Txn, object: &O) -> Result<Txn, RegistryError> {
    let Meta { id, name, project, .. } = object.meta();
    let name_key = name_key::<O>(project, name);
    txn.if_absent(&name_key)
        .put_json(&name_key, &NameRecord { id: *id })?
        .put_json(key::<O>(*id, Facet::Meta), object.meta())?
        .put_json(key::<O>(*id, Facet::Spec), object.spec())?
        .put_json(key::<O>(*id, Facet::Status), object.status())
}

/// Adds to a transaction that this object is there no more.
pub(crate) fn delete<O: Object>(txn: Txn, object: &O) -> Txn {
    let Meta { id, name, project, .. } = object.meta();
    txn.delete(name_key::<O>(project, name))
        .delete(key::<O>(*id, Facet::Meta))
        .delete(key::<O>(*id, Facet::Spec))
        .delete(key::<O>(*id, Facet::Status))
}

/// Objects, the oldest first.
pub type List<O> = Arc<[Arc<O>]>;

/// How often a change is tried that only loses to others.
pub(crate) const TRIES: u32 = 16;

impl Registry {
    /// Adds to a transaction that this object comes to be; it happens only if its name is free, its project
    /// there, and room in that's quota.
    pub(crate) fn put_new<O: Object>(&self, txn: Txn, object: &O) -> Result<Txn, RegistryError> {
        let Meta { name, project, .. } = object.meta();
        if self.store.get(&name_key::<O>(project, name))?.0.is_some() {
            return Err(RegistryError::Exists { kind: O::KIND.as_str(), name: name.clone() });
        }
        let txn = self.charge(txn, project, Amounts::default(), object.spec().takes())?;
        write_new(txn, object)
    }

    /// Makes an object that is there at once.
    pub(crate) fn create<O: Object>(&self, object: O) -> Result<Kept<O>, RegistryError> {
        let _turn = self.turn(&object.meta().project)?;
        for _ in 0..TRIES {
            if let Some(revision) = self.commit(&self.put_new(Txn::new(), &object)?)? {
                return Ok(Kept { object, revision });
            }
        }
        Err(RegistryError::Changed)
    }

    /// An object, by its name in the project or by its ID.
    ///
    /// # Errors
    /// When there is none, or the store fails.
    pub fn get<O: Mirrored>(
        &self,
        project: &Name,
        name_or_id: &str,
    ) -> Result<Kept<O>, RegistryError> {
        self.parts(project, name_or_id).map(Parts::kept)
    }

    pub(crate) fn parts<O: Mirrored>(
        &self,
        project: &Name,
        name_or_id: &str,
    ) -> Result<Parts<O>, RegistryError> {
        let missing =
            || RegistryError::Missing { kind: O::KIND.as_str(), name: name_or_id.to_owned() };
        let found = self.mirror.read(|tables, _| {
            let table = O::table(tables);
            let id = match name_or_id.parse::<O::Id>() {
                Ok(id) => Some(id),
                Err(_) => table.id(project, &name_or_id.parse().ok()?),
            };
            table.get(id?).map(Parts::of)
        })?;
        found.filter(|parts| parts.object.meta().project == *project).ok_or_else(missing)
    }

    pub(crate) fn parts_of<O: Mirrored>(
        &self,
        id: O::Id,
    ) -> Result<Option<Parts<O>>, RegistryError> {
        self.mirror.read(|tables, _| O::table(tables).get(id).map(Parts::of))
    }

    /// An object of whatever project, if it is there.
    ///
    /// # Errors
    /// When the store fails.
    pub fn by_id<O: Mirrored>(&self, id: O::Id) -> Result<Option<Arc<O>>, RegistryError> {
        self.mirror.read(|tables, _| O::table(tables).get(id).map(|row| row.object.clone()))
    }

    /// An object by its name, if it is there.
    ///
    /// # Errors
    /// When the store fails.
    pub fn by_name<O: Mirrored>(
        &self,
        project: &Name,
        name: &Name,
    ) -> Result<Option<Arc<O>>, RegistryError> {
        self.mirror.read(|tables, _| {
            let table = O::table(tables);
            table.get(table.id(project, name)?).map(|row| row.object.clone())
        })
    }

    /// All objects of a kind, of all projects, the oldest first, and the revision they are of.
    ///
    /// # Errors
    /// When the revision is compacted, or the store fails.
    pub fn all<O: Mirrored>(
        &self,
        at: Option<Revision>,
    ) -> Result<(List<O>, Revision), RegistryError> {
        let (found, now) = self.mirror.read(|tables, now| {
            let table: &Table<O> = O::table(tables);
            let found = match at {
                Some(at) => table.list_at(at, now),
                None => Some(table.list(now)),
            };
            (found, now)
        })?;
        if let Some(found) = found {
            return Ok((found, at.unwrap_or(now)));
        }
        let page = self.store.range(&Range { at, ..Range::prefix(prefix::<O>()) })?;
        Ok((assemble(&page.entries)?.into(), page.revision))
    }

    /// Another spec for an object, of the one it has.
    ///
    /// # Errors
    /// When there is no such object, it is going away or not of the revision that is given, the spec cannot be, or
    /// the store fails.
    pub fn update<O: Mirrored>(
        &self,
        project: &Name,
        name_or_id: &str,
        spec: impl Fn(&O::Spec) -> Result<O::Spec, RegistryError>,
        revision: Option<Revision>,
    ) -> Result<Kept<O>, RegistryError> {
        for _ in 0..TRIES {
            let parts = self.parts::<O>(project, name_or_id)?;
            let (meta, old) = (parts.object.meta(), parts.object.spec());
            if revision.is_some_and(|revision| revision != parts.spec) {
                return Err(RegistryError::Changed);
            }
            if meta.deleting {
                return Err(RegistryError::deleting::<O>(meta));
            }
            let new = spec(old)?;
            new.check()?;
            if let Some(field) = old.fixed_field(&new) {
                return Err(RegistryError::Fixed(field));
            }
            let txn = parts.unchanged(Txn::new()).put_json(key::<O>(meta.id, Facet::Spec), &new)?;
            let txn = match (old.takes(), new.takes()) {
                (less, more) if less == more => txn,
                (less, more) => self.charge(txn, &meta.project, less, more)?,
            };
            if let Some(revision) = self.commit(&txn)? {
                let object = O::of(meta.clone(), new, parts.object.status().clone());
                return Ok(Kept { object, revision });
            }
        }
        Err(RegistryError::Changed)
    }

    /// Writes down how an object is. Only its reconciler does.
    ///
    /// # Errors
    /// When the store fails.
    pub fn set_status<O: Mirrored>(
        &self,
        id: O::Id,
        status: &O::Status,
    ) -> Result<(), RegistryError> {
        let mut batch = Batch::default();
        self.put_status::<O>(&mut batch, id, status)?;
        self.write(batch).map(drop)
    }

    /// The same, with others.
    ///
    /// # Errors
    /// When the store fails.
    pub fn put_status<O: Mirrored>(
        &self,
        batch: &mut Batch,
        id: O::Id,
        status: &O::Status,
    ) -> Result<(), RegistryError> {
        // One that is gone has no status.
        let Some(parts) = self.parts_of::<O>(id)? else { return Ok(()) };
        let txn = Txn::new().if_modified(key::<O>(id, Facet::Meta), parts.meta);
        batch.0.push(txn.put_json(key::<O>(id, Facet::Status), status)?);
        Ok(())
    }

    /// Forgets an object of which the host has nothing more, and finishes its operations.
    ///
    /// # Errors
    /// When the object cannot be written.
    pub fn forget<O: Object>(
        &self,
        batch: &mut Batch,
        object: &O,
        done: &[Arc<Kept<Operation>>],
        now: Timestamp,
    ) -> Result<(), RegistryError> {
        self.forget_with(Txn::new(), batch, object, done, now)
    }

    /// The same, and what else the transaction does.
    pub(crate) fn forget_with<O: Object>(
        &self,
        txn: Txn,
        batch: &mut Batch,
        object: &O,
        done: &[Arc<Kept<Operation>>],
        now: Timestamp,
    ) -> Result<(), RegistryError> {
        let mut txn = delete(txn, object);
        let id: uuid::Uuid = object.meta().id.into();
        // A transaction has room for so many; more are cancelled when their object is missed.
        for kept in done.iter().filter(|kept| kept.object.target.id == id).take(64) {
            let mut operation = kept.object.clone();
            operation.finish(None, now);
            let key = operations::key(operation.id);
            txn = txn.if_modified(&key, kept.revision).put_json(&key, &operation)?;
        }
        batch.0.push(txn);
        Ok(())
    }
}
