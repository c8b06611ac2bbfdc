//! Objects as values: JSON, that a person with a debugger can read.

use serde::Serialize;
use serde::de::DeserializeOwned;
use store::{Commit, Entry, Range, Revision, Txn};

use crate::{Kept, Registry, RegistryError};

pub(crate) fn read<T: DeserializeOwned>(entry: &Entry) -> Result<T, RegistryError> {
    let failed = |source| RegistryError::Damaged { key: entry.key.clone(), source };
    serde_json::from_slice(&entry.value).map_err(failed)
}

pub(crate) fn write<T: Serialize>(key: &str, object: &T) -> Result<Vec<u8>, RegistryError> {
    let failed = |source| RegistryError::Damaged { key: key.to_owned(), source };
    serde_json::to_vec(object).map_err(failed)
}

pub(crate) trait PutJson: Sized {
    fn put_json<T: Serialize>(
        self,
        key: impl Into<String>,
        object: &T,
    ) -> Result<Self, RegistryError>;
}

impl PutJson for Txn {
    fn put_json<T: Serialize>(
        self,
        key: impl Into<String>,
        object: &T,
    ) -> Result<Self, RegistryError> {
        let key = key.into();
        let value = write(&key, object)?;
        Ok(self.put(key, value))
    }
}

impl Registry {
    pub(crate) fn read<T: DeserializeOwned>(
        &self,
        key: &str,
    ) -> Result<Option<Kept<T>>, RegistryError> {
        let Some(entry) = self.store.get(key)?.0 else { return Ok(None) };
        Ok(Some(Kept { object: read(&entry)?, revision: entry.modified }))
    }

    pub(crate) fn read_all<T: DeserializeOwned>(
        &self,
        prefix: &str,
        at: Option<Revision>,
    ) -> Result<(Vec<Kept<T>>, Revision), RegistryError> {
        let page = self.store.range(&Range { at, ..Range::prefix(prefix) })?;
        let kept = |entry: &Entry| Ok(Kept { object: read(entry)?, revision: entry.modified });
        let all = page.entries.iter().map(kept).collect::<Result<_, RegistryError>>()?;
        Ok((all, page.revision))
    }

    /// Commits; `None` when something was not as compared.
    pub(crate) fn commit(&self, txn: &Txn) -> Result<Option<Revision>, RegistryError> {
        self.note(self.store.commit(txn)?)
    }

    /// Writes each for itself; true for those that were as compared.
    ///
    /// # Errors
    /// When the store fails; some may have been written.
    pub fn write(&self, Batch(txns): Batch) -> Result<Vec<bool>, RegistryError> {
        let done = self.store.commit_each(&txns)?;
        done.into_iter().map(|done| Ok(self.note(done)?.is_some())).collect()
    }

    /// Deletes keys, however many.
    pub(crate) fn delete_all(
        &self,
        keys: impl Iterator<Item = String>,
    ) -> Result<(), RegistryError> {
        let keys: Vec<String> = keys.collect();
        let deletes = keys.chunks(store::OPS_MAX);
        let txns = deletes.map(|keys| keys.iter().fold(Txn::new(), |txn, key| txn.delete(key)));
        self.write(Batch(txns.collect())).map(drop)
    }

    /// What was written is read from now on, and so is what others have.
    fn note(&self, done: Commit) -> Result<Option<Revision>, RegistryError> {
        match done {
            Commit::Done(revision) => {
                self.mirror.wrote(revision);
                Ok(Some(revision))
            }
            Commit::Conflict => {
                self.mirror.catch_up()?;
                Ok(None)
            }
        }
    }
}

/// Changes that have nothing to do with each other, and are written with as little waiting as the store can.
#[derive(Debug, Default)]
pub struct Batch(pub(crate) Vec<Txn>);

impl Batch {
    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
