//! Tokens: a secret's digest is kept, never the secret.

use jiff::Timestamp;
use model::{Name, Role, Token, TokenId};
use serde::{Deserialize, Serialize};
use store::Txn;

use crate::codec::PutJson;
use crate::{Registry, RegistryError};

const PREFIX: &str = "/tokens/";

/// A secret's SHA-256, in hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(pub String);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    token: Token,
    digest: Digest,
}

impl Registry {
    /// Makes a token whose secret has this digest.
    ///
    /// # Errors
    /// When there is one of that name, or the store fails.
    pub fn create_token(
        &self,
        name: Name,
        role: Role,
        expires: Option<Timestamp>,
        digest: Digest,
        now: Timestamp,
    ) -> Result<Token, RegistryError> {
        let token = Token { id: TokenId::new(), name: name.clone(), role, created: now, expires };
        let key = format!("{PREFIX}{name}");
        let record = Record { token: token.clone(), digest };
        match self.commit(&Txn::new().if_absent(&key).put_json(&key, &record)?)? {
            Some(_) => Ok(token),
            None => Err(RegistryError::Exists { kind: "token", name }),
        }
    }

    /// All tokens, by name.
    ///
    /// # Errors
    /// When the store fails.
    pub fn tokens(&self) -> Result<Vec<Token>, RegistryError> {
        let (records, _) = self.read_all::<Record>(PREFIX, None)?;
        Ok(records.into_iter().map(|kept| kept.object.token).collect())
    }

    /// The token whose secret has this digest, if it is still good.
    ///
    /// # Errors
    /// When the store fails.
    pub fn token_of(
        &self,
        digest: &Digest,
        now: Timestamp,
    ) -> Result<Option<Token>, RegistryError> {
        let (records, _) = self.read_all::<Record>(PREFIX, None)?;
        let is_good = |token: &Token| token.expires.is_none_or(|end| now < end);
        let found = records.into_iter().map(|kept| kept.object).find(|r| r.digest == *digest);
        Ok(found.map(|record| record.token).filter(is_good))
    }

    /// A token is good no longer.
    ///
    /// # Errors
    /// When there is none, or the store fails.
    pub fn delete_token(&self, name: &Name) -> Result<(), RegistryError> {
        let key = format!("{PREFIX}{name}");
        let missing = || RegistryError::Missing { kind: "token", name: name.to_string() };
        let kept = self.read::<Record>(&key)?.ok_or_else(missing)?;
        let txn = Txn::new().if_modified(&key, kept.revision).delete(&key);
        self.commit(&txn)?.map(|_| ()).ok_or(RegistryError::Changed)
    }
}
