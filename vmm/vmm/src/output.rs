//! Console output on its way to a reader who may be slow, or gone.
//!
//! *Policy*: a vCPU puts bytes into a buffer of [`BUFFER_BYTES`]; a thread of its own writes them
//! out and may block for as long as it likes. When the buffer is full, a vCPU waits for room, at
//! most [`PATIENCE`] — that keeps a busy terminal lossless — and then the output is *stalled*:
//! bytes are thrown away and counted, without waiting, until the reader has taken something. A
//! reader that has gone (EPIPE, EIO) is not waited for at all.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::VmError;

/// A screenful of a thousand lines: what a guest prints between two looks of a reader.
const BUFFER_BYTES: usize = 64 * 1024;
/// What a vCPU waits for a reader. A guest that is stopped so long notices no timeout of its own.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long the writer gathers bytes: a UART gives them one by one, and a wake-up and a system
/// call for each would cost more than the guest's own work. Nobody sees a millisecond.
const LINGER: Duration = Duration::from_millis(1);
/// Bytes written at once, and all that is on its way besides the buffer.
const CHUNK_BYTES: usize = 4096;
/// The thread does nothing but copy.
const STACK_BYTES: usize = 64 * 1024;

#[derive(Default)]
struct State {
    buffer: VecDeque<u8>,
    /// Bytes are being written.
    writing: bool,
    /// Someone waits for all to be written: do not linger.
    hurry: bool,
    /// The reader has taken nothing for too long.
    stalled: bool,
    /// The reader has gone, or nothing is to be written any more.
    gone: bool,
    closed: bool,
    lost_bytes: u64,
}

struct Shared {
    state: Mutex<State>,
    filled: Condvar,
    drained: Condvar,
}

/// A console's output. Dropping it does not wait for the reader: see [`Output::flush`].
pub struct Output(Arc<Shared>);

impl Output {
    /// Output that goes to `writer`.
    ///
    /// # Errors
    /// When the host has no thread left.
    pub fn new(writer: impl Write + Send + 'static) -> Result<Self, VmError> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                buffer: VecDeque::with_capacity(BUFFER_BYTES),
                ..State::default()
            }),
            filled: Condvar::new(),
            drained: Condvar::new(),
        });
        let of = shared.clone();
        std::thread::Builder::new()
            .name("output".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || of.write_out(writer))
            .map_err(|source| VmError::NoThread { name: "console output", source })?;
        Ok(Self(shared))
    }

    /// Takes bytes on. It waits for a slow reader at most once, then it throws bytes away.
    pub fn put(&self, bytes: &[u8]) {
        let mut state = self.0.lock();
        if state.buffer.is_empty() {
            self.0.filled.notify_one();
        }
        let mut rest = bytes;
        loop {
            if state.gone || state.stalled {
                state.lost_bytes += rest.len() as u64;
                return;
            }
            let room = BUFFER_BYTES - state.buffer.len();
            let (now, later) = rest.split_at(room.min(rest.len()));
            state.buffer.extend(now);
            rest = later;
            if rest.is_empty() {
                return;
            }
            self.0.filled.notify_one();
            let full = |s: &mut State| s.buffer.len() == BUFFER_BYTES && !s.gone;
            let waited = self.0.drained.wait_timeout_while(state, PATIENCE, full);
            let (guard, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = guard;
            state.stalled |= timeout.timed_out();
        }
    }

    /// Waits until all is written, for at most this long. `false` when it is not.
    pub fn flush(&self, limit: Duration) -> bool {
        let mut state = self.0.lock();
        state.hurry = true;
        self.0.filled.notify_one();
        let busy = |s: &mut State| (s.writing || !s.buffer.is_empty()) && !s.gone;
        let waited = self.0.drained.wait_timeout_while(state, limit, busy);
        let (mut state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        state.hurry = false;
        !timeout.timed_out() && !state.gone
    }

    /// Bytes thrown away.
    pub fn lost_bytes(&self) -> u64 {
        self.0.lock().lost_bytes
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.filled.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_out(&self, mut writer: impl Write) {
        let mut chunk = [0; CHUNK_BYTES];
        while let Some(length) = self.next_chunk(&mut chunk) {
            let result = write_patiently(&mut writer, &chunk[..length]);
            let mut state = self.lock();
            state.writing = false;
            match result {
                Ok(()) => state.stalled = false,
                Err(_) => {
                    state.gone = true;
                    state.lost_bytes += (state.buffer.len() + length) as u64;
                    state.buffer.clear();
                }
            }
            self.drained.notify_all();
        }
    }

    /// Waits for bytes, gathers more for a moment, and takes them; `None` at the end.
    fn next_chunk(&self, chunk: &mut [u8; CHUNK_BYTES]) -> Option<usize> {
        let idle = |s: &mut State| s.buffer.is_empty() && !s.closed;
        let state = self.filled.wait_while(self.lock(), idle);
        let state = state.unwrap_or_else(PoisonError::into_inner);
        let few = |s: &mut State| s.buffer.len() < CHUNK_BYTES && !s.hurry && !s.closed;
        let waited = self.filled.wait_timeout_while(state, LINGER, few);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let length = state.buffer.len().min(CHUNK_BYTES);
        for (to, from) in chunk.iter_mut().zip(state.buffer.drain(..length)) {
            *to = from;
        }
        state.writing = length > 0;
        self.drained.notify_all();
        (length > 0).then_some(length)
    }
}

/// A descriptor someone else has made non-blocking is waited for all the same.
fn write_patiently(writer: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match writer.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(error),
        }
    }
    writer.flush()
}

#[cfg(test)]
mod tests;
