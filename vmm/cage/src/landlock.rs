//! Landlock without exceptions: what is open stays open, and nothing else is opened.
//!
//! UNSAFETY: the C library has no wrappers for these system calls.
#![allow(unsafe_code, reason = "system calls without wrappers")]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

const CREATE_RULESET_VERSION: libc::c_uint = 1;
/// `LANDLOCK_ACCESS_NET_BIND_TCP` and `LANDLOCK_ACCESS_NET_CONNECT_TCP`, since version 4.
const NET_TCP: u64 = 3;
/// `LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET`, since version 6.
const SCOPE_ABSTRACT_UNIX_SOCKET: u64 = 1;

/// `struct landlock_ruleset_attr`.
#[repr(C)]
struct RulesetAttr {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// Rights to files that a version knows of, as bits: all there are.
fn fs_rights(version: i64) -> u64 {
    let count = match version {
        1 => 13,
        2 => 14,     // REFER
        3 | 4 => 15, // TRUNCATE
        _ => 16,     // IOCTL_DEV
    };
    (1 << count) - 1
}

/// Rules that allow nothing, and the version of the kernel's. TCP is left to whoever has a network.
pub(crate) fn closed(inet: bool) -> io::Result<(OwnedFd, i64)> {
    // SAFETY: with this flag, nothing is read.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<RulesetAttr>(),
            0usize,
            CREATE_RULESET_VERSION,
        )
    };
    if version < 1 {
        return Err(io::Error::last_os_error());
    }
    let attr = RulesetAttr {
        handled_access_fs: fs_rights(version),
        handled_access_net: if version >= 4 && !inet { NET_TCP } else { 0 },
        scoped: if version >= 6 { SCOPE_ABSTRACT_UNIX_SOCKET } else { 0 },
    };
    // Older kernels know less of it; what is beyond must be zero, and is.
    let size = size_of::<RulesetAttr>();
    // SAFETY: the structure lives over the call and has the size that is given.
    let fd =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attr, size, 0u32) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given it to us, and to nobody else.
    Ok((unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) }, version))
}
