//! Users. What they prove themselves with is kept as a hash that somebody else has made.

use jiff::Timestamp;
use model::{Name, Provided, Rights, Role, User, UserId};
use serde::{Deserialize, Serialize};
use store::{Revision, Txn};

use crate::codec::PutJson;
use crate::objects::TRIES;
use crate::{IDENTITY, Kept, Registry, RegistryError};

fn prefix() -> String {
    format!("{IDENTITY}users/")
}

pub(crate) fn key(id: UserId) -> String {
    format!("{}{id}", prefix())
}

fn name_key(name: &Name) -> String {
    format!("{IDENTITY}user-names/{name}")
}

/// A user, as they are kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    user: User,
    /// The password's hash, in the PHC string format.
    #[serde(default)]
    password: Option<String>,
}

impl Kept<Record> {
    fn user(self) -> Kept<User> {
        Kept { object: self.object.user, revision: self.revision }
    }
}

/// A user, and what is kept of their password.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// They.
    pub user: Kept<User>,
    /// The password's hash, if they have one.
    pub password: Option<String>,
}

/// What shall change of a user.
#[derive(Debug, Clone, Default)]
pub struct UserChange {
    /// What they may do.
    pub rights: Option<Rights>,
    /// Whether they cannot sign in.
    pub disabled: Option<bool>,
}

fn missing(name: &str) -> RegistryError {
    RegistryError::Missing { kind: "user", name: name.to_owned() }
}

impl Registry {
    /// Makes a user. Without a password they cannot sign in by one.
    ///
    /// # Errors
    /// When there is one of that name, there is no such project, or the store fails.
    pub fn create_user(
        &self,
        name: Name,
        rights: Rights,
        password: Option<String>,
        now: Timestamp,
    ) -> Result<Kept<User>, RegistryError> {
        let id = UserId::new();
        let user = User { id, name, rights, provided: None, disabled: false, created: now };
        self.put_user(Record { user, password })
    }

    fn put_user(&self, record: Record) -> Result<Kept<User>, RegistryError> {
        let user = &record.user;
        let (key, name_key) = (key(user.id), name_key(&user.name));
        for _ in 0..TRIES {
            if self.store.get(&name_key)?.0.is_some() {
                return Err(RegistryError::Exists { kind: "user", name: user.name.clone() });
            }
            let txn = Txn::new().if_absent(&name_key).put_json(&name_key, &user.id)?;
            let txn = self.name_projects(txn, &user.rights)?.put_json(&key, &record)?;
            if let Some(revision) = self.commit(&txn)? {
                return Ok(Kept { object: record.user, revision });
            }
        }
        Err(RegistryError::Changed)
    }

    /// Adds to a transaction that rights name these projects: none of them goes meanwhile.
    fn name_projects(&self, mut txn: Txn, rights: &Rights) -> Result<Txn, RegistryError> {
        for project in rights.projects.keys() {
            txn = self.name_project(txn, project)?;
        }
        Ok(txn)
    }

    /// All users, the oldest first, and the revision they are of.
    ///
    /// # Errors
    /// When the revision is compacted, or the store fails.
    pub fn users(
        &self,
        at: Option<Revision>,
    ) -> Result<(Vec<Kept<User>>, Revision), RegistryError> {
        let (records, revision) = self.read_all::<Record>(&prefix(), at)?;
        Ok((records.into_iter().map(Kept::user).collect(), revision))
    }

    /// A user, by name or ID.
    ///
    /// # Errors
    /// When there is none, or the store fails.
    pub fn user(&self, name_or_id: &str) -> Result<Kept<User>, RegistryError> {
        self.user_record(name_or_id).map(Kept::user)
    }

    fn user_record(&self, name_or_id: &str) -> Result<Kept<Record>, RegistryError> {
        let id = match name_or_id.parse::<UserId>() {
            Ok(id) => id,
            Err(_) => {
                let name: Name = name_or_id.parse().map_err(|_| missing(name_or_id))?;
                self.read(&name_key(&name))?.ok_or_else(|| missing(name_or_id))?.object
            }
        };
        self.read(&key(id))?.ok_or_else(|| missing(name_or_id))
    }

    /// A user of this ID, if they are still there.
    ///
    /// # Errors
    /// When the store fails.
    pub fn user_of(&self, id: UserId) -> Result<Option<Kept<User>>, RegistryError> {
        Ok(self.read::<Record>(&key(id))?.map(Kept::user))
    }

