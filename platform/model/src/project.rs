//! What keeps the objects of one purpose apart from others.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Amounts, Name, ProjectId, Quota};

/// A project: names are unique in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Project {
    /// What it is.
    pub id: ProjectId,
    /// What it is called.
    pub name: Name,
    /// How much all that is in it may take together.
    #[serde(default)]
    pub quota: Quota,
    /// It is going away: nothing comes into it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleting: bool,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
}

/// How a project is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProjectStatus {
    /// What all that is in it takes together.
    pub used: Amounts,
}
