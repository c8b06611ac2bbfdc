//! A board of counters.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use engine::{Bus, CpuComplex};
use x86_state::{VcpuId, Vector};

/// Ports and addresses of the [`FakeBus`].
pub mod at {
    /// Reads count up, 32 bits wide.
    pub const COUNTER: u16 = 0x10;
    /// Reads count up, 8 bits wide.
    pub const BYTE_COUNTER: u16 = 0x11;
    /// Wants what [`COUNTER`] gave, in order, each once.
    pub const LOG: u16 = 0x14;
    /// Wants what [`BYTE_COUNTER`] gave.
    pub const BYTE_LOG: u16 = 0x15;
    /// The guest of vCPU 0 is done: kicks it.
    pub const DONE: u16 = 0x80;
    /// A value to show.
    pub const SHOW: u16 = 0x90;
    /// Where no memory is: the page of the registers below.
    pub const MMIO: u64 = 0xd000_0000;
    /// A register that wants to be read once, then written one higher.
    pub const CELL: u64 = MMIO;
    /// As [`COUNTER`].
    pub const MMIO_COUNTER: u64 = MMIO + 0x10;
    /// As [`LOG`].
    pub const MMIO_LOG: u64 = MMIO + 0x14;
}

#[derive(Default)]
struct Copied {
    read: u32,
    written: u32,
    broken: Option<String>,
}

impl Copied {
    fn read(&mut self) -> u32 {
        self.read = self.read.wrapping_add(1);
        self.read - 1
    }

    fn write(&mut self, value: u32, mask: u32) {
        if value != self.written & mask && self.broken.is_none() {
            self.broken = Some(format!("{value} came where {} was due", self.written & mask));
        }
        self.written = self.written.wrapping_add(1);
    }
}

#[derive(Default)]
struct State {
    words: Copied,
    bytes: Copied,
    mmio: Copied,
    cell: u32,
    cell_read: bool,
    cell_broken: Option<String>,
    shown: VecDeque<u32>,
    done: u32,
    pending: VecDeque<Vector>,
    acknowledged: u32,
    eois: Vec<Vector>,
    unclaimed: BTreeMap<u64, u64>,
    rom_writes: Vec<(u64, Vec<u8>)>,
}

/// See `at`.
#[derive(Default)]
pub struct FakeBus {
    state: Mutex<State>,
    complex: OnceLock<Weak<dyn CpuComplex>>,
    kick_every: AtomicU32,
    cycles: AtomicU32,
}