    /// A user and their password's hash, if there is such a user.
    ///
    /// # Errors
    /// When the store fails.
    pub fn password_of(&self, name: &str) -> Result<Option<Credentials>, RegistryError> {
        match self.user_record(name) {
            Ok(record) => {
                let password = record.object.password.clone();
                Ok(Some(Credentials { user: record.user(), password }))
            }
            Err(RegistryError::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Changes what a user may do. One who is disabled is signed out everywhere.
    ///
    /// # Errors
    /// When there is none, they are not of the revision that is given, there is no such project, or the store fails.
    pub fn change_user(
        &self,
        name_or_id: &str,
        change: &UserChange,
        revision: Option<Revision>,
    ) -> Result<Kept<User>, RegistryError> {
        let changed = self.edit_user(name_or_id, revision, |record, txn| {
            let user = &mut record.user;
            user.disabled = change.disabled.unwrap_or(user.disabled);
            let Some(rights) = &change.rights else { return Ok(txn) };
            let txn = self.name_projects(txn, rights)?;
            user.rights.clone_from(rights);
            Ok(txn)
        })?;
        if changed.object.disabled {
            self.end_sessions(changed.object.id)?;
        }
        Ok(changed)
    }

    /// Gives a user another password, or none, and ends all their sessions.
    ///
    /// # Errors
    /// When there is none, or the store fails.
    pub fn set_password(
        &self,
        name_or_id: &str,
        password: Option<&str>,
    ) -> Result<(), RegistryError> {
        let changed = self.edit_user(name_or_id, None, |record, txn| {
            record.password = password.map(str::to_owned);
            Ok(txn)
        })?;
        self.end_sessions(changed.object.id)
    }

    /// Gives a user a role in a project, or takes it from them.
    ///
    /// # Errors
    /// When there is no such user or project, or the store fails.
    pub fn set_member(
        &self,
        project: &Name,
        name_or_id: &str,
        role: Option<Role>,
    ) -> Result<Kept<User>, RegistryError> {
        self.edit_user(name_or_id, None, |record, txn| {
            let roles = &mut record.user.rights.projects;
            match role {
                Some(role) => roles.insert(project.clone(), role),
                None => roles.remove(project),
            };
            self.name_project(txn, project)
        })
    }

    /// No user has a role in this project any more.
    pub(crate) fn forget_members(&self, project: &Name) -> Result<(), RegistryError> {
        let named = |rights: &Rights| rights.projects.contains_key(project);
        for Kept { object: user, .. } in self.users(None)?.0 {
            let provided = user.provided.as_ref().is_some_and(|provided| named(&provided.rights));
            if named(&user.rights) || provided {
                self.edit_user(&user.id.to_string(), None, |record, txn| {
                    record.user.rights.projects.remove(project);
                    if let Some(provided) = &mut record.user.provided {
                        provided.rights.projects.remove(project);
                    }
                    Ok(txn)
                })?;
            }
        }
        Ok(())
    }

    fn edit_user(
        &self,
        name_or_id: &str,
        revision: Option<Revision>,
        edit: impl Fn(&mut Record, Txn) -> Result<Txn, RegistryError>,
    ) -> Result<Kept<User>, RegistryError> {
        for _ in 0..TRIES {
            let Kept { object: mut record, revision: now } = self.user_record(name_or_id)?;
            if revision.is_some_and(|revision| revision != now) {
                return Err(RegistryError::Changed);
            }
            let key = key(record.user.id);
            let txn = edit(&mut record, Txn::new().if_modified(&key, now))?;
            if let Some(revision) = self.commit(&txn.put_json(&key, &record)?)? {
                return Ok(Kept { object: record.user, revision });
            }
        }
        Err(RegistryError::Changed)
    }

    /// Somebody whom a provider vouches for: who they are here is decided by who they are there, never by their
    /// name.
    ///
    /// # Errors
    /// When somebody else has the name, or the store fails.
    pub fn provide_user(
        &self,
        name: &Name,
        provided: Provided,
        now: Timestamp,
    ) -> Result<Kept<User>, RegistryError> {
        let is_them = |user: &User| {
            let of = user.provided.as_ref();
            of.is_some_and(|of| of.issuer == provided.issuer && of.subject == provided.subject)
        };
        let known = self.users(None)?.0.into_iter().find(|kept| is_them(&kept.object));
        let Some(known) = known else {
            let (id, rights) = (UserId::new(), Rights::default());
            let (name, provided) = (name.clone(), Some(provided));
            let user = User { id, name, rights, provided, disabled: false, created: now };
            return self.put_user(Record { user, password: None });
        };
        if known.object.provided.as_ref() == Some(&provided) {
            return Ok(known);
        }
        self.edit_user(&known.object.id.to_string(), None, |record, txn| {
            record.user.provided = Some(provided.clone());
            Ok(txn)
        })
    }

    /// Takes a user away, with their sessions and tokens.
    ///
    /// # Errors
    /// When there is none, they are not of the revision that is given, or the store fails.
    pub fn delete_user(
        &self,
        name_or_id: &str,
        revision: Option<Revision>,
    ) -> Result<(), RegistryError> {
        let Kept { object: user, revision: now } = self.user(name_or_id)?;
        if revision.is_some_and(|revision| revision != now) {
            return Err(RegistryError::Changed);
        }
        let txn = Txn::new().if_modified(key(user.id), now).delete(key(user.id));
        self.commit(&txn.delete(name_key(&user.name)))?.ok_or(RegistryError::Changed)?;
        self.end_sessions(user.id)?;
        self.delete_tokens(|_, owner| owner == Some(user.id))
    }
}
