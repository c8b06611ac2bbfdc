//! What is wrong with a wish for a seed.

use std::io;
use std::path::PathBuf;

/// What is wrong with a wish for a seed.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// A part of the option that is none.
    #[error(
        "'{0}' is not user=NAME, ssh-key=FILE, hostname=NAME, password-file=FILE or user-data=FILE"
    )]
    Part(String),
    /// A part that comes twice.
    #[error("{0}= is given twice")]
    Twice(&'static str),
    /// No user can have that name.
    #[error(
        "'{0}' is not a name for a user: give 1 to 32 lower-case letters, digits, '_' or '-', the \
         first a letter or '_'"
    )]
    User(String),
    /// No host can.
    #[error("'{0}' is not a host name: give labels of letters, digits and '-', with dots between")]
    Hostname(String),
    /// Whose password?
    #[error("password-file= needs user=: say whose password it is")]
    NoUser,
    /// A file cannot be read.
    #[error("cannot read {what} {}", path.display())]
    File {
        /// What it was to be.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the host says.
        source: io::Error,
    },
    /// It can, and is something else.
    #[error("{} is no {what}: {why}", path.display())]
    Content {
        /// What it was to be.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it is not.
        why: String,
    },
    /// The disk cannot be made.
    #[error("cannot make the seed's file system")]
    Volume(#[source] io::Error),
}
