//! People.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Name, Rights, UserId};

/// Somebody who can sign in, without what they prove it with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct User {
    /// What they are.
    pub id: UserId,
    /// What they are called.
    pub name: Name,
    /// What they may do.
    #[serde(default)]
    pub rights: Rights,
    /// Who else says what they may, if they come from an identity provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provided: Option<Provided>,
    /// They cannot sign in, and their tokens are good for nothing.
    #[serde(default)]
    pub disabled: bool,
    /// Since when they are known.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
}

impl User {
    /// All that they may do.
    pub fn all_rights(&self) -> Rights {
        match &self.provided {
            Some(provided) => self.rights.and(&provided.rights),
            None => self.rights.clone(),
        }
    }
}

/// What an identity provider said of somebody when they last signed in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Provided {
    /// The provider: its issuer's URL.
    pub issuer: String,
    /// Who they are there.
    pub subject: String,
    /// What follows from their groups.
    pub rights: Rights,
}
