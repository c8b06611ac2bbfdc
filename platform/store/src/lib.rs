//! The platform's state: keys with values, revisions, transactions, watches and leases.
//!
//! [`Store`] is cut to what etcd has, so that a host of its own and a cluster run the same code.
//! [`Embedded`] is the implementation for one host, a file. Whatever implements the trait passes
//! the suite in `tests/store_contract`.
//!
//! *Invariants*, which the suite holds every implementation to:
//! - Every transaction that changes something has a [`Revision`] of its own, one above the last. One
//!   that changes nothing has none.
//! - A transaction happens whole or not at all, whatever is killed, and was brought to the medium
//!   before it is told to be done.
//! - A watch tells every change from its first revision on, once, in order, a transaction at a time; or
//!   it ends and says so.
//! - What was read at a revision is read the same at that revision until that is compacted.
//!
//! What this crate may not know: what is in keys and values.
//!
//! Specification: etcd's documentation, "etcd API" and "KV API guarantees".

mod embedded;
mod error;
mod types;
mod watch;

use std::time::Duration;

pub use embedded::Embedded;
pub use error::StoreError;
pub use types::{Commit, Compare, Entry, LeaseId, Op, Page, Range, Revision, Txn};
pub use watch::{Batch, Change, Ended, Feed, Watch};

/// Longest key in bytes: keys are indexed twice.
pub const KEY_LEN_MAX: usize = 512;
/// Longest value in bytes: etcd takes requests of 1.5 MiB.
pub const VALUE_LEN_MAX: usize = 1 << 20;
/// Most writes of a transaction, as in etcd.
pub const OPS_MAX: usize = 128;

/// The platform's state.
pub trait Store: Send + Sync {
    /// What a key has now, and the store's revision.
    ///
    /// # Errors
    /// When the store fails.
    fn get(&self, key: &str) -> Result<(Option<Entry>, Revision), StoreError>;

    /// The entries of a range, by key.
    ///
    /// # Errors
    /// When its revision is compacted or has not been yet, or the store fails.
    fn range(&self, range: &Range) -> Result<Page, StoreError>;

    /// Writes, if everything is as it is compared to be.
    ///
    /// # Errors
    /// When the transaction breaks a limit, writes a key twice or names a lease that is not, or the store
    /// fails; nothing has changed then.
    fn commit(&self, txn: &Txn) -> Result<Commit, StoreError>;

    /// Commits each of these for itself, in whatever order, sooner than one after the other.
    ///
    /// # Errors
    /// As [`Store::commit`], for the first that is refused or fails; others may have been done.
    fn commit_each(&self, txns: &[Txn]) -> Result<Vec<Commit>, StoreError> {
        txns.iter().map(|txn| self.commit(txn)).collect()
    }

    /// Changes of all keys that begin with `prefix`, from a revision on, which may be past or to come.
    ///
    /// # Errors
    /// When that revision is compacted, or the store fails.
    fn watch(&self, prefix: &str, from: Revision) -> Result<Watch, StoreError>;

    /// Forgets what was before a revision: values that were written over by then, and deletions.
    ///
    /// # Errors
    /// When that is compacted already or has not been yet, or the store fails.
    fn compact(&self, revision: Revision) -> Result<(), StoreError>;

    /// A lease: what is written with it is deleted when it ends, which it does when it is not kept alive
    /// for so long. At least a second; fractions are rounded up.
    ///
    /// # Errors
    /// When the store fails.
    fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError>;

    /// The lease's time begins anew.
    ///
    /// # Errors
    /// When it has ended, or the store fails.
    fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError>;

    /// Ends a lease.
    ///
    /// # Errors
    /// When it has ended already, or the store fails.
    fn revoke(&self, lease: LeaseId) -> Result<(), StoreError>;
}
