//! Tokens and sessions: a secret's digest is kept, never the secret.

use std::time::Duration;

use jiff::Timestamp;
use model::{Name, Rights, Role, Token, TokenId, User, UserId};
use serde::{Deserialize, Serialize};
use store::{Op, Revision, Txn};

use crate::codec::{PutJson, write};
use crate::{IDENTITY, Kept, Registry, RegistryError, projects};

/// Where tokens were before there were users.
const FORMER: &str = "/tokens/";

fn prefix() -> String {
    format!("{IDENTITY}tokens/")
}

fn key(name: &Name) -> String {
    format!("{}{name}", prefix())
}

fn secret_key(digest: &Digest) -> String {
    format!("{IDENTITY}secrets/{}", digest.0)
}

fn session_key(digest: &Digest) -> String {
    format!("{IDENTITY}sessions/{}", digest.0)
}

/// A secret's SHA-256, in hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(pub String);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    token: Token,
    digest: Digest,
    /// The user whose it is.
    #[serde(default)]
    owner: Option<UserId>,
}

/// Somebody who has signed in.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Session {
    user: UserId,
    expires: Timestamp,
}

/// A token that is asked for.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Its name.
    pub name: Name,
    /// What its bearer may do, at most.
    pub role: Role,
    /// Whose it is.
    pub user: Option<Name>,
    /// Where it is good, if only in one project.
    pub project: Option<Name>,
    /// Until when it is good.
    pub expires: Option<Timestamp>,
}

/// Who has a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    /// `token:NAME` or `user:NAME`.
    pub who: String,
    /// What they may do.
    pub rights: Rights,
    /// The user that they are, or whose token it is.
    pub user: Option<Name>,
    /// When that ends.
    pub expires: Option<Timestamp>,
}

impl Registry {
    /// Makes a token whose secret has this digest.
    ///
    /// # Errors
    /// When there is one of that name, there is no such user or project, or the store fails.
    pub fn create_token(
        &self,
        new: NewToken,
        digest: Digest,
        now: Timestamp,
    ) -> Result<Token, RegistryError> {
        let NewToken { name, role, user, project, expires } = new;
        let key = key(&name);
        let mut txn = Txn::new().if_absent(&key);
        let mut owner = None;
        if let Some(user) = &user {
            let Kept { object: user, revision } = self.user(user.as_ref())?;
            // It goes with its user: none is made for one who is going.
            txn = txn.if_modified(crate::users::key(user.id), revision);
            owner = Some(user.id);
        }
        if let Some(project) = &project {
            txn = self.name_project(txn, project)?;
        }
        let id = TokenId::new();
        let token = Token { id, name: name.clone(), role, user, project, created: now, expires };
        let record = Record { token: token.clone(), digest: digest.clone(), owner };
        let txn = txn.put_json(&key, &record)?.put_json(secret_key(&digest), &name)?;
        if self.commit(&txn)?.is_some() {
            return Ok(token);
        }
        match self.read::<Record>(&key)? {
            Some(_) => Err(RegistryError::Exists { kind: "token", name }),
            None => Err(RegistryError::Changed),
        }
    }

    /// Adds to a transaction that something names this project: it happens only if that is there and stays.
    pub(crate) fn name_project(&self, txn: Txn, project: &Name) -> Result<Txn, RegistryError> {
        let of = self.lasting_project(project)?;
        Ok(txn.if_modified(projects::key(project), of.revision))
    }

    /// All tokens, by name, and the revision they are of.
    ///
    /// # Errors
    /// When the revision is compacted, or the store fails.
    pub fn tokens(
        &self,
        at: Option<Revision>,
    ) -> Result<(Vec<Kept<Token>>, Revision), RegistryError> {
        let (records, revision) = self.read_all::<Record>(&prefix(), at)?;
        let token =
            |kept: Kept<Record>| Kept { object: kept.object.token, revision: kept.revision };
        Ok((records.into_iter().map(token).collect(), revision))
    }

    /// A token.
    ///
    /// # Errors
    /// When there is none, or the store fails.
    pub fn token(&self, name: &Name) -> Result<Token, RegistryError> {
        Ok(self.token_record(name)?.object.token)
    }

    fn token_record(&self, name: &Name) -> Result<Kept<Record>, RegistryError> {
        let missing = || RegistryError::Missing { kind: "token", name: name.to_string() };
        self.read::<Record>(&key(name))?.ok_or_else(missing)
    }

