//! Why a screen cannot be shown.

use std::io;

/// Why a screen cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum RfbError {
    /// Anyone could use the VM.
    #[error(
        "{0} can be reached from other hosts: give it a password with password-file=FILE, or use \
         127.0.0.1"
    )]
    Open(String),
    /// The place to listen at cannot be had.
    #[error("cannot listen for viewers at {place}")]
    Listen {
        /// The place.
        place: String,
        /// What the host says.
        source: io::Error,
    },
    /// Something else is there.
    #[error("{0} is in use: another VM listens there, or it is not a socket")]
    InUse(String),
    /// The host has no thread or descriptor left.
    #[error("the host cannot serve viewers")]
    Host(#[source] io::Error),
}
