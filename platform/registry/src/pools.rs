//! Pools: where disks are, and how much of them.

use model::{Disk, Name, Pool, default_pool};
use store::{Revision, Txn};

use crate::codec::PutJson;
use crate::{Kept, Registry, RegistryError};

const PREFIX: &str = "/pools/";

fn key(name: &Name) -> String {
    format!("{PREFIX}{name}")
}

impl Registry {
    /// Makes the pool that must be there.
    pub(crate) fn found_pool(&self, now: jiff::Timestamp) -> Result<(), RegistryError> {
        let default = Pool { name: default_pool(), path: None, quota_bytes: None, created: now };
        let key = key(&default.name);
        self.commit(&Txn::new().if_absent(&key).put_json(&key, &default)?)?;
        Ok(())
    }

    /// Makes a pool.
    ///
    /// # Errors
    /// When there is one of that name, it cannot be, or the store fails.
    pub fn create_pool(&self, pool: Pool) -> Result<Pool, RegistryError> {
        pool.check()?;
        let key = key(&pool.name);
        match self.commit(&Txn::new().if_absent(&key).put_json(&key, &pool)?)? {
            Some(_) => Ok(pool),
            None => Err(RegistryError::Exists { kind: "pool", name: pool.name }),
        }
    }

    /// Sets how large all disks of a pool together may be. Those that are there stay.
    ///
    /// # Errors
    /// When there is no such pool, or the store fails.
    pub fn set_quota(&self, name: &Name, quota_bytes: Option<u64>) -> Result<Pool, RegistryError> {
        let Kept { object, revision } = self.pool(name)?;
        let pool = Pool { quota_bytes, ..object };
        let txn = Txn::new().if_modified(key(name), revision).put_json(key(name), &pool)?;
        self.commit(&txn)?.map(|_| pool).ok_or(RegistryError::Changed)
    }

    /// A pool.
    ///
    /// # Errors
    /// When there is none, or the store fails.
    pub fn pool(&self, name: &Name) -> Result<Kept<Pool>, RegistryError> {
        let missing = || RegistryError::Missing { kind: "pool", name: name.to_string() };
        self.read(&key(name))?.ok_or_else(missing)
    }

    /// All pools, by name, and the revision they are of.
    ///
    /// # Errors
    /// When the revision is compacted, or the store fails.
    pub fn pools(
        &self,
        at: Option<Revision>,
    ) -> Result<(Vec<Kept<Pool>>, Revision), RegistryError> {
        self.read_all(PREFIX, at)
    }

    /// Takes a pool without disks away. Its folder stays.
    ///
    /// # Errors
    /// When there is none, there are disks in it, it is the default one, or the store fails.
    pub fn delete_pool(&self, name: &Name) -> Result<(), RegistryError> {
        let pool = self.pool(name)?;
        let (disks, _) = self.all::<Disk>(None)?;
        if *name == default_pool() || disks.iter().any(|disk| disk.spec.pool == *name) {
            return Err(RegistryError::PoolInUse(name.clone()));
        }
        let txn = Txn::new().if_modified(key(name), pool.revision).delete(key(name));
        self.commit(&txn)?.map(|_| ()).ok_or(RegistryError::Changed)
    }

    /// Adds to a transaction that so many more bytes are in a pool. It happens only if there is room, and alone: two
    /// do not take the same room.
    pub(crate) fn reserve(
        &self,
        txn: Txn,
        pool: &Name,
        more_bytes: u64,
    ) -> Result<Txn, RegistryError> {
        let Kept { object: pool, revision } = self.pool(pool)?;
        let key = key(&pool.name);
        let txn = txn.if_modified(&key, revision);
        let Some(quota) = pool.quota_bytes else { return Ok(txn) };
        let (disks, _) = self.all::<Disk>(None)?;
        let of_pool = disks.iter().filter(|disk| disk.spec.pool == pool.name);
        let taken: u64 = of_pool.map(|disk| disk.spec.size_bytes).sum();
        if taken.saturating_add(more_bytes) > quota {
            let left_bytes = quota.saturating_sub(taken);
            return Err(RegistryError::Quota { pool: pool.name, more_bytes, left_bytes });
        }
        txn.put_json(&key, &pool)
    }
}
