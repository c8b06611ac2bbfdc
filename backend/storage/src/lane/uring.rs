//! The host's io_uring.
//!
//! UNSAFETY: gives the kernel pointers that it uses after the call. They are to the memory of a
//! request and to its vectors, and both stay in their slot until the kernel has said that it is done.
#![allow(unsafe_code, reason = "the kernel reads and writes memory of requests in flight")]

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Mutex};

use evloop::Event;
use io_uring::register::Restriction;
use io_uring::{IoUring, opcode, squeue, types};
use libc::iovec;
use vm_memory::VolatileSlice;

use super::{Done, Transfer, Work, lock};
use crate::{Disk, check_range, total};

/// Requests in flight. More wait for their turn.
const SLOTS: usize = 128;
/// Buffers of one request: the kernel's UIO_MAXIOV.
const BUFFERS_MAX: usize = 1024;

pub(super) struct Uring<W> {
    /// Signalled by the kernel with completions.
    event: Arc<Event>,
    state: Mutex<State<W>>,
}

struct State<W> {
    ring: IoUring,
    slots: Vec<Slot<W>>,
    free: Vec<usize>,
    /// Requests for which there was no slot.
    backlog: VecDeque<W>,
    /// Refused before the kernel saw them.
    refused: Done<W>,
    /// An empty vector with room.
    spare: Done<W>,
}

struct Slot<W> {
    /// In flight while it is there.
    work: Option<W>,
    vectors: Vec<iovec>,
    size_bytes: u64,
}

// SAFETY: the pointers in `vectors` are to memory of `work`, which is `Send`, and are used by the
// kernel only.
unsafe impl<W: Send> Send for Slot<W> {}

impl<W: Work> Uring<W> {
    /// A ring, where the host allows it.
    pub(super) fn new() -> io::Result<Self> {
        let ring = IoUring::builder().setup_r_disabled().build(SLOTS as u32)?;
        let event = Arc::new(Event::new()?);
        ring.submitter().register_eventfd(event.as_fd().as_raw_fd())?;
        // What a ring does is no system call, which a process could be kept from: it says itself that it
        // opens nothing, connects to nothing.
        let codes = [opcode::Readv::CODE, opcode::Writev::CODE, opcode::Fsync::CODE];
        ring.submitter().register_restrictions(&mut codes.map(Restriction::sqe_op))?;
        ring.submitter().register_enable_rings()?;
        let slot = |_| Slot { work: None, vectors: Vec::new(), size_bytes: 0 };
        let state = State {
            ring,
            slots: (0..SLOTS).map(slot).collect(),
            free: (0..SLOTS).collect(),
            backlog: VecDeque::new(),
            refused: Vec::new(),
            spare: Vec::new(),
        };
        Ok(Self { event, state: Mutex::new(state) })
    }

    pub(super) fn event(&self) -> &Arc<Event> {
        &self.event
    }

    /// Takes a request in; returns what is nothing for the kernel.
    pub(super) fn push(&self, work: W, disk: &dyn Disk) -> Option<W> {
        lock(&self.state).push(work, disk)
    }

    /// Shows the kernel what was taken in.
    pub(super) fn submit(&self) {
        let state = lock(&self.state);
        // What the kernel does not take now stays in the queue for the next call; with requests in
        // flight there will be one, and without there is room.
        while let Err(error) = state.ring.submit() {
            if error.kind() != io::ErrorKind::Interrupted {
                break;
            }
        }
        drop(state);
        // Completions from here on signal it again: those before are reaped by the caller.
        self.event.clear();
    }

    /// What is done, and what shall be done again by other means.
    pub(super) fn reap(&self, disk: &dyn Disk) -> (Done<W>, Vec<W>) {
        let mut state = lock(&self.state);
        let mut done = std::mem::take(&mut state.spare);
        done.append(&mut state.refused);
        let mut redo = Vec::new();
        loop {
            let Some(entry) = state.ring.completion().next() else { break };
            let index = entry.user_data() as usize;
            let slot = &mut state.slots[index];
            let size_bytes = slot.size_bytes;
            let work = slot.work.take();
            state.free.push(index);
            let Some(work) = work else { continue };
            match (entry.result(), u64::try_from(entry.result())) {
                (_, Ok(size)) if size == size_bytes => done.push((work, Ok(()))),
                // A part only, or not now: a thread does all of it.
                (_, Ok(_)) => redo.push(work),
                (code, Err(_)) => match -code {
                    libc::EAGAIN | libc::EINTR | libc::ECANCELED | libc::EOPNOTSUPP => {
                        redo.push(work);
                    }
                    code => done.push((work, Err(io::Error::from_raw_os_error(code)))),
                },
            }
        }
        let mut more = false;
        while !state.free.is_empty() {
            let Some(work) = state.backlog.pop_front() else { break };
            more = true;
            redo.extend(state.push(work, disk));
        }
        if more {
            let _ = state.ring.submit();
        }
        (done, redo)
    }

