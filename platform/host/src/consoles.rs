//! Guests' serial ports: what they printed last, and who reads on.
//!
//! One thread takes what all guests print. What nobody has read yet waits in memory, the last of it only; while
//! no daemon is there, the FIFO and the VM's process keep some of it.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use evloop::{EventLoop, Interest, Registration};
use model::VmId;
use rustix::fs::OFlags;

use crate::folder::Folder;

/// Of what a guest printed, so much is kept.
const KEPT_BYTES: usize = 128 << 10;
const CHUNK_BYTES: usize = 4096;

#[derive(Default)]
struct State {
    kept: VecDeque<u8>,
    /// Bytes printed before what is kept.
    before: u64,
    wakers: Vec<Waker>,
    is_closed: bool,
}

impl State {
    fn add(&mut self, bytes: &[u8]) {
        self.kept.extend(bytes);
        let surplus = self.kept.len().saturating_sub(KEPT_BYTES);
        self.kept.drain(..surplus);
        self.before += surplus as u64;
        self.wake();
    }

    fn wake(&mut self) {
        self.wakers.drain(..).for_each(Waker::wake);
    }
}

/// A guest's serial port.
#[derive(Clone)]
pub struct Console {
    state: Arc<Mutex<State>>,
    folder: Folder,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Console {
    /// What was printed from `at` on, counted in bytes, and where that ends. What is no longer kept is left out.
    pub fn read(&self, at: u64) -> (Vec<u8>, u64) {
        let state = lock(&self.state);
        let end = state.before + state.kept.len() as u64;
        let skip = at.saturating_sub(state.before).min(state.kept.len() as u64) as usize;
        (state.kept.iter().skip(skip).copied().collect(), end)
    }

    /// As [`Console::read`], when there is something; `None` when there will be no more.
    pub fn poll_read(&self, at: u64, context: &mut Context<'_>) -> Poll<Option<(Vec<u8>, u64)>> {
        let (bytes, end) = self.read(at);
        if !bytes.is_empty() {
            return Poll::Ready(Some((bytes, end)));
        }
        let mut state = lock(&self.state);
        if state.is_closed {
            return Poll::Ready(None);
        }
        if state.before + state.kept.len() as u64 > at {
            context.waker().wake_by_ref();
        }
        // Who waits for other things as well asks again and again.
        if !state.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
            state.wakers.push(context.waker().clone());
        }
        Poll::Pending
    }

    /// Types bytes into the guest, and says how many there was room for.
    ///
    /// # Errors
    /// When the VM has never run, or the host refuses.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut fifo = File::options()
            .write(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(self.folder.console_in())?;
        match fifo.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            result => result,
        }
    }
}

struct Open {
    console: Console,
    _reading: Registration,
}

/// All guests' serial ports.
pub struct Consoles {
    events: EventLoop,
    open: Mutex<BTreeMap<VmId, Open>>,
}

impl Consoles {
    /// Begins to take what guests print.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn new() -> io::Result<Self> {
        let events = EventLoop::new()?;
        let of = events.clone();
        std::thread::Builder::new().name("consoles".into()).spawn(move || {
            // It ends only if the host takes its descriptor away.
            let _ = of.run();
        })?;
        Ok(Self { events, open: Mutex::default() })
    }

    /// Takes what this guest prints from now on.
    pub(crate) fn open(&self, id: VmId, folder: &Folder) -> io::Result<()> {
        let mut open = lock(&self.open);
        if open.contains_key(&id) || !folder.console_out().exists() {
            return Ok(());
        }
        let state = Arc::new(Mutex::new(State::default()));
        let console = Console { state: state.clone(), folder: folder.clone() };
        let fifo = File::options()
            .read(true)
            // Also for writing: without a guest, the FIFO would be ready all the time.
            .write(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(folder.console_out())?;
        let fifo = Arc::new(fifo);
        let source = fifo.clone();
        let handler = move || {
            let mut bytes = [0; CHUNK_BYTES];
            if let Ok(length) = (&*fifo).read(&mut bytes) {
                lock(&state).add(&bytes[..length]);
            }
        };
        let reading = self.events.add(source, Interest::Read, handler)?;
        open.insert(id, Open { console, _reading: reading });
        Ok(())
    }

    /// This guest's.
    pub fn get(&self, id: VmId) -> Option<Console> {
        lock(&self.open).get(&id).map(|open| open.console.clone())
    }

    /// There is no such guest any more.
    pub(crate) fn close(&self, id: VmId) {
        if let Some(open) = lock(&self.open).remove(&id) {
            let mut state = lock(&open.console.state);
            state.is_closed = true;
            state.wake();
        }
    }
}
