//! By what programs prove who they are.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Name, Role, TokenId};

/// A token, without its secret: that is told once, and only its digest is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// What it is.
    pub id: TokenId,
    /// What it is called.
    pub name: Name,
    /// What its bearer may do, at most.
    pub role: Role,
    /// The user whose it is: it may no more than they may, and goes with them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub user: Option<Name>,
    /// The project in which it is good, if only in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub project: Option<Name>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// When it is no longer good; without it, never.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires: Option<Timestamp>,
}