impl FakeBus {
    /// A bus that is not connected yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Connects it to the socket.
    pub(crate) fn connect(&self, complex: &Arc<dyn CpuComplex>) {
        assert!(self.complex.set(Arc::downgrade(complex)).is_ok(), "connected twice");
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn complex(&self) -> Arc<dyn CpuComplex> {
        self.complex.get().and_then(Weak::upgrade).unwrap()
    }

    /// Kicks the first vCPU in the middle of every so-manieth bus cycle; 0 for never.
    pub fn kick_every(&self, cycles: u32) {
        self.kick_every.store(cycles, Ordering::Relaxed);
    }

    fn cycle(&self) {
        let every = self.kick_every.load(Ordering::Relaxed);
        let n = self.cycles.fetch_add(1, Ordering::Relaxed);
        if every != 0 && n.is_multiple_of(every) {
            self.complex().kick(VcpuId(0));
        }
    }

    /// How often the guest was done; forgets it.
    pub fn take_done(&self) -> u32 {
        std::mem::take(&mut self.state().done)
    }

    /// What the guest showed, in order; forgets it.
    pub fn take_shown(&self) -> Vec<u32> {
        std::mem::take(&mut self.state().shown).into()
    }

    /// Copies of all kinds the guest has made.
    ///
    /// # Panics
    /// When one was lost or repeated.
    pub fn copies(&self) -> u32 {
        let state = self.state();
        for copied in [&state.words, &state.bytes, &state.mmio] {
            assert_eq!(copied.broken, None, "copies");
        }
        assert_eq!(state.cell_broken, None, "read-modify-write");
        state.words.written.wrapping_add(state.cell)
    }

    /// The PIC has this vector, and raises its pin.
    pub fn raise(&self, vector: Vector) {
        self.state().pending.push_back(vector);
        self.complex().set_intr(true);
    }

    /// Acknowledge cycles that gave a vector.
    pub fn acknowledged(&self) -> u32 {
        self.state().acknowledged
    }

    /// Level-triggered interrupts ended, in order; forgets them.
    pub fn take_eois(&self) -> Vec<Vector> {
        std::mem::take(&mut self.state().eois)
    }

    /// Accesses to MMIO addresses that are no register, by address.
    pub fn unclaimed(&self) -> BTreeMap<u64, u64> {
        self.state().unclaimed.clone()
    }

    /// Writes below the registers, where ROM may be; forgets them.
    pub fn take_rom_writes(&self) -> Vec<(u64, Vec<u8>)> {
        std::mem::take(&mut self.state().rom_writes)
    }
}

fn value(data: &[u8]) -> u32 {
    data.iter().rev().fold(0, |v, byte| v << 8 | u32::from(*byte))
}

impl Bus for FakeBus {
    fn pio_read(&self, port: u16, data: &mut [u8]) {
        self.cycle();
        match (port, data.len()) {
            (at::COUNTER, 4) => data.copy_from_slice(&self.state().words.read().to_le_bytes()),
            (at::BYTE_COUNTER, 1) => data[0] = self.state().bytes.read() as u8,
            _ => data.fill(0xff),
        }
    }

    fn pio_write(&self, port: u16, data: &[u8]) {
        self.cycle();
        match (port, data.len()) {
            (at::LOG, 4) => self.state().words.write(value(data), u32::MAX),
            (at::BYTE_LOG, 1) => self.state().bytes.write(value(data), 0xff),
            (at::SHOW, _) => self.state().shown.push_back(value(data)),
            (at::DONE, _) => {
                self.state().done += 1;
                self.complex().kick(VcpuId(0));
            }
            _ => {}
        }
    }

    fn mmio_read(&self, gpa: u64, data: &mut [u8]) {
        self.cycle();
        let mut state = self.state();
        match (gpa, data.len()) {
            (at::CELL, 4) => {
                if std::mem::replace(&mut state.cell_read, true) {
                    state.cell_broken = Some(format!("read twice at {}", state.cell));
                }
                data.copy_from_slice(&state.cell.to_le_bytes());
            }
            (at::MMIO_COUNTER, 4) => data.copy_from_slice(&state.mmio.read().to_le_bytes()),
            _ => {
                *state.unclaimed.entry(gpa).or_default() += 1;
                data.fill(0xff);
            }
        }
    }

    fn mmio_write(&self, gpa: u64, data: &[u8]) {
        self.cycle();
        let mut state = self.state();
        match (gpa, data.len()) {
            (at::CELL, 4) => {
                if !std::mem::replace(&mut state.cell_read, false)
                    || value(data) != state.cell.wrapping_add(1)
                {
                    state.cell_broken = Some(format!("{} after {}", value(data), state.cell));
                }
                state.cell = value(data);
            }
            (at::MMIO_LOG, 4) => state.mmio.write(value(data), u32::MAX),
            (gpa, _) if gpa < at::MMIO => state.rom_writes.push((gpa, data.to_vec())),
            _ => *state.unclaimed.entry(gpa).or_default() += 1,
        }
    }

    fn ack_intr(&self) -> Option<Vector> {
        self.cycle();
        let mut state = self.state();
        let vector = state.pending.pop_front();
        state.acknowledged += u32::from(vector.is_some());
        let more = !state.pending.is_empty();
        drop(state);
        self.complex().set_intr(more);
        vector
    }

    fn eoi(&self, vector: Vector) {
        self.state().eois.push(vector);
    }
}
