//! What keeps the objects of one purpose apart from others.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Name, ProjectId};

/// A project: names are unique in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Project {
    /// What it is.
    pub id: ProjectId,
    /// What it is called.
    pub name: Name,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
}
