//! The model's objects in the store: keys, names, and the changes that people may ask for.
//!
//! ```text
//! /projects/NAME            a project
//! /vms/ID/meta|spec|status  a VM, by who writes what; other kinds of objects likewise
//! /names/PROJECT/vms/NAME   its ID
//! /pools/NAME              a pool of disks
//! /operations/ID            an operation
//! /network-subnets          written by who makes a network; /network-uses/ID: by who takes an address of it
//! /addresses/NETWORK/N      whose the address of this number is
//! /project-uses/PROJECT     written by who takes something of its quota
//! /hosts/NAME               what was said about a host: that it takes no VMs
//! /identity/users/ID        a user and their password's hash; user-names/NAME: their ID
//! /identity/tokens/NAME     a token and its secret's digest; secrets/DIGEST: its name
//! /identity/sessions/DIGEST somebody who has signed in, for as long as that is good
//! /audit/ID                 what was asked for, by whom, and what became of it
//! /answers/WHO/KEY          what a request with an idempotency key was answered, for a day
//! ```
//!
//! *Invariants*: each change is one transaction, with the operation that reports on it in it; it compares all
//! it was decided by, and a caller that loses a race is told, or tried anew here when only a status
//! came between. What is asked for is written down, and nothing else happens here: reconcilers act.
//!
//! Objects are read from memory, which follows the store by its watch; all else from the store.
//!
//! What this crate may not know: hosts, HTTP, the time (callers tell it).

mod answers;
mod audit;
mod codec;
mod disks;
mod error;
mod mirror;
mod networks;
mod objects;
mod operations;
mod pools;
mod projects;
mod scale_sets;
mod security_groups;
mod snapshots;
mod ssh_keys;
mod tokens;
mod users;
mod uses;
mod verbs;
mod vms;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mirror::Mirror;
use store::{Revision, Store};

pub use answers::Answer;
pub use audit::AuditRecord;
pub use codec::Batch;
pub use disks::RootDisk;
pub use error::RegistryError;
pub use mirror::{Changed, Changes, Mirrored};
pub use objects::{List, New};
pub use tokens::{Bearer, Digest, NewToken};
pub use users::{Credentials, UserChange};
pub use verbs::Change;

/// What keys begin with that say who is who: what changes there may end what somebody may.
pub const IDENTITY: &str = "/identity/";

/// Who asks for a change, and when.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Who.
    pub by: model::Requestor,
    /// When.
    pub at: jiff::Timestamp,
}

/// An object and the revision it is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept<T> {
    /// It.
    pub object: T,
    /// What it is to be compared to: of an object with a spec, its spec's.
    pub revision: Revision,
}

/// The objects in a store.
#[derive(Clone)]
pub struct Registry {
    store: Arc<dyn Store>,
    mirror: Arc<Mirror>,
    /// Whose turn it is to take of a project's quota. It decides nothing, the transaction does: it keeps those of
    /// this process from losing to each other.
    turn: Arc<Mutex<()>>,
}

impl Registry {
    /// Those in this store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { mirror: Arc::new(Mirror::new(store.clone())), store, turn: Arc::default() }
    }

    /// Tells which objects change, from now on.
    pub fn changes(&self) -> Changes {
        self.mirror.changes()
    }

    /// Waits for one's turn to take of a project's quota, if it has one.
    fn turn(&self, project: &model::Name) -> Result<Option<MutexGuard<'_, ()>>, RegistryError> {
        let has_quota = self.project(project)?.object.quota != model::Quota::default();
        Ok(has_quota.then(|| self.turn.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }
}

#[cfg(test)]
mod tests;
