//! The requests of the tun driver and the bridge (Linux `if_tun.h`, `sockios.h`).
// UNSAFETY: ioctl(2) is not in the safe wrappers; every request here takes a value or a pointer to
// a structure that is a local of its caller.
#![allow(unsafe_code, reason = "ioctl(2)")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `struct ifreq` with flags or an index in its union.
#[repr(C)]
struct IfReq {
    name: [u8; libc::IFNAMSIZ],
    value: i32,
    rest: [u8; 20],
}

/// Offloads the reader of a tap can take (`TUN_F_*`).
pub(super) mod tun_f {
    pub(in crate::tap) const CSUM: u32 = 1;
    pub(in crate::tap) const TSO4: u32 = 2;
    pub(in crate::tap) const TSO6: u32 = 4;
    pub(in crate::tap) const TSO_ECN: u32 = 8;
    pub(in crate::tap) const UFO: u32 = 16;
}

/// Not in libc.
const SIOCBRADDIF: libc::c_ulong = 0x89a2;
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
const TUNSETVNETHDRSZ: libc::c_ulong = 0x4004_54d8;
const TUNSETQUEUE: libc::c_ulong = 0x4004_54d9;
const TUNSETVNETLE: libc::c_ulong = 0x4004_54dc;

fn request(name: &str, value: i32) -> IfReq {
    let mut request = IfReq { name: [0; libc::IFNAMSIZ], value, rest: [0; 20] };
    // One byte is left for the end of the string: names are shorter, as the caller has checked.
    for (to, byte) in request.name[..libc::IFNAMSIZ - 1].iter_mut().zip(name.bytes()) {
        *to = byte;
    }
    request
}

fn with_request(fd: i32, number: libc::c_ulong, request: &mut IfReq) -> io::Result<()> {
    // SAFETY: all requests this is called with take a `struct ifreq`, whose size `IfReq` has.
    let result = unsafe { libc::ioctl(fd, number, std::ptr::from_mut(request)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn with_number(fd: i32, number: libc::c_ulong, value: i32) -> io::Result<()> {
    let value: libc::c_int = value;
    // SAFETY: both requests this is called with read an `int`.
    let result = unsafe { libc::ioctl(fd, number, std::ptr::from_ref(&value)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes `file`, an open `/dev/net/tun`, a queue of this tap; returns the tap's name.
pub(super) fn set_interface(file: &File, name: &str, multi: bool) -> io::Result<String> {
    let mut flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    if multi {
        flags |= libc::IFF_MULTI_QUEUE;
    }
    let mut request = request(name, flags);
    with_request(file.as_raw_fd(), TUNSETIFF, &mut request)?;
    let name = request.name.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// Headers are the 12 bytes of virtio 1, little-endian.
pub(super) fn set_header(file: &File, size: usize) -> io::Result<()> {
    with_number(file.as_raw_fd(), TUNSETVNETHDRSZ, size as i32)?;
    with_number(file.as_raw_fd(), TUNSETVNETLE, 1)
}

/// The reader takes frames with this left undone.
pub(super) fn set_offload(file: &File, flags: u32) -> io::Result<()> {
    // SAFETY: the request takes its argument by value.
    let result =
        unsafe { libc::ioctl(file.as_raw_fd(), TUNSETOFFLOAD, libc::c_ulong::from(flags)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The kernel gives this queue frames, or none.
pub(super) fn set_queue(file: &File, on: bool) -> io::Result<()> {
    let flags = if on { libc::IFF_ATTACH_QUEUE } else { libc::IFF_DETACH_QUEUE };
    with_request(file.as_raw_fd(), TUNSETQUEUE, &mut request("", flags))
}

/// Index of an interface.
pub(super) fn index(socket: BorrowedFd<'_>, name: &str) -> io::Result<i32> {
    let mut request = request(name, 0);
    with_request(socket.as_raw_fd(), libc::SIOCGIFINDEX, &mut request)?;
    Ok(request.value)
}

/// Puts an interface on a bridge.
pub(super) fn add_to_bridge(socket: BorrowedFd<'_>, bridge: &str, index: i32) -> io::Result<()> {
    with_request(socket.as_raw_fd(), SIOCBRADDIF, &mut request(bridge, index))
}

/// Turns an interface on.
pub(super) fn set_up(socket: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let mut request = request(name, 0);
    with_request(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &mut request)?;
    request.value |= libc::IFF_UP;
    with_request(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &mut request)
}
