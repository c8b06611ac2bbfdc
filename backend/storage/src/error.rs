//! Why a disk cannot be used, and what to do.

use std::io;
use std::path::PathBuf;

/// Why a disk was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nothing is there.
    #[error("disk '{path}' does not exist: check the path, or make one with 'truncate -s 10G'")]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// It is a directory.
    #[error("disk '{path}' is a directory: name a raw image or a block device in it")]
    Directory {
        /// The path.
        path: PathBuf,
    },
    /// It is a pipe, a terminal, a socket.
    #[error("disk '{path}' is neither a file nor a block device")]
    Kind {
        /// The path.
        path: PathBuf,
    },
    /// The host does not let us.
    #[error(
        "no permission to {} disk '{path}': {}",
        if *write { "write to" } else { "read" },
        if *write { "change its mode, or use it read-only with ',ro'" } else { "change its mode" }
    )]
    Permission {
        /// The path.
        path: PathBuf,
        /// For writing.
        write: bool,
    },
    /// Another program has it.
    #[error(
        "disk '{path}' is in use by another VM or program: stop that one, use a copy, or use it \
         read-only in both with ',ro'"
    )]
    Locked {
        /// The path.
        path: PathBuf,
    },
    /// No sectors, or half of one.
    #[error(
        "disk '{path}' has {size_bytes} bytes, not a positive multiple of 512: is it a raw image? \
         extend it with 'truncate -s'"
    )]
    Size {
        /// The path.
        path: PathBuf,
        /// Its size.
        size_bytes: u64,
    },
    /// Anything else.
    #[error("cannot use disk '{path}'")]
    Host {
        /// The path.
        path: PathBuf,
        /// What the host says.
        source: io::Error,
    },
}
