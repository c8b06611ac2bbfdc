//! What requests with an idempotency key were answered, so that a request that comes again does nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use store::{Op, Txn};

use crate::codec::write;
use crate::{Registry, RegistryError};

/// How long.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Digest of the request, so that another one with the same key is told.
    pub request: String,
    /// The status.
    pub status: u16,
    /// The body.
    pub body: String,
}

fn key(who: &str, key: &str) -> String {
    format!("/answers/{who}/{key}")
}

impl Registry {
    /// What was answered to this key of this requestor.
    ///
    /// # Errors
    /// When the store fails.
    pub fn answer(&self, who: &str, of: &str) -> Result<Option<Answer>, RegistryError> {
        Ok(self.read(&key(who, of))?.map(|kept| kept.object))
    }

    /// Remembers an answer, for a day.
    ///
    /// # Errors
    /// When the store fails.
    pub fn remember(&self, who: &str, of: &str, answer: &Answer) -> Result<(), RegistryError> {
        let key = key(who, of);
        let lease = self.store.grant(KEPT)?;
        let value = write(&key, answer)?;
        let then = vec![Op::Put(key, value, Some(lease))];
        self.commit(&Txn { then, ..Txn::new() })?;
        Ok(())
    }
}
