//! One epoll loop: descriptors with handlers, run on one thread, stopped from any.
//!
//! An [`EventLoop`] calls a descriptor's handler when the descriptor is ready. [`Event`] is a
//! counter another thread (or the kernel) signals; [`Alarm`] becomes readable at a time. To serve
//! timers that others keep: add an `Alarm` whose handler fires what is due, an `Event` whose
//! handler looks at the next deadline, and signal the event when that deadline moves.
//!
//! *Invariants*: handlers run on the loop's thread only, one at a time. A handler may add and
//! remove registrations, its own included. Level-triggered throughout: a handler that leaves its
//! descriptor ready is called again, so nothing is lost.
//!
//! *Locks*: the table's lock is a leaf and is never held while a handler runs.
//!
//! What this crate may not know: what a descriptor means.

mod descriptors;
mod signals;

pub use descriptors::{Alarm, Event};
pub use signals::{Signal, Signals};

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

/// Ready descriptors taken from the kernel at once. More are taken in the next round.
const BATCH: usize = 16;
/// The loop's own event. Registrations count from 1.
const STOP: u64 = 0;

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Bytes to read, or the other end's hang-up.
    Read,
    /// Room to write, or the other end's hang-up.
    Write,
}

type Handler = Arc<Mutex<dyn FnMut() + Send>>;

struct Entry {
    /// Keeps the descriptor open for as long as the kernel knows it.
    fd: Arc<dyn AsFd + Send + Sync>,
    handler: Handler,
}

struct Shared {
    epoll: OwnedFd,
    stop: Event,
    stopping: AtomicBool,
    next: AtomicU64,
    entries: Mutex<BTreeMap<u64, Entry>>,
}

/// The loop. Clones are the same loop.
#[derive(Clone)]
pub struct EventLoop(Arc<Shared>);

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl EventLoop {
    /// A loop that waits for nothing yet.
    ///
    /// # Errors
    /// When the host has no descriptors left.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let stop = Event::new()?;
        epoll::add(&epoll, &stop, EventData::new_u64(STOP), EventFlags::IN)?;
        Ok(Self(Arc::new(Shared {
            epoll,
            stop,
            stopping: AtomicBool::new(false),
            next: AtomicU64::new(STOP + 1),
            entries: Mutex::default(),
        })))
    }

    /// Has `handler` called whenever `fd` is ready, until the registration is dropped.
    ///
    /// # Errors
    /// When `fd` cannot be waited for (a regular file), or is registered already.
    pub fn add(
        &self,
        fd: Arc<dyn AsFd + Send + Sync>,
        interest: Interest,
        handler: impl FnMut() + Send + 'static,
    ) -> io::Result<Registration> {
        let token = self.0.next.fetch_add(1, Ordering::Relaxed);
        let flags = match interest {
            Interest::Read => EventFlags::IN,
            Interest::Write => EventFlags::OUT,
        };
        let mut entries = lock(&self.0.entries);
        epoll::add(&self.0.epoll, fd.as_fd(), EventData::new_u64(token), flags)?;
        entries.insert(token, Entry { fd, handler: Arc::new(Mutex::new(handler)) });
        Ok(Registration { of: Arc::downgrade(&self.0), token })
    }

    /// Waits and calls handlers until [`EventLoop::stop`].
    ///
    /// # Errors
    /// When the host refuses to wait.
    pub fn run(&self) -> io::Result<()> {
        let mut ready = Vec::with_capacity(BATCH);
        while !self.0.stopping.load(Ordering::Acquire) {
            ready.clear();
            match epoll::wait(&self.0.epoll, spare_capacity(&mut ready), None) {
                Err(rustix::io::Errno::INTR) => continue,
                result => result?,
            };
            for event in &ready {
                // One that an earlier handler of this round removed is gone from the table.
                let handler =
                    lock(&self.0.entries).get(&event.data.u64()).map(|e| e.handler.clone());
                if let Some(handler) = handler {
                    lock(&handler)();
                }
            }
        }
        Ok(())
    }

    /// Makes [`EventLoop::run`] return, now and ever after. From any thread, handlers included.
    pub fn stop(&self) {
        self.0.stopping.store(true, Ordering::Release);
        self.0.stop.signal();
    }

    /// Runs the loop on a thread of this name (at most 15 bytes are seen by the host).
    ///
    /// # Errors
    /// When the host has no threads left.
    pub fn spawn(&self, name: &str) -> io::Result<LoopThread> {
        let of = self.clone();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || of.run())?;
        Ok(LoopThread { of: self.clone(), thread: Some(thread) })
    }
}

/// A descriptor's place in a loop. Dropping it takes the descriptor out; a call of its handler
/// that is on its way on the loop's thread may still finish.
pub struct Registration {
    of: Weak<Shared>,
    token: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let Some(of) = self.of.upgrade() else { return };
        let entry = lock(&of.entries).remove(&self.token);
        if let Some(entry) = &entry {
            // It can only fail when the descriptor is not there, which is what is wanted.
            let _ = epoll::delete(&of.epoll, entry.fd.as_fd());
        }
    }
}

/// A thread that runs a loop. Dropping it stops the loop and waits for the thread.
pub struct LoopThread {
    of: EventLoop,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Drop for LoopThread {
    fn drop(&mut self) {
        self.of.stop();
        if let Some(thread) = self.thread.take() {
            // A handler may own the thread's handle: a thread cannot wait for itself.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

#[cfg(test)]
mod tests;
