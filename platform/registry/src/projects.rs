//! Projects.

use jiff::Timestamp;
use model::{Name, Project, ProjectId, Quota, SecurityGroup};
use store::{Range, Revision, Txn};

use crate::codec::PutJson;
use crate::{Kept, Registry, RegistryError, objects, security_groups, uses};

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
            self.create_project(Name::default_name(), Quota::default(), now)?;
        }
        for kept in projects {
            // Who was deleting it has been killed.
            let Kept { object: project, .. } =
                if kept.object.deleting { self.mark(kept, false)? } else { kept };
            // One of a version that had none.
            match self.put_new(Txn::new(), &security_groups::first(&project.name, now)) {
                Ok(txn) => self.commit(&txn).map(drop)?,
                Err(RegistryError::Exists { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.move_tokens()?;
        self.found_pool(now)
    }

    /// Makes a project.
    ///
    /// # Errors
    /// When there is one of that name, or the store fails.
    pub fn create_project(
        &self,
        name: Name,
        quota: Quota,
        now: Timestamp,
    ) -> Result<Project, RegistryError> {
        let id = ProjectId::new();
        let project = Project { id, name: name.clone(), quota, created: now, deleting: false };
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

    /// Sets how much all that is in a project may take together. What is there stays.
    ///
    /// # Errors
    /// When there is none, it is not of the revision that is given, or the store fails.
    pub fn set_project_quota(
        &self,
        name: &Name,
        quota: impl Fn(&Quota) -> Result<Quota, RegistryError>,
        revision: Option<Revision>,
    ) -> Result<Kept<Project>, RegistryError> {
        let Kept { object, revision: now } = self.project(name)?;
        if revision.is_some_and(|revision| revision != now) {
            return Err(RegistryError::Changed);
        }
        let project = Project { quota: quota(&object.quota)?, ..object };
        let txn = Txn::new().if_modified(key(name), now).put_json(key(name), &project)?;
        let revision = self.commit(&txn)?.ok_or(RegistryError::Changed)?;
        Ok(Kept { object: project, revision })
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
    pub fn delete_project(
        &self,
        name: &Name,
        revision: Option<Revision>,
    ) -> Result<(), RegistryError> {
        let Kept { object, revision: now } = self.project(name)?;
        if revision.is_some_and(|revision| revision != now) {
            return Err(RegistryError::Changed);
        }
        // What comes into it compares this: it came before, and is found below, or does not come.
        let going = self.mark(Kept { object, revision: now }, true)?;
        // The first security group goes with it.
        let first = self.parts::<SecurityGroup>(name, Name::default_name().as_ref()).ok();
        let names = Range::prefix(objects::names_of(name));
        let limit = Some(1 + usize::from(first.is_some()));
        if self.store.range(&Range { limit, ..names })?.entries.len() > usize::from(first.is_some())
        {
            self.mark(going, false)?;
            return Err(RegistryError::NotEmpty(name.clone()));
        }
        // Another project of this name is none of theirs.
        self.forget_members(name)?;
        self.delete_tokens(|token, _| token.project.as_ref() == Some(name))?;
        let txn = Txn::new().if_modified(key(name), going.revision).delete(key(name));
        let txn = txn.delete(uses::key(name));
        let txn = match first {
            Some(first) => objects::delete(first.unchanged(txn), &first.object),
            None => txn,
        };
        self.commit(&txn)?.map(|_| ()).ok_or(RegistryError::Changed)
    }

    /// Nothing comes into a project that is going.
    fn mark(&self, of: Kept<Project>, deleting: bool) -> Result<Kept<Project>, RegistryError> {
        let (key, object) = (key(&of.object.name), Project { deleting, ..of.object });
        let txn = Txn::new().if_modified(&key, of.revision).put_json(&key, &object)?;
        let revision = self.commit(&txn)?.ok_or(RegistryError::Changed)?;
        Ok(Kept { object, revision })
    }

    /// A project that is not going.
    pub(crate) fn lasting_project(&self, name: &Name) -> Result<Kept<Project>, RegistryError> {
        let of = self.project(name)?;
        if of.object.deleting {
            return Err(RegistryError::Deleting { kind: "project", name: name.clone() });
        }
        Ok(of)
    }
}
