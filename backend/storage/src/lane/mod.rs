//! A lane: the requests of one queue of a device on their way to a disk and back.
//!
//! Requests of a lane run side by side and end in any order. Those that are the file's own bytes
//! go to the host's io_uring, when it has one; the rest, and all on hosts without, to threads.
//! What the host has shown to be quick with is done on the spot, by the thread that brings it: most data
//! is in the host's page cache, and waking a thread takes longer. Rings read what is there on the spot
//! themselves, but leave writes to threads of the kernel's.
//!
//! *Locks*: a lane's are leaves; none is held while requests are given back.

mod patience;
mod threads;
mod uring;

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use evloop::{EventLoop, Interest, Registration};
use vm_memory::VolatileSlice;

use crate::{Disk, total};
use patience::Patience;
use threads::Threads;
use uring::Uring;

/// A request that needs nothing but the bytes of a file.
#[derive(Clone, Copy)]
pub enum Transfer<'a> {
    /// Fills the buffers from this offset on.
    Read(u64, &'a [VolatileSlice<'a>]),
    /// Writes the buffers from this offset on; it shall survive the host if the last is true.
    Write(u64, &'a [VolatileSlice<'a>], bool),
    /// Makes what was written survive the host.
    Flush,
}

impl Transfer<'_> {
    /// Does it here and now.
    ///
    /// # Errors
    /// As the disk's methods.
    pub fn perform(&self, disk: &dyn Disk) -> io::Result<()> {
        match *self {
            Self::Read(offset, buffers) => disk.read(offset, buffers),
            Self::Write(offset, buffers, durable) => {
                disk.write(offset, buffers)?;
                if durable { disk.flush() } else { Ok(()) }
            }
            Self::Flush => disk.flush(),
        }
    }
}

/// A request. Its buffers are the same memory whenever they are asked for.
pub trait Work: Send + 'static {
    /// What it is, if it is a transfer.
    fn transfer(&self) -> Option<Transfer<'_>>;

    /// Does what is no transfer.
    ///
    /// # Errors
    /// As the disk's methods.
    fn perform(&self, disk: &dyn Disk) -> io::Result<()>;
}

fn perform<W: Work>(work: &W, disk: &dyn Disk) -> io::Result<()> {
    work.transfer().map_or_else(|| work.perform(disk), |transfer| transfer.perform(disk))
}

fn size_bytes<W: Work>(work: &W) -> u64 {
    match work.transfer() {
        Some(Transfer::Read(_, buffers) | Transfer::Write(_, buffers, _)) => {
            total(buffers).unwrap_or(u64::MAX)
        }
        Some(Transfer::Flush) | None => 0,
    }
}

/// Requests that are done, and how they went.
pub type Done<W> = Vec<(W, io::Result<()>)>;

type OnDone<W> = dyn Fn(&mut Done<W>) + Send + Sync;

/// How a lane's requests run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One after the other, by who brings them.
    Inline,
    /// On threads.
    Threads,
    /// By the host's kernel.
    Uring,
}

/// A lane.
pub struct Lane<W: Work> {
    shared: Arc<Shared<W>>,
    _registration: Option<Registration>,
}

