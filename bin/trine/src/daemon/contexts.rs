//! The daemons a user knows, in a file that only the user may read: it has tokens.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// A daemon elsewhere, and who we are to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// `https://HOST:PORT`.
    pub server: String,
    /// Proves who asks.
    pub token: String,
    /// SHA-256 of the server's certificate; without it, an authority that this host trusts vouches for it.
    pub fingerprint: Option<String>,
    /// The project that is meant if none is named.
    pub project: Option<String>,
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contexts {
    /// The one that is meant if none is named.
    pub current: Option<String>,
    /// By name.
    pub contexts: BTreeMap<String, Context>,
}

impl Contexts {
    /// Where they are kept.
    fn path() -> anyhow::Result<PathBuf> {
        let variable =
            |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let folder = variable("XDG_CONFIG_HOME")
            .or_else(|| variable("HOME").map(|home| home.join(".config")));
        let folder = folder.context("no place for contexts: set HOME or XDG_CONFIG_HOME")?;
        Ok(folder.join("trine/contexts.json"))
    }

    /// Those that are kept; none, if nothing is.
    pub fn load() -> anyhow::Result<Self> {
        let Ok(path) = Self::path() else { return Ok(Self::default()) };
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .with_context(|| format!("{} is damaged: mend it, or delete it", path.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Keeps them, whole or not at all.
    pub fn save(&self) -> anyhow::Result<()> {
        let path = Self::path()?;
        let new = path.with_extension("new");
        let write = || -> std::io::Result<()> {
            if let Some(folder) = path.parent() {
                DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            }
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&new)?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            file.sync_all()?;
            fs::rename(&new, &path)
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    /// The one of this name.
    pub fn get(&self, name: &str) -> anyhow::Result<&Context> {
        self.contexts
            .get(name)
            .with_context(|| format!("no context '{name}': `trine context ls` lists them"))
    }
}
