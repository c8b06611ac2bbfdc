//! The console (5.3): one port, with a size.

mod spec;
mod state;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock};

use bus::{Section, SectionError};

use crate::runner::lock;
use crate::{Broken, Chain, DeviceType, Handle, Outcome, VirtioDevice};
use spec::*;
use state::ConsoleState;

/// Descriptors of a queue.
const QUEUE_SIZE: u16 = 64;
/// Input that waits for the guest. What does not fit stays with the host.
const INPUT_MAX: usize = 4096;
/// Most output bytes taken of one request; drivers send a page at most. One request could
/// otherwise hold back a pause for 4 GiB of output.
const OUTPUT_MAX: u64 = 1 << 20;
/// Bytes copied at once, on the stack.
const PIECE: usize = 512;

/// Takes a console's output. It may block: the guest then waits.
pub type ConsoleOutput = Box<dyn Fn(&[u8]) + Send + Sync>;

/// What a console is connected with.
pub struct ConsoleConfig {
    /// Where output goes.
    pub output: ConsoleOutput,
    /// Called when [`Console::input`] has refused bytes and there is room again.
    pub room: Box<dyn Fn() + Send + Sync>,
    /// Columns and rows.
    pub size: (u16, u16),
}

/// A console.
pub struct Console {
    // Wiring.
    output: ConsoleOutput,
    room: Box<dyn Fn() + Send + Sync>,
    handle: OnceLock<Handle>,
    // State.
    state: Mutex<State>,
}

struct State {
    size: (u16, u16),
    input: VecDeque<u8>,
    /// Bytes were refused: tell when there is room.
    refused: bool,
}

impl Console {
    /// A console with nothing typed yet.
    pub fn new(config: ConsoleConfig) -> Arc<Self> {
        let ConsoleConfig { output, room, size } = config;
        let state = State { size, input: VecDeque::new(), refused: false };
        Arc::new(Self { output, room, handle: OnceLock::new(), state: Mutex::new(state) })
    }

    /// Types bytes. Returns how many were taken; the rest is to be offered again after
    /// [`ConsoleConfig::room`] was called.
    pub fn input(&self, bytes: &[u8]) -> usize {
        let mut state = lock(&self.state);
        let taken = bytes.len().min(INPUT_MAX - state.input.len());
        state.input.extend(&bytes[..taken]);
        state.refused = taken < bytes.len();
        drop(state);
        if let Some(handle) = self.handle.get() {
            handle.kick(RECEIVE);
        }
        taken
    }

    /// Tells the guest that the terminal has another size.
    pub fn resize(&self, columns: u16, rows: u16) {
        lock(&self.state).size = (columns, rows);
        if let Some(handle) = self.handle.get() {
            handle.config_changed();
        }
    }

    fn receive(&self, chain: &Chain<'_>) -> Result<Outcome, Broken> {
        let mut done = 0;
        let mut room = false;
        loop {
            let mut piece = [0; PIECE];
            let mut state = lock(&self.state);
            if state.input.is_empty() && done == 0 {
                return Ok(Outcome::Wait);
            }
            let left = chain.writable.size() - done;
            let size = (PIECE.min(state.input.len()) as u64).min(left) as usize;
            for (to, byte) in piece.iter_mut().zip(state.input.drain(..size)) {
                *to = byte;
            }
            room |= size > 0 && std::mem::take(&mut state.refused);
            drop(state);
            if size == 0 {
                break;
            }
            let wild = |_| Broken("gave the console a buffer that is not RAM");
            chain.writable.write(done, &piece[..size]).map_err(wild)?;
            done += size as u64;
        }
        if room {
            (self.room)();
        }
        Ok(Outcome::Done(done as u32)) // at most INPUT_MAX a round, and rounds end when empty
    }

    fn transmit(&self, chain: &Chain<'_>) -> Result<Outcome, Broken> {
        let end = chain.readable.size().min(OUTPUT_MAX);
        let mut at = 0;
        while at < end {
            let mut piece = [0; PIECE];
            let piece = &mut piece[..(end - at).min(PIECE as u64) as usize];
            let wild = |_| Broken("sent the console a buffer that is not RAM");
            chain.readable.read(at, piece).map_err(wild)?;
            (self.output)(piece);
            at += piece.len() as u64;
        }
        Ok(Outcome::Done(0))
    }
}

impl VirtioDevice for Console {
    fn device_type(&self) -> DeviceType {
        DeviceType::Console
    }

    fn features(&self) -> u64 {
        F_SIZE | F_EMERG_WRITE
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE; 2]
    }

    fn config_read(&self, offset: u64, data: &mut [u8]) {
        let (columns, rows) = lock(&self.state).size;
        let mut config = [0; CONFIG_SIZE];
        config[COLS..ROWS].copy_from_slice(&columns.to_le_bytes());
        config[ROWS..MAX_NR_PORTS].copy_from_slice(&rows.to_le_bytes());
        config[MAX_NR_PORTS] = 1;
        let from = usize::try_from(offset).ok().and_then(|at| config.get(at..)).unwrap_or_default();
        for (to, byte) in data.iter_mut().zip(from) {
            *to = *byte;
        }
    }

    fn config_write(&self, offset: u64, data: &[u8]) {
        if let (true, [character, ..]) = (offset == EMERG_WR as u64, data) {
            (self.output)(&[*character]);
        }
    }

    fn attach(&self, handle: Handle) {
        // A console belongs to one transport; a second attachment would be the board's mistake.
        let attached = self.handle.set(handle);
        assert!(attached.is_ok(), "a console is attached once");
    }

    fn start(&self, _features: u64) {}

    fn handle(&self, queue: usize, chain: &Chain<'_>) -> Result<Outcome, Broken> {
        match queue {
            RECEIVE => self.receive(chain),
            TRANSMIT => self.transmit(chain),
            _ => unreachable!("a console has two queues"),
        }
    }

    fn reset(&self) {
        let mut state = lock(&self.state);
        let State { size: _, input, refused } = &mut *state;
        input.clear();
        let room = std::mem::take(refused);
        drop(state);
        if room {
            (self.room)();
        }
    }

    fn save(&self) -> Section {
        let State { size: (columns, rows), input, refused: _ } = &*lock(&self.state);
        let input = input.iter().copied().collect();
        Section::encode(&ConsoleState { columns: *columns, rows: *rows, input })
    }

    fn restore(&self, section: &Section) -> Result<(), SectionError> {
        let ConsoleState { columns, rows, input } = section.decode()?;
        if input.len() > INPUT_MAX {
            return Err(ConsoleState::impossible("more input than a console holds".into()));
        }
        let mut state = lock(&self.state);
        state.size = (columns, rows);
        state.input = input.into();
        Ok(())
    }
}
