//! Who asked for what, from where, and what became of it.

use jiff::{SignedDuration, Timestamp};
use model::OperationId;
use serde::{Deserialize, Serialize};
use store::{Revision, Txn};

use crate::codec::PutJson;
use crate::{Kept, Registry, RegistryError};

const PREFIX: &str = "/audit/";
/// Records that are kept at most.
const KEPT_MAX: usize = 10_000;
/// And for how long.
const KEPT: SignedDuration = SignedDuration::from_hours(90 * 24);

/// A request that was to change something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// When.
    pub at: Timestamp,
    /// `uid:N` or `token:NAME`; nothing when it was not known.
    pub who: Option<String>,
    /// The socket, or the client's address.
    pub from: String,
    /// Method and path.
    pub what: String,
    /// The status it was answered with.
    pub status: u16,
    /// The request's ID.
    pub request: String,
}

impl Registry {
    /// Writes a record.
    ///
    /// # Errors
    /// When the store fails.
    pub fn audit(&self, record: &AuditRecord) -> Result<(), RegistryError> {
        // An ID of any kind is in the order of time.
        let key = format!("{PREFIX}{}", OperationId::new());
        self.commit(&Txn::new().put_json(key, record)?)?;
        Ok(())
    }

    /// All records, the oldest first, and the revision they are of.
    ///
    /// # Errors
    /// When the revision is compacted, or the store fails.
    pub fn audited(
        &self,
        at: Option<Revision>,
    ) -> Result<(Vec<Kept<AuditRecord>>, Revision), RegistryError> {
        self.read_all(PREFIX, at)
    }

    /// Forgets old records.
    ///
    /// # Errors
    /// When the store fails.
    pub fn forget_audit(&self, now: Timestamp) -> Result<(), RegistryError> {
        let page = self.store.range(&store::Range::prefix(PREFIX))?;
        let surplus = page.entries.len().saturating_sub(KEPT_MAX);
        let mut old = Vec::new();
        for (n, entry) in page.entries.into_iter().enumerate() {
            let record: AuditRecord = crate::codec::read(&entry)?;
            if n >= surplus && now.duration_since(record.at) <= KEPT {
                break;
            }
            old.push(entry.key);
        }
        self.delete_all(old.into_iter())
    }
}
