//! Why the store refuses, and what to do.

use std::io;
use std::path::{Path, PathBuf};

use crate::Format;

/// Why the store refuses.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// There is no place for the store.
    #[error("no place for images: set TRINE_HOME to a folder, or HOME")]
    NoHome,
    /// A name that none can have.
    #[error(
        "'{0}' is not a name for an image: give 1 to 63 letters, digits, '.', '_' or '-', the first \
         a letter or a digit"
    )]
    Name(String),
    /// Nothing has this name.
    #[error("no image '{0}': 'trine image ls' lists those there are")]
    Missing(String),
    /// Something has.
    #[error("there is an image '{0}' already: choose another name, or replace it with --force")]
    Exists(String),
    /// A VM uses the disk.
    #[error("image '{0}' is in use by a running VM: stop that first")]
    InUse(String),
    /// The medium is full.
    #[error("no space is left for {}: make room, or set TRINE_HOME to a folder elsewhere", path.display())]
    Full {
        /// What was being written.
        path: PathBuf,
    },
    /// A disk has whole sectors.
    #[error("{what} has {size_bytes} bytes, which is no disk: give a positive multiple of 512")]
    Size {
        /// It.
        what: String,
        /// Its size.
        size_bytes: u64,
    },
    /// What was said and what is there differ.
    #[error("{what} is not of the format {format}")]
    Format {
        /// It.
        what: String,
        /// What it was to be.
        format: Format,
    },
    /// Its disk is elsewhere, or incomplete without something else.
    #[error("{what} {why}; flatten it where that is: {how}")]
    Depends {
        /// It.
        what: String,
        /// On what.
        why: &'static str,
        /// A command.
        how: &'static str,
    },
    /// Its bytes are not the disk's.
    #[error("{what} is {how}")]
    Unfit {
        /// It.
        what: String,
        /// What to do about it.
        how: &'static str,
    },
    /// The converter is not there.
    #[error(
        "{format} images are converted by qemu-img, which is missing; as root: apt-get install qemu-utils"
    )]
    NoConverter {
        /// The format.
        format: Format,
    },
    /// It is, and fails.
    #[error("qemu-img cannot convert {what}: {said}")]
    Converter {
        /// What.
        what: String,
        /// What it says.
        said: String,
    },
    /// A record of ours that we cannot read.
    #[error("{} is damaged, or of a newer version", path.display())]
    Record {
        /// Where.
        path: PathBuf,
        /// How.
        source: serde_json::Error,
    },
    /// A disk of ours is not what it was.
    #[error(
        "the disk of image '{name}' is damaged: its bytes are not those of its ID; remove and import it anew"
    )]
    Damaged {
        /// The name.
        name: String,
    },
    /// The host refuses.
    #[error("cannot {doing} {}", path.display())]
    Host {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
}

/// What went wrong with a path.
pub(crate) fn host(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> ImageError {
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ImageError::Full { path: path.to_owned() }
        }
        _ => ImageError::Host { doing, path: path.to_owned(), source },
    }
}
