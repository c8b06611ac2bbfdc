//! Why a disk was not made, and what to do.

use std::io;

/// Why a disk was not made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The operator's wish makes no sense.
    #[error("{0}")]
    Spec(String),
    /// Programs are missing.
    #[error("{} is missing; as root: apt-get install {}", programs.join(" and "), packages.join(" "))]
    Tools {
        /// They.
        programs: Vec<&'static str>,
        /// What they are in.
        packages: Vec<&'static str>,
    },
    /// The user has no users of its own.
    #[error(
        "{user} has no subordinate IDs to make an image with; as root: usermod --add-subuids \
         {first}-{last} --add-subgids {first}-{last} {user}"
    )]
    SubordinateIds {
        /// Its name.
        user: String,
        /// IDs nobody has.
        first: u64,
        /// The last of them.
        last: u64,
    },
    /// `mmdebstrap`, or what it runs, failed.
    #[error("mmdebstrap fails ({status}): {said}")]
    Packages {
        /// Its exit status.
        status: String,
        /// The end of what it said.
        said: String,
    },
    /// What was installed has not what is needed.
    #[error("the installed system has no {0}: is the suite one of Debian's?")]
    Incomplete(&'static str),
    /// The host refuses.
    #[error("cannot {doing}")]
    Host {
        /// What was being done.
        doing: &'static str,
        /// What it says.
        source: io::Error,
    },
}
