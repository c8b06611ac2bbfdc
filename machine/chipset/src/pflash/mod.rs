//! Parallel NOR flash with Intel's command set, one byte wide, no block of it locked.
//!
//! The array is guest memory. While reads are of the array it is mapped for reading, and only writes
//! come here; while they are of something else, all accesses do. Firmware switches twice for each
//! run of bytes it programs, and a change of the map costs more than many reads: the array is
//! mapped again only when `READS_BEFORE_SHOWN` reads of it have come here.
//!
//! Deviation: clearing the status clears "ready" too, until the next operation. OVMF knows flash
//! from ROM by that, since QEMU's does so.
//!
//! *Locks*: the device's, then the sink's.

pub mod spec;
mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};

use bus::{BusDevice, Device, Saved, Section, SectionError};
use guest_memory::{GuestMemory, RamOffset};

use crate::lock;
use crate::ports::write_bytes;
use spec::*;
use state::{SavedFlash, State};

/// Reads of the array that come here before it is mapped: a driver that looks at a few bytes
/// between two programs costs nothing, and one that copies the array costs this once.
const READS_BEFORE_SHOWN: u8 = 64;

/// [`BUFFERED_PROGRAM`], its count given: data follows. No command has this code.
const BUFFER_DATA: u8 = 0xe9;
/// The same, all data given: [`CONFIRM`] follows.
const BUFFER_CONFIRM: u8 = 0xea;

/// What was to be there for ever will not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotKept;

/// The board, as seen from flash. Called under the device's lock.
pub trait FlashSink: Send + Sync {
    /// The array is to be mapped for reading, or not at all. Told again after reset and restore.
    fn show(&self, shown: bool);
    /// The array is to have these bytes at `offset` from now on, for ever.
    ///
    /// # Errors
    /// When it will not: the guest's operation then fails.
    fn change(&self, offset: u64, bytes: &[u8]) -> Result<(), NotKept>;
}

/// Where the array is in guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlashArray {
    /// Its first byte.
    pub at: RamOffset,
    /// Its size: whole blocks.
    pub size_bytes: u64,
}

/// The device.
pub struct Flash {
    // Fixed configuration.
    array: FlashArray,
    // Wiring.
    memory: Arc<GuestMemory>,
    sink: Arc<dyn FlashSink>,
    // State.
    state: Mutex<State>,
}

impl Flash {
    /// Flash over what `array` holds. The sink is told first by [`Device::reset`].
    ///
    /// # Panics
    /// When the array is not whole blocks: the board's mistake.
    pub fn new(memory: Arc<GuestMemory>, array: FlashArray, sink: Arc<dyn FlashSink>) -> Arc<Self> {
        assert!(array.size_bytes.is_multiple_of(BLOCK_SIZE), "{array:?}");
        Arc::new(Self { array, memory, sink, state: Mutex::default() })
    }

    fn at(&self, offset: u64) -> RamOffset {
        RamOffset(self.array.at.0 + offset)
    }

    /// What a read at `offset` gives.
    fn answer(&self, state: &State, offset: u64) -> u8 {
        match state.reading {
            READ_ARRAY => self.memory.load(self.at(offset)),
            READ_ID => match offset & 0xff {
                0 => MANUFACTURER,
                1 => DEVICE,
                _ => 0, // not locked
            },
            READ_QUERY => self.query(offset & 0xff),
            _ => state.status,
        }
    }

    fn query(&self, offset: u64) -> u8 {
        let byte = |number: u64, at: u64| number.to_le_bytes()[(offset - at) as usize];
        match offset {
            CFI_SIZE => self.array.size_bytes.next_power_of_two().trailing_zeros() as u8,
            at if (CFI_BLOCKS..CFI_BLOCKS + 2).contains(&at) => {
                byte(self.array.size_bytes / BLOCK_SIZE - 1, CFI_BLOCKS)
            }
            at if (CFI_BLOCKS + 2..CFI_BLOCKS + 4).contains(&at) => {
                byte(BLOCK_SIZE / 256, CFI_BLOCKS + 2)
            }
            at if at >= CFI_PRIMARY => {
                CFI_PRIMARY_TABLE.get((at - CFI_PRIMARY) as usize).copied().unwrap_or(0)
            }
            at => {
                let index = at.checked_sub(CFI_BASE).map(|index| index as usize);
                index.and_then(|index| CFI.get(index)).copied().unwrap_or(0)
            }
        }
    }

