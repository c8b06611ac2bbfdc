//! Why the store refuses or fails.

use std::path::PathBuf;

use crate::{KEY_LEN_MAX, LeaseId, OPS_MAX, Revision, VALUE_LEN_MAX};

/// Why the store refuses or fails.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// What was there then is forgotten.
    #[error("revision {asked} is compacted: what is known begins after {compacted}; read anew")]
    Compacted {
        /// What was asked for.
        asked: Revision,
        /// What is forgotten.
        compacted: Revision,
    },
    /// It has not been yet.
    #[error("revision {asked} is to come: the last one is {last}")]
    Future {
        /// What was asked for.
        asked: Revision,
        /// The store's.
        last: Revision,
    },
    /// There is no such lease.
    #[error("lease {0} has ended")]
    NoLease(LeaseId),
    /// A transaction writes one key twice.
    #[error("the transaction writes '{0}' twice")]
    Twice(String),
    /// A transaction breaks a limit.
    #[error(
        "the transaction is too large: {OPS_MAX} writes, keys of {KEY_LEN_MAX} bytes and values \
         of {VALUE_LEN_MAX} bytes are the limits"
    )]
    TooLarge,
    /// It has ended while something was asked of it.
    #[error("the store has closed")]
    Closed,
    /// Another process has it.
    #[error("{} is in use: another trined runs with this folder", .0.display())]
    InUse(PathBuf),
    /// Not ours, or of a later version.
    #[error("{} has format {found}, and this program knows {known}: use the one that wrote it", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The file is not what was written.
    #[error("{} is damaged ({how}): put a copy of it back", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite found.
        how: String,
    },
    /// The host refuses.
    #[error("cannot {doing} {}", path.display())]
    Host {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What it says.
        source: std::io::Error,
    },
    /// The database fails.
    #[error("the store's database fails")]
    Database(#[from] rusqlite::Error),
}
