//! What a guest is to be told, in the operator's terms.

use std::path::PathBuf;
use std::str::FromStr;

use crate::SeedError;

/// What a guest is to be told. Its text form is `user=NAME,ssh-key=FILE,…`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeedSpec {
    /// A user who is made, and may do anything through `sudo`.
    pub user: Option<String>,
    /// Files with public keys, by which the user, or the image's own user, can log in.
    pub ssh_keys: Vec<PathBuf>,
    /// The guest's name.
    pub hostname: Option<String>,
    /// A file whose first line is the user's password, or its hash as in `/etc/shadow`.
    pub password_file: Option<PathBuf>,
    /// A file of one of cloud-init's formats.
    pub user_data: Option<PathBuf>,
}

impl FromStr for SeedSpec {
    type Err = SeedError;

    fn from_str(text: &str) -> Result<Self, SeedError> {
        let mut spec = Self::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let wrong = || SeedError::Part(part.to_owned());
            let (key, value) = part.split_once('=').ok_or_else(wrong)?;
            if value.is_empty() {
                return Err(wrong());
            }
            match key {
                "user" => once(&mut spec.user, "user", value.to_owned())?,
                "hostname" => once(&mut spec.hostname, "hostname", value.to_owned())?,
                "password-file" => once(&mut spec.password_file, "password-file", value.into())?,
                "user-data" => once(&mut spec.user_data, "user-data", value.into())?,
                "ssh-key" => spec.ssh_keys.push(value.into()),
                _ => return Err(wrong()),
            }
        }
        spec.check()?;
        Ok(spec)
    }
}

fn once<T>(slot: &mut Option<T>, key: &'static str, value: T) -> Result<(), SeedError> {
    if slot.replace(value).is_some() { Err(SeedError::Twice(key)) } else { Ok(()) }
}

/// What `useradd` of most systems takes (shadow's `useradd(8)`, "CAVEATS").
const USER_LEN_MAX: usize = 32;
/// Bytes of a host name (`HOST_NAME_MAX`), and of a label in it (RFC 1035, 2.3.4).
const HOSTNAME_LEN_MAX: usize = 64;
const LABEL_LEN_MAX: usize = 63;

impl SeedSpec {
    /// # Errors
    /// When a name is none.
    pub(crate) fn check(&self) -> Result<(), SeedError> {
        if let Some(user) = self.user.as_ref().filter(|user| !is_user(user)) {
            return Err(SeedError::User(user.clone()));
        }
        if let Some(name) = self.hostname.as_ref().filter(|name| !is_hostname(name)) {
            return Err(SeedError::Hostname(name.clone()));
        }
        if self.password_file.is_some() && self.user.is_none() {
            return Err(SeedError::NoUser);
        }
        Ok(())
    }
}

fn is_user(name: &str) -> bool {
    let first = |c: char| c.is_ascii_lowercase() || c == '_';
    name.len() <= USER_LEN_MAX
        && name.starts_with(first)
        && name.chars().all(|c| first(c) || c.is_ascii_digit() || c == '-')
}

fn is_hostname(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=LABEL_LEN_MAX).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    name.len() <= HOSTNAME_LEN_MAX && name.split('.').all(is_label)
}