    /// Who has the secret of this digest, if it is still good.
    ///
    /// # Errors
    /// When the store fails.
    pub fn bearer(&self, digest: &Digest, now: Timestamp) -> Result<Option<Bearer>, RegistryError> {
        if let Some(Kept { object: name, .. }) = self.read::<Name>(&secret_key(digest))? {
            return self.bearer_of_token(&name, digest, now);
        }
        let Some(Kept { object: session, .. }) = self.read::<Session>(&session_key(digest))? else {
            return Ok(None);
        };
        let user = self.user_of(session.user)?.filter(|user| !user.object.disabled);
        let Some(Kept { object: user, .. }) = user.filter(|_| now < session.expires) else {
            return Ok(None);
        };
        Ok(Some(Bearer {
            who: format!("user:{}", user.name),
            rights: user.all_rights(),
            user: Some(user.name),
            expires: Some(session.expires),
        }))
    }

    fn bearer_of_token(
        &self,
        name: &Name,
        digest: &Digest,
        now: Timestamp,
    ) -> Result<Option<Bearer>, RegistryError> {
        let Some(Kept { object: Record { token, digest: own, owner }, .. }) =
            self.read::<Record>(&key(name))?
        else {
            return Ok(None);
        };
        if own != *digest || token.expires.is_some_and(|end| end <= now) {
            return Ok(None);
        }
        let mut rights = match token.project {
            Some(project) => Rights::within(project, token.role),
            None => Rights::everywhere(token.role),
        };
        let mut user = None;
        if let Some(owner) = owner {
            let owner = self.user_of(owner)?.map(|kept| kept.object);
            let Some(owner) = owner.filter(|owner| !owner.disabled) else { return Ok(None) };
            rights = rights.within_those(&owner.all_rights());
            user = Some(owner.name);
        }
        let who = format!("token:{}", token.name);
        Ok(Some(Bearer { who, rights, user, expires: token.expires }))
    }

    /// A token is good no longer.
    ///
    /// # Errors
    /// When there is none, or the store fails.
    pub fn delete_token(&self, name: &Name) -> Result<(), RegistryError> {
        let Kept { object, revision } = self.token_record(name)?;
        let txn = Txn::new().if_modified(key(name), revision).delete(key(name));
        let txn = txn.delete(secret_key(&object.digest));
        self.commit(&txn)?.map(|_| ()).ok_or(RegistryError::Changed)
    }

    /// Deletes the tokens that are so.
    pub(crate) fn delete_tokens(
        &self,
        which: impl Fn(&Token, Option<UserId>) -> bool,
    ) -> Result<(), RegistryError> {
        for Kept { object, .. } in self.read_all::<Record>(&prefix(), None)?.0 {
            if which(&object.token, object.owner) {
                match self.delete_token(&object.token.name) {
                    Err(RegistryError::Missing { .. }) => {}
                    deleted => deleted?,
                }
            }
        }
        Ok(())
    }

    /// Somebody has signed in: the secret of this digest is theirs for so long.
    ///
    /// # Errors
    /// When they are not known any more or have changed, or the store fails.
    pub fn begin_session(
        &self,
        user: &Kept<User>,
        digest: &Digest,
        ttl: Duration,
        now: Timestamp,
    ) -> Result<(), RegistryError> {
        let id = user.object.id;
        let ends = now.checked_add(ttl).unwrap_or(Timestamp::MAX);
        let lease = self.store.grant(ttl)?;
        let key = session_key(digest);
        let value = write(&key, &Session { user: id, expires: ends })?;
        let mut txn = Txn::new().if_modified(crate::users::key(id), user.revision);
        txn.then.push(Op::Put(key, value, Some(lease)));
        self.commit(&txn)?.map(|_| ()).ok_or(RegistryError::Changed)
    }

    /// Somebody has signed out. One that is over is left so.
    ///
    /// # Errors
    /// When the store fails.
    pub fn end_session(&self, digest: &Digest) -> Result<(), RegistryError> {
        self.commit(&Txn::new().delete(session_key(digest)))?;
        Ok(())
    }

    /// Ends all sessions of a user.
    pub(crate) fn end_sessions(&self, user: UserId) -> Result<(), RegistryError> {
        let prefix = format!("{IDENTITY}sessions/");
        let page = self.store.range(&store::Range::prefix(prefix))?;
        for entry in &page.entries {
            if crate::codec::read::<Session>(entry)?.user == user {
                self.commit(&Txn::new().delete(&entry.key))?;
            }
        }
        Ok(())
    }

    /// Tokens of a version without users go where they are looked for.
    pub(crate) fn move_tokens(&self) -> Result<(), RegistryError> {
        let page = self.store.range(&store::Range::prefix(FORMER))?;
        for entry in &page.entries {
            let record: Record = crate::codec::read(entry)?;
            let name = record.token.name.clone();
            let txn = Txn::new().delete(&entry.key).put_json(key(&name), &record)?;
            self.commit(&txn.put_json(secret_key(&record.digest), &name)?)?;
        }
        Ok(())
    }
}