    /// One write cycle.
    fn cycle(&self, state: &mut State, offset: u64, value: u8) {
        match state.pending {
            0 => state.begin(value),
            PROGRAM | PROGRAM_ALTERNATE => {
                state.done(self.program(offset, &[value]));
            }
            BLOCK_ERASE if value == CONFIRM => {
                let block = offset / BLOCK_SIZE * BLOCK_SIZE;
                state.done(self.put(block, &[0xff; BLOCK_SIZE as usize], SR_ERASE_ERROR));
            }
            LOCK_SETUP if matches!(value, LOCK | CONFIRM) => state.done(0),
            BUFFERED_PROGRAM if usize::from(value) < BUFFER_SIZE => {
                (state.pending, state.left) = (BUFFER_DATA, value + 1);
                state.buffer = [0xff; BUFFER_SIZE];
                state.buffer_at = offset / BUFFER_SIZE as u64 * BUFFER_SIZE as u64;
            }
            BUFFER_DATA => state.buffered(offset, value),
            BUFFER_CONFIRM if value == CONFIRM => {
                state.done(self.program(state.buffer_at, &state.buffer));
            }
            _ if value == READ_ARRAY => {
                state.pending = 0;
                state.begin(value);
            }
            _ => state.done(SR_ERASE_ERROR | SR_PROGRAM_ERROR),
        }
    }

    /// Programming clears bits, and sets none. Returns errors.
    fn program(&self, offset: u64, bytes: &[u8]) -> u8 {
        let fits = (self.array.size_bytes - offset).min(bytes.len() as u64) as usize;
        let mut new = [0; BUFFER_SIZE];
        let new = &mut new[..fits];
        self.memory.read(self.at(offset), new);
        new.iter_mut().zip(bytes).for_each(|(old, byte)| *old &= byte);
        self.put(offset, new, SR_PROGRAM_ERROR)
    }

    fn put(&self, offset: u64, bytes: &[u8], error: u8) -> u8 {
        if self.sink.change(offset, bytes).is_err() {
            return error;
        }
        self.memory.write(self.at(offset), bytes);
        0
    }

    fn show(&self, state: &mut State, shown: bool) {
        state.reads = 0;
        if state.shown != shown {
            state.shown = shown;
            self.sink.show(shown);
        }
    }

    /// Replaces the state, and tells the sink whatever it was told.
    fn replace(&self, new: State) {
        let mut state = lock(&self.state);
        *state = new;
        self.sink.show(new.shown);
    }
}

impl State {
    /// The first cycle of a command.
    fn begin(&mut self, command: u8) {
        match command {
            PROGRAM | PROGRAM_ALTERNATE | BLOCK_ERASE | LOCK_SETUP | BUFFERED_PROGRAM => {
                self.pending = command;
                self.status |= SR_READY;
                self.reading = READ_STATUS;
            }
            READ_STATUS | READ_ID | READ_QUERY => self.reading = command,
            CLEAR_STATUS => {
                self.status = 0;
                self.reading = READ_ARRAY;
            }
            _ => self.reading = READ_ARRAY,
        }
    }

    /// A command is over, with these errors.
    fn done(&mut self, errors: u8) {
        self.pending = 0;
        self.status |= SR_READY | errors;
    }

    /// A byte for the buffer. One outside of it spoils the command.
    fn buffered(&mut self, offset: u64, value: u8) {
        let index = offset.checked_sub(self.buffer_at).and_then(|i| usize::try_from(i).ok());
        let Some(byte) = index.and_then(|index| self.buffer.get_mut(index)) else {
            return self.done(SR_ERASE_ERROR | SR_PROGRAM_ERROR);
        };
        *byte = value;
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            self.pending = BUFFER_CONFIRM;
        }
    }
}

impl BusDevice for Flash {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let state = &mut *lock(&self.state);
        for (at, byte) in (offset..self.array.size_bytes).zip(data) {
            *byte = self.answer(state, at);
        }
        if state.reading == READ_ARRAY && !state.shown {
            state.reads += 1;
            if state.reads >= READS_BEFORE_SHOWN {
                self.show(state, true);
            }
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let state = &mut *lock(&self.state);
        write_bytes(offset, data, |at, value| {
            if at < self.array.size_bytes {
                self.cycle(state, at, value);
            }
        });
        state.reads = 0;
        if state.reading != READ_ARRAY {
            self.show(state, false);
        }
    }
}

impl Device for Flash {
    fn reset(&self) {
        self.replace(State::default());
    }

    fn save(&self) -> Section {
        Section::encode(&SavedFlash::from(&*lock(&self.state)))
    }

    fn restore(&self, section: &Section) -> Result<(), SectionError> {
        let state = State::try_from(section.decode::<SavedFlash>()?)?;
        if state.buffer_at >= self.array.size_bytes {
            let reason = "its write buffer is outside of the array".to_owned();
            return Err(SectionError::Impossible { kind: SavedFlash::KIND, reason });
        }
        self.replace(state);
        Ok(())
    }
}
