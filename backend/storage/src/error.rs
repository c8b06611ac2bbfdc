//! Why a disk cannot be used, and what to do.

use std::io;
use std::path::PathBuf;

use crate::Qcow2Error;

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
    /// It is no layer for this disk.
    #[error("'{path}' is no layer for this disk: only a written qcow2 disk can go on in a new one")]
    NoLayers {
        /// The path.
        path: PathBuf,
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
    /// Its name says raw, and its content something else.
    #[error(
        "disk '{path}' begins as a {found} image: say ',format=raw' if a guest wrote that on its \
         disk{}",
        if *found == "qcow2" { ", or ',format=qcow2' if it is your image" } else {
            "; convert an image of yours with 'qemu-img convert -O qcow2'"
        }
    )]
    Unclear {
        /// The path.
        path: PathBuf,
        /// What the content says.
        found: &'static str,
    },
    /// A raw image with something below it.
    #[error("disk '{path}' is a raw image, which stands on nothing: leave ',backing=' out")]
    RawBacking {
        /// The path.
        path: PathBuf,
    },
    /// A layer stands on itself, or there are too many.
    #[error("disk '{path}' comes twice among the layers of an image, or there are more than 64")]
    Loop {
        /// The path.
        path: PathBuf,
    },
    /// The file system cannot do without a cache.
    #[error("the file system of disk '{path}' has no direct access: leave ',cache=none' out")]
    NoDirect {
        /// The path.
        path: PathBuf,
    },
    /// A qcow2 image that cannot be used.
    #[error("cannot use disk '{path}' as a qcow2 image")]
    Qcow2 {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        source: Qcow2Error,
    },
    /// Changes have no place.
    #[error(
        "there is no place for a snapshot's changes in '{directory}': set TMPDIR to a directory of a \
         file system with unnamed files"
    )]
    Overlay {
        /// Where it was tried.
        directory: PathBuf,
        /// What the host says.
        source: io::Error,
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
