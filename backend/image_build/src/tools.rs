//! The programs this work is left to.

use std::path::Path;

use crate::BuildError;

/// Where programs are; a user's `PATH` lacks the second half.
pub(crate) const PATHS: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

const ALWAYS: [(&str, &str); 2] = [("mmdebstrap", "mmdebstrap"), ("mke2fs", "e2fsprogs")];
/// Who is not root acts as many users within a namespace of them.
const NOT_ROOT: [(&str, &str); 1] = [("newuidmap", "uidmap")];

/// # Errors
/// When one is missing: how to get it.
pub(crate) fn check() -> Result<(), BuildError> {
    let is_there =
        |program: &str| PATHS.split(':').any(|folder| Path::new(folder).join(program).is_file());
    let needed = ALWAYS.iter().chain(if is_root() { &[][..] } else { &NOT_ROOT });
    let (programs, packages): (Vec<_>, Vec<_>) =
        needed.filter(|(program, _)| !is_there(program)).copied().unzip();
    if programs.is_empty() { Ok(()) } else { Err(BuildError::Tools { programs, packages }) }
}

/// This process may do anything.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
