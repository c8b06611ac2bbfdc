//! Reads and writes between a file and memory a guest may change at the same time.
//!
//! UNSAFETY: hands the host's kernel pointers to guest memory. Rust's own vectored calls want
//! references, which promise that nobody else writes there; a guest promises nothing.
#![allow(unsafe_code, reason = "the kernel is given raw pointers to guest memory")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use libc::{c_int, iovec, off64_t, ssize_t};
use vm_memory::VolatileSlice;

/// Buffers of one system call: the kernel's UIO_MAXIOV. Longer lists are several calls.
const BUFFERS_MAX: usize = 1024;
/// Buffers of a common request: so many need no allocation.
const BUFFERS_FEW: usize = 16;

/// Bytes of zeroes written at once.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// Writes zeroes, where the host cannot make holes.
pub(crate) fn write_zeroes(file: &File, offset: u64, size_bytes: u64) -> io::Result<()> {
    let (mut at, end) = (offset, offset + size_bytes);
    while at < end {
        let part = &ZEROES[..ZEROES.len().min(usize::try_from(end - at).unwrap_or(usize::MAX))];
        match rustix::io::retry_on_intr(|| rustix::io::pwrite(file, part, at))? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            done => at += done as u64,
        }
    }
    Ok(())
}

type Call = unsafe extern "C" fn(c_int, *const iovec, c_int, off64_t) -> ssize_t;

pub(crate) fn read(file: &File, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
    transfer(file, offset, buffers, libc::preadv64, io::ErrorKind::UnexpectedEof)
}

pub(crate) fn write(file: &File, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
    transfer(file, offset, buffers, libc::pwritev64, io::ErrorKind::WriteZero)
}

fn transfer(
    file: &File,
    mut offset: u64,
    buffers: &[VolatileSlice<'_>],
    call: Call,
    ended: io::ErrorKind,
) -> io::Result<()> {
    for buffers in buffers.chunks(BUFFERS_MAX) {
        let none = iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        let (mut few, mut many);
        let vectors = if buffers.len() <= BUFFERS_FEW {
            few = [none; BUFFERS_FEW];
            &mut few[..buffers.len()]
        } else {
            many = vec![none; buffers.len()];
            many.as_mut_slice()
        };
        for (vector, buffer) in vectors.iter_mut().zip(buffers) {
            *vector =
                iovec { iov_base: buffer.ptr_guard_mut().as_ptr().cast(), iov_len: buffer.len() };
        }
        let mut left = skip_done(vectors, 0);
        while !left.is_empty() {
            let at = off64_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
            // SAFETY: each vector is the memory of a buffer in `buffers`, which the caller keeps
            // mapped until we return; there are at most `BUFFERS_MAX` of them.
            let done = unsafe { call(file.as_raw_fd(), left.as_ptr(), left.len() as c_int, at) };
            let done = match usize::try_from(done) {
                Ok(0) => return Err(ended.into()),
                Ok(done) => done,
                Err(_) => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => continue,
                    error => return Err(error),
                },
            };
            offset += done as u64;
            left = skip_done(left, done);
        }
    }
    Ok(())
}

/// What is left after `done` bytes; empty vectors are done.
fn skip_done(mut vectors: &mut [iovec], mut done: usize) -> &mut [iovec] {
    while let Some(first) = vectors.first_mut() {
        if done < first.iov_len {
            first.iov_base = first.iov_base.cast::<u8>().wrapping_add(done).cast();
            first.iov_len -= done;
            break;
        }
        done -= first.iov_len;
        vectors = &mut vectors[1..];
    }
    vectors
}
