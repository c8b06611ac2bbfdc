//! Which provider, and what its people may.

use std::fs;
use std::path::{Path, PathBuf};

use model::{Name, Rights, Role};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{OidcError, Person};

/// A name's longest: a label's of a host name.
const NAME_LEN_MAX: usize = 63;

/// How people sign in with a provider: a JSON file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Its URL, exactly as it calls itself.
    pub issuer: String,
    /// What it calls us.
    pub client_id: String,
    /// A file with the secret that it shares with us, if it does.
    #[serde(default)]
    pub client_secret_file: Option<PathBuf>,
    /// Where browsers find us: `https://HOST:PORT`.
    pub url: String,
    /// What people call it.
    #[serde(default = "provider")]
    pub name: String,
    /// What it is asked to tell, besides who they are.
    #[serde(default = "scopes")]
    pub scopes: Vec<String>,
    /// What they are called is in this claim.
    #[serde(default = "name_claim")]
    pub name_claim: String,
    /// Their groups are in this claim; a point leads into what is in it.
    #[serde(default = "groups_claim")]
    pub groups_claim: String,
    /// What groups may.
    pub roles: Vec<Mapping>,
    /// Who vouches for its certificate, in PEM, instead of the host's authorities.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}

/// What a group may.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    /// The group; `*`: everybody that the provider knows.
    pub group: String,
    /// Its role.
    pub role: Role,
    /// In which project, if only in one.
    #[serde(default)]
    pub project: Option<Name>,
}

fn provider() -> String {
    "your organization".to_owned()
}

fn scopes() -> Vec<String> {
    ["profile", "email", "groups"].map(str::to_owned).to_vec()
}

fn name_claim() -> String {
    "preferred_username".to_owned()
}

fn groups_claim() -> String {
    "groups".to_owned()
}

/// Whether nobody on the way can read or change what is said to this address.
pub(crate) fn is_private(url: &str) -> bool {
    let on_loopback = || {
        let host = url.strip_prefix("http://")?.split(['/', '?']).next()?;
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        ["127.0.0.1", "[::1]", "localhost"].contains(&name).then_some(())
    };
    url.starts_with("https://") || on_loopback().is_some()
}

impl Config {
    /// Reads one.
    ///
    /// # Errors
    /// When it cannot be read, or cannot be.
    pub fn read(path: &Path) -> Result<Self, OidcError> {
        let failed = |error: &dyn std::fmt::Display| {
            OidcError::Config(format!("{}: {error}", path.display()))
        };
        let text = fs::read(path).map_err(|error| failed(&error))?;
        let config: Self = serde_json::from_slice(&text).map_err(|error| failed(&error))?;
        config.check()?;
        Ok(config)
    }

    pub(crate) fn check(&self) -> Result<(), OidcError> {
        let refuse = |text: &str| Err(OidcError::Config(text.to_owned()));
        if !is_private(&self.issuer) {
            return refuse("issuer: give the provider's URL, which begins with https://");
        }
        if !self.url.starts_with("https://") {
            return refuse("url: give where browsers find this daemon: https://HOST:PORT");
        }
        if self.roles.is_empty() {
            return refuse("roles: map at least one group to a role, or nobody can sign in");
        }
        self.secret().map(drop)
    }

    /// The secret that the provider shares with us. Read each time: it may be replaced.
    pub(crate) fn secret(&self) -> Result<Option<String>, OidcError> {
        let Some(path) = &self.client_secret_file else { return Ok(None) };
        let text = fs::read_to_string(path).map_err(|error| {
            OidcError::Config(format!("client_secret_file: {}: {error}", path.display()))
        })?;
        Ok(Some(text.trim().to_owned()))
    }

    /// Who it is that such claims are about.
    pub(crate) fn person(&self, claims: &Map<String, Value>) -> Result<Person, OidcError> {
        let text = |claim: &str| claims.get(claim).and_then(Value::as_str);
        let subject = text("sub").unwrap_or_default().to_owned();
        let called = text(&self.name_claim).or(text("email")).unwrap_or(&subject);
        let groups = groups(claims, &self.groups_claim);
        let mut rights = Rights::default();
        let is_theirs = |of: &&Mapping| of.group == "*" || groups.contains(&of.group.as_str());
        for Mapping { role, project, .. } in self.roles.iter().filter(is_theirs) {
            let more = match project {
                Some(project) => Rights::within(project.clone(), *role),
                None => Rights::everywhere(*role),
            };
            rights = rights.and(&more);
        }
        match name(called) {
            Some(name) => Ok(Person { subject, name, rights }),
            None => Err(OidcError::Refused(format!("'{called}' makes no name for a user"))),
        }
    }
}

fn groups<'a>(claims: &'a Map<String, Value>, path: &str) -> Vec<&'a str> {
    // As Keycloak has them: realm_access.roles.
    let mut steps = path.split('.');
    let first = steps.next().and_then(|step| claims.get(step));
    let found = first.and_then(|first| steps.try_fold(first, |at, step| at.get(step)));
    match found {
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
        Some(Value::String(one)) => vec![one],
        _ => Vec::new(),
    }
}

/// What somebody is called here: `Ann.Lee@example.org` is `ann-lee`.
fn name(called: &str) -> Option<Name> {
    let local = called.split('@').next().unwrap_or_default();
    let letter = |c: char| match c.to_ascii_lowercase() {
        c if c.is_ascii_lowercase() || c.is_ascii_digit() => c,
        _ => '-',
    };
    let text: String = local.chars().map(letter).take(NAME_LEN_MAX).collect();
    let text = text.trim_matches('-');
    text.parse().or_else(|_| format!("u-{text}").parse()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_of_what_people_are_called() {
        for (called, made) in [
            ("ann", Some("ann")),
            ("Ann.Lee@example.org", Some("ann-lee")),
            ("42", Some("u-42")),
            ("@", None),
            ("-_-", None),
        ] {
            assert_eq!(name(called).as_ref().map(|name| name.as_ref()), made, "{called}");
        }
    }

    #[test]
    fn only_what_nobody_on_the_way_can_read_is_spoken_to() {
        for (url, is) in [
            ("https://id.example.org", true),
            ("http://127.0.0.1:8080/realm", true),
            ("http://[::1]:80", true),
            ("http://id.example.org", false),
            ("http://127.0.0.1.evil.example", false),
            ("ftp://localhost", false),
        ] {
            assert_eq!(is_private(url), is, "{url}");
        }
    }
}
