//! Projects.

use jiff::Timestamp;
use model::{Name, Project, ProjectId, SecurityGroup};
use store::{Range, Revision, Txn};

use crate::codec::PutJson;
use crate::{Kept, Registry, RegistryError, objects, security_groups};

const PREFIX: &str = "/projects/";

pub(crate) fn key(name: &Name) -> String {
    format!("{PREFIX}{name}")
}

impl Registry {
    /// Makes what must be there.
    ///
    /// # Errors
    /// When the store fails.
    pub fn found(&self, now: Timestamp) -> Result<(), RegistryError> {
        let (projects, _) = self.projects(None)?;
        if projects.is_empty() {
            self.create_project(Name::default_name(), now)?;
        }
        for Kept { object: project, .. } in projects {
            // One of a version that had none.
            match self.put_new(Txn::new(), &security_groups::first(&project.name, now)) {
                Ok(txn) => self.commit(&txn).map(drop)?,
                Err(RegistryError::Exists { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.found_pool(now)
    }

    /// Makes a project.
    ///
    /// # Errors
    /// When there is one of that name, or the store fails.
    pub fn create_project(&self, name: Name, now: Timestamp) -> Result<Project, RegistryError> {
        let project = Project { id: ProjectId::new(), name: name.clone(), created: now };
        let key = key(&name);
        let txn = Txn::new().if_absent(&key).put_json(&key, &project)?;
        let txn = objects::write_new(txn, &security_groups::first(&name, now))?;
        match self.commit(&txn)? {
            Some(_) => Ok(project),
            None => Err(RegistryError::Exists { kind: "project", name }),
        }
    }

    /// A project.
    ///
    /// # Errors
    /// When there is none, or the store fails.
    pub fn project(&self, name: &Name) -> Result<Kept<Project>, RegistryError> {
        let missing = || RegistryError::Missing { kind: "project", name: name.to_string() };
        self.read(&key(name))?.ok_or_else(missing)
    }

    /// All projects, by name, and the revision they are of.
    ///
    /// # Errors
    /// When the revision is compacted, or the store fails.
    pub fn projects(
        &self,
        at: Option<Revision>,
    ) -> Result<(Vec<Kept<Project>>, Revision), RegistryError> {
        self.read_all(PREFIX, at)
    }

    /// Takes an empty project away.
    ///
    /// # Errors
    /// When there is none, it is not empty, or the store fails.
    pub fn delete_project(&self, name: &Name) -> Result<(), RegistryError> {
        let project = self.project(name)?;
        // The first security group goes with it.
        let first = self.parts::<SecurityGroup>(name, Name::default_name().as_ref()).ok();
        let names = Range::prefix(objects::names_of(name));
        let limit = Some(1 + usize::from(first.is_some()));
        if self.store.range(&Range { limit, ..names })?.entries.len() > usize::from(first.is_some())
        {
            return Err(RegistryError::NotEmpty(name.clone()));
        }
        // Who makes a VM in it writes the project, too.
        let txn = Txn::new().if_modified(key(name), project.revision).delete(key(name));
        let txn = match first {
            Some(first) => objects::delete(first.unchanged(txn), &first.object),
            None => txn,
        };
        self.commit(&txn)?.map(|_| ()).ok_or(RegistryError::Changed)
    }
}
