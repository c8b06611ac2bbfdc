//! By what programs prove who they are.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Name, TokenId};

/// What one may do, each also what those before may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Look at things.
    Viewer,
    /// Make, change and delete VMs.
    Operator,
    /// Also manage tokens and projects, and name files of the host.
    Admin,
}

/// A token, without its secret: that is told once, and only its digest is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// What it is.
    pub id: TokenId,
    /// What it is called.
    pub name: Name,
    /// What its bearer may do.
    pub role: Role,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// When it is no longer good; without it, never.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires: Option<Timestamp>,
}