    /// Takes an emptied vector back.
    pub(super) fn recycle(&self, mut done: Done<W>) {
        done.clear();
        lock(&self.state).spare = done;
    }
}

impl<W: Work> State<W> {
    fn push(&mut self, work: W, disk: &dyn Disk) -> Option<W> {
        if work.transfer().is_none() {
            return Some(work);
        }
        let Some(index) = self.free.pop() else {
            self.backlog.push_back(work);
            return None;
        };
        let slot = &mut self.slots[index];
        let work = slot.work.insert(work);
        let entry = match work.transfer().map(|t| entry(t, disk, &mut slot.vectors)) {
            Some(Ok(Some((entry, size_bytes)))) => {
                slot.size_bytes = size_bytes;
                entry
            }
            other => {
                self.free.push(index);
                let work = slot.work.take()?;
                if let Some(Err(error)) = other {
                    self.refused.push((work, Err(error)));
                    return None;
                }
                return Some(work);
            }
        };
        // SAFETY: what the entry points to is in the slot until its completion is reaped; the file
        // is the disk's, which the lane holds, and `Drop` waits for what is in flight.
        let pushed = unsafe { self.ring.submission().push(&entry.user_data(index as u64)) };
        if pushed.is_ok() {
            return None;
        }
        self.free.push(index);
        self.slots[index].work.take()
    }
}

/// The kernel's form of a transfer, and the result that means all of it is done.
fn entry(
    transfer: Transfer<'_>,
    disk: &dyn Disk,
    vectors: &mut Vec<iovec>,
) -> io::Result<Option<(squeue::Entry, u64)>> {
    let fd = |file: &File| types::Fd(file.as_raw_fd());
    let (Transfer::Read(offset, buffers) | Transfer::Write(offset, buffers, _)) = transfer else {
        let Some(file) = disk.file(0, &[]) else { return Ok(None) };
        let flush = opcode::Fsync::new(fd(file)).flags(types::FsyncFlags::DATASYNC);
        return Ok(Some((flush.build(), 0)));
    };
    let size_bytes = total(buffers)?;
    check_range(disk.info().size_bytes, offset, size_bytes)?;
    let possible = buffers.len() <= BUFFERS_MAX && size_bytes <= i32::MAX as u64 && size_bytes > 0;
    let Some(file) = disk.file(offset, buffers).filter(|_| possible) else { return Ok(None) };
    vectors.clear();
    vectors.extend(buffers.iter().map(vector));
    let (at, count) = (vectors.as_ptr(), vectors.len() as u32);
    let entry = match transfer {
        Transfer::Write(_, _, durable) => {
            if disk.info().read_only {
                return Err(io::ErrorKind::ReadOnlyFilesystem.into());
            }
            let flags = if durable { libc::RWF_DSYNC } else { 0 };
            opcode::Writev::new(fd(file), at, count).offset(offset).rw_flags(flags).build()
        }
        _ => opcode::Readv::new(fd(file), at, count).offset(offset).build(),
    };
    Ok(Some((entry, size_bytes)))
}

fn vector(buffer: &VolatileSlice<'_>) -> iovec {
    iovec { iov_base: buffer.ptr_guard_mut().as_ptr().cast(), iov_len: buffer.len() }
}

impl<W> Drop for Uring<W> {
    /// The kernel may not use memory that is gone.
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        while state.slots.iter().any(|slot| slot.work.is_some()) {
            if state.ring.submit_and_wait(1).is_err_and(|e| e.kind() != io::ErrorKind::Interrupted)
            {
                // It cannot be known when the kernel is done: what it may use stays.
                state.slots.drain(..).for_each(std::mem::forget);
                return;
            }
            while let Some(entry) = state.ring.completion().next() {
                state.slots[entry.user_data() as usize].work = None;
            }
        }
    }
}
