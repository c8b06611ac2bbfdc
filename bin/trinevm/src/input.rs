//! From the standard input to a serial port or console, at the pace of the guest.
//!
//! Bytes the guest has no room for wait here. From a terminal, reading goes on meanwhile, because
//! an escape must work when the guest is stuck: what exceeds [`WAITING_MAX`] is dropped, as a
//! serial line would. From a pipe or a file, reading stops until there is room: nothing is lost.
//! At the end of the input the guest is left alone.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use evloop::{Event, EventLoop, Interest, Registration};

use crate::escape::{Escape, Typed};

/// Bytes read at once.
const CHUNK_BYTES: usize = 512;
/// Bytes typed that may wait for the guest.
const WAITING_MAX: usize = 4096;

/// Gives bytes to the guest and says how many it took. When not all, `room` is signalled later.
pub type Offer = Box<dyn Fn(&[u8]) -> usize + Send>;
/// What to do for an escape.
pub type Obey = Box<dyn Fn(Typed) + Send>;

struct State {
    source: Arc<File>,
    /// `None` when the bytes are not typed.
    escape: Option<(Escape, Obey)>,
    waiting: VecDeque<u8>,
    offer: Offer,
    /// The loop cannot wait for it: a file, which is always ready.
    is_file: bool,
    ended: bool,
    reading: Option<Registration>,
}

/// The way of the standard input's bytes, on the I/O loop, for as long as this lives.
pub struct Input {
    /// Kept for their handlers.
    _state: Arc<Mutex<State>>,
    _room: Registration,
}

impl Input {
    /// Takes bytes from `source` to the guest from now on. `room` is what the guest's device
    /// signals. `obey` is for a terminal's escapes.
    ///
    /// # Errors
    /// When the host refuses to wait for `source` or `room`.
    pub fn new(
        of: &EventLoop,
        source: File,
        room: Arc<Event>,
        offer: Offer,
        obey: Option<Obey>,
    ) -> io::Result<Self> {
        let state = Arc::new(Mutex::new(State {
            source: Arc::new(source),
            escape: obey.map(|obey| (Escape::default(), obey)),
            waiting: VecDeque::new(),
            offer,
            is_file: false,
            ended: false,
            reading: None,
        }));
        match listen(of, &state) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                lock(&state).is_file = true;
                room.signal();
            }
            other => other?,
        }
        let (on_room, event, again) = (Arc::downgrade(&state), room.clone(), of.clone());
        let _room = of.add(room, Interest::Read, move || {
            event.clear();
            let Some(state) = on_room.upgrade() else { return };
            let wants_more = lock(&state).room();
            // A pipe that cannot be waited for any more has ended for us.
            if wants_more && listen(&again, &state).is_err() {
                lock(&state).ended = true;
            }
        })?;
        Ok(Self { _state: state, _room })
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for the source.
fn listen(of: &EventLoop, state: &Arc<Mutex<State>>) -> io::Result<()> {
    let source = lock(state).source.clone();
    let on_ready = Arc::downgrade(state);
    let registration = of.add(source, Interest::Read, move || {
        let Some(state) = on_ready.upgrade() else { return };
        let stopped = lock(&state).ready();
        drop(stopped);
    })?;
    lock(state).reading = Some(registration);
    Ok(())
}

impl State {
    /// The source is ready. Returns the registration that is to end.
    fn ready(&mut self) -> Option<Registration> {
        self.read();
        self.give();
        let full = self.escape.is_none() && !self.waiting.is_empty();
        if self.ended || full { self.reading.take() } else { None }
    }

    /// The guest has room. `true` when the source is to be waited for again.
    fn room(&mut self) -> bool {
        self.give();
        while self.is_file && !self.ended && self.waiting.is_empty() {
            self.read();
            self.give();
        }
        let idle = !self.is_file && !self.ended && self.reading.is_none();
        idle && self.waiting.is_empty()
    }

    fn give(&mut self) {
        while !self.waiting.is_empty() {
            let bytes = self.waiting.make_contiguous();
            let taken = (self.offer)(bytes);
            let all = taken == bytes.len();
            self.waiting.drain(..taken);
            if !all {
                break;
            }
        }
    }

    fn read(&mut self) {
        let mut chunk = [0; CHUNK_BYTES];
        let length = match (&*self.source).read(&mut chunk) {
            Ok(0) => {
                self.ended = true;
                return;
            }
            Ok(length) => length,
            Err(error)
                if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) =>
            {
                return;
            }
            // A terminal that has hung up.
            Err(_) => {
                self.ended = true;
                return;
            }
        };
        let Some((escape, obey)) = &mut self.escape else {
            self.waiting.extend(&chunk[..length]);
            return;
        };
        for byte in &chunk[..length] {
            match escape.feed(*byte) {
                Typed::Byte(byte) if self.waiting.len() < WAITING_MAX => {
                    self.waiting.push_back(byte);
                }
                Typed::Byte(_) | Typed::Nothing => {}
                typed => obey(typed),
            }
        }
    }
}

/// The standard input, as a file of its own.
///
/// # Errors
/// When it is closed.
pub fn standard_input() -> io::Result<File> {
    Ok(File::from(io::stdin().as_fd().try_clone_to_owned()?))
}

#[cfg(test)]
mod tests;
