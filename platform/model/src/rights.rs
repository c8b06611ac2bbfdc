//! What people and programs may do, and where.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Name;

/// What one may do, each also what those before may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Look at things.
    Viewer,
    /// Make, change and delete VMs.
    Operator,
    /// Of a project: also say who may do what in it. Everywhere: also manage users, projects, pools and hosts, and
    /// name files of the host.
    Admin,
}

impl Role {
    /// Its name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// Roles, everywhere and in projects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rights {
    /// The role in every project, and for what is in none: hosts, images, pools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub everywhere: Option<Role>,
    /// Roles in projects, by their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, Role>)]
    pub projects: BTreeMap<Name, Role>,
}

impl Rights {
    /// A role everywhere.
    pub fn everywhere(role: Role) -> Self {
        Self { everywhere: Some(role), projects: BTreeMap::new() }
    }

    /// A role in a project.
    pub fn within(project: Name, role: Role) -> Self {
        Self { everywhere: None, projects: BTreeMap::from([(project, role)]) }
    }

    /// The role in a project, if any.
    pub fn role_in(&self, project: &Name) -> Option<Role> {
        self.everywhere.max(self.projects.get(project).copied())
    }

    /// The highest role that there is anywhere.
    pub fn highest(&self) -> Option<Role> {
        self.everywhere.max(self.projects.values().max().copied())
    }

    /// These and those.
    #[must_use]
    pub fn and(&self, others: &Self) -> Self {
        let mut all = self.clone();
        all.everywhere = all.everywhere.max(others.everywhere);
        for (project, role) in &others.projects {
            let of = all.projects.entry(project.clone()).or_insert(*role);
            *of = (*of).max(*role);
        }
        all
    }

    /// Both these and those: what neither lacks.
    #[must_use]
    pub fn within_those(&self, others: &Self) -> Self {
        let everywhere = self.everywhere.min(others.everywhere);
        let named = self.projects.keys().chain(others.projects.keys());
        let both = named.filter_map(|project| {
            let role = self.role_in(project).min(others.role_in(project))?;
            Some((project.clone(), role))
        });
        Self { everywhere, projects: both.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn a_role_everywhere_is_one_in_each_project() {
        let mut rights = Rights::everywhere(Role::Viewer);
        rights.projects.insert(name("web"), Role::Admin);
        assert_eq!(rights.role_in(&name("web")), Some(Role::Admin));
        assert_eq!(rights.role_in(&name("db")), Some(Role::Viewer));
        assert_eq!(rights.highest(), Some(Role::Admin));
        assert_eq!(Rights::default().role_in(&name("web")), None);
    }

    #[test]
    fn a_token_has_no_more_than_its_user_and_no_more_than_itself() {
        let user = Rights::within(name("web"), Role::Operator);
        let all = Rights::everywhere(Role::Admin).within_those(&user);
        assert_eq!(all, user);
        let viewer = Rights::everywhere(Role::Viewer).within_those(&user);
        assert_eq!(viewer, Rights::within(name("web"), Role::Viewer));
        let elsewhere = Rights::within(name("db"), Role::Admin).within_those(&user);
        assert_eq!(elsewhere, Rights::default());
        assert_eq!(elsewhere.and(&user), user);
    }
}
