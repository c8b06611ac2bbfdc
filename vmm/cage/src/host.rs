//! What only root can set up: another user, another root folder, namespaces; and the control group.
//!
//! UNSAFETY: the C library's calls that change all threads at once have no safe wrappers.
#![allow(unsafe_code, reason = "calls of the C library")]

use std::fs;
use std::io;
use std::path::Path;

use crate::CageError;

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Closes all but the three standard streams, before anything is opened: what whoever started this process had
/// open by oversight.
pub fn close_inherited() {
    // SAFETY: nothing has been opened yet, so nothing here owns one of them.
    unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
}

/// The process sees this folder and nothing else of the file system. Threads share it.
pub(crate) fn change_root(path: &Path) -> Result<(), CageError> {
    let failed = |source| CageError::Root { path: path.to_owned(), source };
    std::os::unix::fs::chroot(path).map_err(failed)?;
    std::env::set_current_dir("/").map_err(failed)
}

/// All threads become this user's, of a group of the same number and no other.
pub(crate) fn change_user(user: u32) -> Result<(), CageError> {
    // SAFETY: they take numbers; the C library changes all threads or ends the process.
    let changed = unsafe {
        check(libc::setgroups(0, std::ptr::null()))
            .and_then(|()| check(libc::setresgid(user, user, user)))
            .and_then(|()| check(libc::setresuid(user, user, user)))
    };
    changed.map_err(|source| CageError::User { user, source })
}

/// Leaves the host's namespaces for System V IPC and names, and that for networks unless it is needed: before
/// there are threads. It has no children and can signal nobody, so a namespace of process IDs would add nothing; of the file system
/// it sees an empty folder.
///
/// # Errors
/// Why the kernel refuses, in words for people.
pub fn leave_namespaces(keep_network: bool) -> Result<String, String> {
    let (flags, names) = match keep_network {
        true => (libc::CLONE_NEWIPC | libc::CLONE_NEWUTS, "ipc, uts"),
        false => (libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWNET, "ipc, uts, net"),
    };
    // SAFETY: it takes a number.
    match check(unsafe { libc::unshare(flags) }) {
        Ok(()) => Ok(format!("namespaces of its own: {names}")),
        Err(error) => Err(format!("namespaces: the kernel refuses ({error})")),
    }
}

/// Joins a control group (version 2), which its limits are on.
///
/// # Errors
/// Why not, in words for people.
pub fn join(group: &Path) -> Result<String, String> {
    match fs::write(group.join("cgroup.procs"), "0") {
        Ok(()) => Ok(format!("control group {}", group.display())),
        Err(error) => Err(format!("control group {}: {error}", group.display())),
    }
}
