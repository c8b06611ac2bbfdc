//! Requests of 4 KiB to a disk, past the page cache: one after the other, and many at a time.
//!
//! UNSAFETY: Linux' asynchronous requests are system calls with pointers, which the C library does not wrap.
#![allow(unsafe_code, reason = "the kernel is given pointers to memory that a queue owns")]

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use anyhow::ensure;

use super::{Made, Place};
use crate::random::Random;

/// Requests that are on their way at a time, where there are many; also those of a round.
pub const MANY: u64 = 32;

const BYTES: usize = 4096;
const READ: u16 = 0; // IOCB_CMD_PREAD
const WRITE: u16 = 1; // IOCB_CMD_PWRITE

/// What is done, and where.
#[derive(Clone, Copy)]
pub struct Load {
    pub write: bool,
    pub random: bool,
    pub many: bool,
}

/// `struct iocb` of Linux' `aio_abi.h`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Request {
    data: u64,
    key: u32,
    rw_flags: u32,
    opcode: u16,
    priority: i16,
    fd: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    event_fd: u32,
}

/// `struct io_event`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Ended {
    data: u64,
    request: u64,
    result: i64,
    result2: i64,
}

/// A page of memory, as requests past the page cache need.
#[repr(align(4096))]
struct Page([u8; BYTES]);

struct Disk {
    file: File,
    blocks: usize,
    random: Option<Random>,
    next: usize,
}

impl Disk {
    fn place(&mut self) -> u64 {
        let block = match &mut self.random {
            Some(random) => random.below(self.blocks),
            None => {
                self.next = (self.next + 1) % self.blocks;
                self.next
            }
        };
        (block * BYTES) as u64
    }
}

/// Work on the disk, if there is one.
pub fn disk(place: &Place, load: Load) -> Made {
    let Some(path) = &place.disk else { return Ok(None) };
    let mut file = OpenOptions::new();
    let file = file.read(true).write(true).custom_flags(libc::O_DIRECT);
    let mut file = file.open(path)?;
    let blocks = file.seek(SeekFrom::End(0))? as usize / BYTES;
    ensure!(blocks > 0, "a disk without room");
    let random = load.random.then(Random::new);
    let disk = Disk { file, blocks, random, next: 0 };
    if load.many { many(disk, load.write) } else { one(disk, load.write) }
}

fn one(mut disk: Disk, write: bool) -> Made {
    let mut page = Box::new(Page([0x5a; BYTES]));
    Ok(Some(Box::new(move |rounds| {
        (0..rounds).fold(0, |sum, _| {
            let (fd, at) = (disk.file.as_raw_fd(), disk.place() as i64);
            let page = page.0.as_mut_ptr().cast();
            // SAFETY: the page is ours and as large as it is said.
            let done = unsafe {
                match write {
                    true => libc::pwrite(fd, page, BYTES, at),
                    false => libc::pread(fd, page, BYTES, at),
                }
            };
            sum + u64::from(done == BYTES as isize)
        })
    })))
}

fn many(mut disk: Disk, write: bool) -> Made {
    let mut context = 0u64;
    // SAFETY: a context that is zero is filled in.
    let made = unsafe { libc::syscall(libc::SYS_io_setup, MANY, &raw mut context) };
    if made != 0 {
        return Err(io::Error::last_os_error().into());
    }
    let mut pages: Vec<Page> = (0..MANY).map(|_| Page([0x5a; BYTES])).collect();
    let mut requests = [Request::default(); MANY as usize];
    let mut ended = [Ended::default(); MANY as usize];
    Ok(Some(Box::new(move |rounds| {
        let (mut begun, mut done, mut good) = (0, 0, 0);
        let mut free: Vec<usize> = (0..MANY as usize).collect();
        while done < rounds * MANY {
            let mut batch = Vec::with_capacity(MANY as usize);
            while let Some(slot) = free.pop_if(|_| begun < rounds * MANY) {
                requests[slot] = Request {
                    data: slot as u64,
                    opcode: if write { WRITE } else { READ },
                    fd: disk.file.as_raw_fd() as u32,
                    buffer: pages[slot].0.as_mut_ptr() as u64,
                    bytes: BYTES as u64,
                    offset: disk.place() as i64,
                    ..Request::default()
                };
                batch.push(&raw mut requests[slot]);
                begun += 1;
            }
            // SAFETY: requests and their pages stay where they are until they have ended.
            let count = unsafe {
                let submit = libc::SYS_io_submit;
                assert_eq!(
                    libc::syscall(submit, context, batch.len(), batch.as_ptr()),
                    batch.len() as i64,
                    "requests are refused"
                );
                let none = std::ptr::null::<libc::timespec>();
                let get = libc::SYS_io_getevents;
                libc::syscall(get, context, 1, MANY, ended.as_mut_ptr(), none)
            };
            for end in &ended[..usize::try_from(count).unwrap_or(0)] {
                free.push(end.data as usize);
                good += u64::from(end.result == BYTES as i64);
                done += 1;
            }
        }
        good
    })))
}