struct Shared<W: Work> {
    // Fixed configuration.
    inline: bool,
    // Wiring.
    disk: Arc<dyn Disk>,
    done: Box<OnDone<W>>,
    // State.
    threads: Threads<W>,
    uring: Option<Uring<W>>,
    /// For who submits.
    here: Mutex<VecDeque<W>>,
    patience: Patience,
    /// An empty vector with room.
    spare: Mutex<Done<W>>,
    in_flight: AtomicUsize,
    idle: (Mutex<()>, Condvar),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<W: Work> Lane<W> {
    /// A lane to `disk`. Requests come back through `done`, on any thread, and stay in the vector
    /// only to be dropped. Without `of`, a loop to wait for the host's kernel on, every request is
    /// done by who brings it.
    pub fn new(
        disk: Arc<dyn Disk>,
        of: Option<&EventLoop>,
        done: impl Fn(&mut Done<W>) + Send + Sync + 'static,
    ) -> Self {
        let bytes = disk.file(0, &[]).is_some();
        let uring = of.filter(|_| bytes).and_then(|_| Uring::new().ok());
        let shared = Arc::new(Shared {
            inline: of.is_none(),
            disk,
            done: Box::new(done),
            threads: Threads::default(),
            uring,
            here: Mutex::default(),
            patience: Patience::default(),
            spare: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            idle: Default::default(),
        });
        let registration = of.zip(shared.uring.as_ref()).map(|(of, uring)| {
            let (event, weak) = (uring.event().clone(), Arc::downgrade(&shared));
            of.add(uring.event().clone(), Interest::Read, move || {
                event.clear();
                if let Some(shared) = Weak::upgrade(&weak) {
                    shared.reap();
                }
            })
        });
        match registration.transpose() {
            Ok(registration) => Self { shared, _registration: registration },
            Err(_) => Self { shared: Shared::without_uring(shared), _registration: None },
        }
    }

    /// How its requests run.
    pub fn kind(&self) -> Kind {
        match &self.shared.uring {
            _ if self.shared.inline => Kind::Inline,
            Some(_) => Kind::Uring,
            None => Kind::Threads,
        }
    }

    /// Requests will be over when [`Lane::submit`] returns, as far as can be known.
    pub fn is_prompt(&self) -> bool {
        self.shared.patience.lasts() && !self.shared.disk.may_wait()
    }

    /// Takes a request in. It may begin with the next [`Lane::submit`] only.
    pub fn push(&self, work: W) {
        let shared = &self.shared;
        shared.in_flight.fetch_add(1, Ordering::AcqRel);
        if shared.inline || shared.at_hand(&work) {
            lock(&shared.here).push_back(work);
            return;
        }
        let left = match &shared.uring {
            Some(uring) => uring.push(work, &*shared.disk),
            None => Some(work),
        };
        if let Some(work) = left {
            shared.threads.push(work);
        }
    }

    /// Has what was taken in begin. Requests may come back meanwhile: to be called without locks.
    pub fn submit(&self) {
        let shared = &self.shared;
        if let Some(uring) = &shared.uring {
            uring.submit();
            shared.reap();
        }
        let mut done = std::mem::take(&mut *lock(&shared.spare));
        while let Some(work) = self.next_here() {
            let size_bytes = size_bytes(&work);
            let begin = Instant::now();
            let result = perform(&work, &*shared.disk);
            shared.patience.took(begin.elapsed(), size_bytes);
            done.push((work, result));
        }
        shared.give_back(&mut done);
        *lock(&shared.spare) = done;
    }

    /// The next request for who submits: one that is for nobody else, or that no thread of the host's
    /// can be had for. The others are with threads then.
    fn next_here(&self) -> Option<W> {
        let shared = &self.shared;
        if shared.inline || shared.patience.lasts() {
            let work = lock(&shared.here).pop_front();
            return work.or_else(|| shared.threads.start(&self.shared));
        }
        lock(&shared.here).drain(..).for_each(|work| shared.threads.push(work));
        shared.threads.start(&self.shared)
    }

    /// Waits until all requests have come back. Nothing may be pushed meanwhile, and the caller
    /// may not be the loop's thread.
    pub fn drain(&self) {
        if self.shared.in_flight.load(Ordering::Acquire) == 0 {
            return;
        }
        self.submit();
        let shared = &self.shared;
        shared.disk.hurry(true);
        let mut guard = lock(&shared.idle.0);
        while shared.in_flight.load(Ordering::Acquire) != 0 {
            guard = shared.idle.1.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        drop(guard);
        shared.disk.hurry(false);
    }
}

impl<W: Work> Drop for Lane<W> {
    fn drop(&mut self) {
        self.shared.disk.hurry(true);
        self.shared.threads.stop();
        self.shared.disk.hurry(false);
    }
}

impl<W: Work> Shared<W> {
    /// The same where nobody could wait for the kernel.
    fn without_uring(shared: Arc<Self>) -> Arc<Self> {
        let mut shared = shared;
        if let Some(shared) = Arc::get_mut(&mut shared) {
            shared.uring = None;
        }
        shared
    }

    fn reap(self: &Arc<Self>) {
        let Some(uring) = &self.uring else { return };
        let (mut done, redo) = uring.reap(&*self.disk);
        self.give_back(&mut done);
        uring.recycle(done);
        if !redo.is_empty() {
            redo.into_iter().for_each(|work| self.threads.push(work));
            while let Some(work) = self.threads.start(self) {
                let result = perform(&work, &*self.disk);
                self.give_back(&mut vec![(work, result)]);
            }
        }
    }

    /// It is nothing that waits for the host, as far as can be known, and rings would have it wait.
    fn at_hand(&self, work: &W) -> bool {
        let short = match work.transfer() {
            Some(Transfer::Read(..)) => self.uring.is_none(),
            Some(Transfer::Write(_, _, durable)) => !durable,
            Some(Transfer::Flush) | None => false,
        };
        short && !self.disk.may_wait() && self.patience.for_next()
    }

    fn give_back(&self, done: &mut Done<W>) {
        let count = done.len();
        if count == 0 {
            return;
        }
        (self.done)(done);
        done.clear();
        if self.in_flight.fetch_sub(count, Ordering::AcqRel) == count {
            drop(lock(&self.idle.0));
            self.idle.1.notify_all();
        }
    }
}

#[cfg(test)]
mod tests;
