//! What is asked of a store, and what it answers.

use std::fmt;

/// A point in the store's history. Transactions count it up by one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// Before everything: also the revision of a key that is not there.
    pub const NONE: Self = Self(0);

    /// The one after this.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a lease is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// A key that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// What it has.
    pub value: Vec<u8>,
    /// When it came to be; a key that is deleted and written again comes to be anew.
    pub created: Revision,
    /// When it was last written.
    pub modified: Revision,
    /// How often it was written since it came to be.
    pub version: u64,
    /// The lease with which it goes.
    pub lease: Option<LeaseId>,
}

/// Which entries to read.
#[derive(Debug, Clone, Default)]
pub struct Range {
    /// What their keys begin with.
    pub prefix: String,
    /// Only those after this key.
    pub after: Option<String>,
    /// At most so many.
    pub limit: Option<usize>,
    /// As they were then; without it, as they are.
    pub at: Option<Revision>,
}

impl Range {
    /// All keys that begin so, as they are.
    pub fn prefix(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ..Self::default() }
    }
}

/// Entries, in the order of their keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// They.
    pub entries: Vec<Entry>,
    /// The range has more than the limit let through.
    pub has_more: bool,
    /// The revision that was read.
    pub revision: Revision,
}

/// What must be for a transaction to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compare {
    /// The key was last written at this revision; [`Revision::NONE`]: it is not there.
    Modified(String, Revision),
    /// The key is there and has this value.
    Value(String, Vec<u8>),
}

/// A write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// The key has this value from now on, and goes with this lease.
    Put(String, Vec<u8>, Option<LeaseId>),
    /// The key is there no more. One that is not there is left so.
    Delete(String),
}

impl Op {
    /// What is written.
    pub fn key(&self) -> &str {
        match self {
            Self::Put(key, ..) | Self::Delete(key) => key,
        }
    }
}

/// Writes that happen together, if all comparisons hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Txn {
    /// What must be.
    pub when: Vec<Compare>,
    /// What is written then.
    pub then: Vec<Op>,
}

impl Txn {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// And if the key was last written at this revision.
    #[must_use]
    pub fn if_modified(mut self, key: impl Into<String>, revision: Revision) -> Self {
        self.when.push(Compare::Modified(key.into(), revision));
        self
    }

    /// And if the key is not there.
    #[must_use]
    pub fn if_absent(self, key: impl Into<String>) -> Self {
        self.if_modified(key, Revision::NONE)
    }

    /// And write the key.
    #[must_use]
    pub fn put(mut self, key: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.then.push(Op::Put(key.into(), value.into(), None));
        self
    }

    /// And delete the key.
    #[must_use]
    pub fn delete(mut self, key: impl Into<String>) -> Self {
        self.then.push(Op::Delete(key.into()));
        self
    }
}

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    /// It is done: the revision of what it changed, or of the store if it changed nothing.
    Done(Revision),
    /// Something was not as compared; nothing has changed.
    Conflict,
}

impl Commit {
    /// The revision, if it is done.
    pub fn done(self) -> Option<Revision> {
        match self {
            Self::Done(revision) => Some(revision),
            Self::Conflict => None,
        }
    }
}
