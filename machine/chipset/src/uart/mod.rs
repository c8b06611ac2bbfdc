//! A 16550A UART (PC16550D datasheet).
//!
//! The wire is infinitely fast: a byte written is sent at once and the transmitter is always
//! empty. Received bytes wait at the sender while the FIFO is full, so nothing overruns, except
//! in loopback.
//!
//! Deviation: the interrupt pin does not depend on MCR's OUT2, as a PC's would; bare-metal guests
//! written against other VMMs leave it clear.

pub mod spec;
mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, OnceLock, Weak};

use bus::{BusDevice, Device, Line, Section, SectionError};
use machine_clock::{MachineClock, Timer};

use crate::ports::{read_bytes, write_bytes};
use crate::{Callback, lock};
use spec::*;
use state::{SavedUart, State};

/// Where the bytes sent go.
pub trait ByteSink: Send + Sync {
    /// Takes a byte. Called under the device's lock: it must not block, nor call the device.
    fn put(&self, byte: u8);
}

/// The device.
pub struct Uart {
    // Wiring.
    line: Line,
    output: Arc<dyn ByteSink>,
    clock: Arc<MachineClock>,
    timeout: Timer,
    on_room: OnceLock<Callback>,
    // State.
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    state: State,
    /// The level of `line`.
    level: bool,
    /// A sender was turned away and waits for `on_room`.
    sender_waits: bool,
}

impl Uart {
    /// A UART with its interrupt on `line`, sending to `output`.
    pub fn new(clock: &Arc<MachineClock>, line: Line, output: Arc<dyn ByteSink>) -> Arc<Self> {
        Arc::new_cyclic(|weak: &Weak<Self>| {
            let uart = weak.clone();
            let timeout = clock.timer(move || {
                if let Some(uart) = uart.upgrade() {
                    uart.sync(&mut lock(&uart.inner));
                }
            });
            let clock = clock.clone();
            let inner = Mutex::default();
            Self { line, output, clock, timeout, on_room: OnceLock::new(), inner }
        })
    }

    /// Offers received bytes and returns how many were taken. After less than all, the callback
    /// of [`Uart::set_on_room`] says when to offer the rest.
    pub fn receive(&self, bytes: &[u8]) -> usize {
        let inner = &mut *lock(&self.inner);
        let room = inner.state.room();
        let taken = bytes.len().min(room);
        inner.sender_waits = taken < bytes.len();
        if taken > 0 {
            inner.state.received.extend(&bytes[..taken]);
            inner.state.touched_ns = self.clock.now_ns();
            self.sync(inner);
        }
        taken
    }

    /// `callback` is called when a sender that was turned away may offer again: from a vCPU's
    /// thread, outside of the device's lock. Only the first callback given stays.
    pub fn set_on_room(&self, callback: impl Fn() + Send + Sync + 'static) {
        // A second callback is the board's mistake and harmless.
        let _ = self.on_room.set(Box::new(callback));
    }

    /// Re-derives the line and the timeout.
    fn sync(&self, inner: &mut Inner) {
        let state = &mut inner.state;
        state.timed_out = state.timeout_ns().is_some_and(|at| at <= self.clock.now_ns());
        let level = state.interrupt() != IIR_NONE;
        if level != inner.level {
            inner.level = level;
            self.line.set(level);
        }
        self.arm(inner);
    }

    fn arm(&self, inner: &Inner) {
        self.timeout.set(inner.state.timeout_ns().filter(|_| !inner.state.timed_out));
    }

    /// Replaces the state, and drives the line whatever its level was.
    fn replace(&self, state: State) {
        let mut inner = lock(&self.inner);
        inner.state = state;
        inner.level = inner.state.interrupt() != IIR_NONE;
        self.line.set(inner.level);
        self.arm(&inner);
    }

    /// Tells a waiting sender, when all was read: one call, then, fills the FIFO again.
    fn tell_sender(&self, inner: &mut Inner) -> bool {
        inner.state.received.is_empty()
            && inner.state.room() > 0
            && std::mem::take(&mut inner.sender_waits)
    }

    fn access(&self, run: impl FnOnce(&mut State, u64)) {
        let mut inner = lock(&self.inner);
        self.sync(&mut inner);
        run(&mut inner.state, self.clock.now_ns());
        self.sync(&mut inner);
        let tell = self.tell_sender(&mut inner);
        drop(inner);
        if let (true, Some(callback)) = (tell, self.on_room.get()) {
            callback();
        }
    }
}

impl State {
    fn fifos(&self) -> bool {
        self.fcr & FCR_ENABLE != 0
    }

    fn loops(&self) -> bool {
        self.mcr & MCR_LOOP != 0
    }

    fn capacity(&self) -> usize {
        if self.fifos() { FIFO_SIZE } else { 1 }
    }

    /// Bytes that may come from outside.
    fn room(&self) -> usize {
        if self.loops() { 0 } else { self.capacity().saturating_sub(self.received.len()) }
    }

    fn trigger(&self) -> usize {
        if self.fifos() { TRIGGERS[usize::from(self.fcr >> 6)] } else { 1 }
    }

    /// When the bytes below the trigger level will have waited for four characters' time.
    fn timeout_ns(&self) -> Option<u64> {
        let waiting = self.fifos()
            && self.ier & IER_ERBFI != 0
            && !self.received.is_empty()
            && self.received.len() < self.trigger();
        let flag = |bit: u8| u64::from(self.lcr & bit != 0);
        let bits = 7 + u64::from(self.lcr & LCR_WLS) + flag(LCR_STB) + flag(LCR_PEN);
        let divisor = u64::from(self.divisor.max(1));
        let character_ns = bits * divisor * 16 * 1_000_000_000 / CRYSTAL_HZ;
        waiting.then(|| self.touched_ns.saturating_add(4 * character_ns))
    }

    /// What IIR says, without the FIFO bits.
    fn interrupt(&self) -> u8 {
        let enabled = |bit: u8| self.ier & bit != 0;
        if enabled(IER_ELSI) && self.overrun {
            IIR_LINE
        } else if enabled(IER_ERBFI) && self.received.len() >= self.trigger() {
            IIR_DATA
        } else if self.timed_out {
            IIR_TIMEOUT
        } else if enabled(IER_ETBEI) && self.thre_due {
            IIR_THRE
        } else if enabled(IER_EDSSI) && self.modem_deltas != 0 {
            IIR_MODEM
        } else {
            IIR_NONE
        }
    }

    /// The modem lines: a terminal that is always there, or in loopback our own outputs.
    fn modem_lines(&self) -> u8 {
        if !self.loops() {
            return MSR_CTS | MSR_DSR | MSR_DCD;
        }
        [(MCR_DTR, MSR_DSR), (MCR_RTS, MSR_CTS), (MCR_OUT1, MSR_RI), (MCR_OUT2, MSR_DCD)]
            .into_iter()
            .filter(|(output, _)| self.mcr & output != 0)
            .fold(0, |lines, (_, input)| lines | input)
    }

    fn set_mcr(&mut self, value: u8) {
        let before = self.modem_lines();
        self.mcr = value & MCR_MASK;
        let after = self.modem_lines();
        let changed = (before ^ after) >> 4;
        let ring_ended = before & !after & MSR_RI != 0;
        self.modem_deltas |= changed & !MSR_TERI | if ring_ended { MSR_TERI } else { 0 };
    }

    fn set_fcr(&mut self, value: u8) {
        // Changing the enable bit clears the FIFOs as well.
        if value & FCR_CLEAR_RX != 0 || (value ^ self.fcr) & FCR_ENABLE != 0 {
            self.received.clear();
        }
        self.fcr = if value & FCR_ENABLE != 0 { value & FCR_KEPT } else { 0 };
    }

    fn set_ier(&mut self, value: u8) {
        if value & !self.ier & IER_ETBEI != 0 {
            self.thre_due = true;
        }
        self.ier = value & 0x0f;
    }

    fn loop_back(&mut self, byte: u8, now_ns: u64) {
        if self.received.len() < self.capacity() {
            self.received.push_back(byte);
        } else {
            self.overrun = true;
            if !self.fifos() {
                self.received[0] = byte;
            }
        }
        self.touched_ns = now_ns;
    }

    fn read(&mut self, register: u64, now_ns: u64) -> u8 {
        let dlab = self.lcr & LCR_DLAB != 0;
        match register {
            RBR_THR_DLL if dlab => self.divisor.to_le_bytes()[0],
            RBR_THR_DLL => {
                self.touched_ns = now_ns;
                self.received.pop_front().unwrap_or(0)
            }
            IER_DLM if dlab => self.divisor.to_le_bytes()[1],
            IER_DLM => self.ier,
            IIR_FCR => {
                let source = self.interrupt();
                if source == IIR_THRE {
                    self.thre_due = false;
                }
                source | if self.fifos() { IIR_FIFOS } else { 0 }
            }
            LCR => self.lcr,
            MCR => self.mcr,
            LSR => {
                let data = if self.received.is_empty() { 0 } else { LSR_DR };
                let overrun = if std::mem::take(&mut self.overrun) { LSR_OE } else { 0 };
                LSR_THRE | LSR_TEMT | data | overrun
            }
            MSR => self.modem_lines() | std::mem::take(&mut self.modem_deltas),
            SCR => self.scr,
            _ => 0xff,
        }
    }

    fn write(&mut self, register: u64, value: u8, now_ns: u64, output: &dyn ByteSink) {
        let dlab = self.lcr & LCR_DLAB != 0;
        let [low, high] = self.divisor.to_le_bytes();
        match register {
            RBR_THR_DLL if dlab => self.divisor = u16::from_le_bytes([value, high]),
            RBR_THR_DLL => {
                if self.loops() {
                    self.loop_back(value, now_ns);
                } else {
                    output.put(value);
                }
                self.thre_due = true;
            }
            IER_DLM if dlab => self.divisor = u16::from_le_bytes([low, value]),
            IER_DLM => self.set_ier(value),
            IIR_FCR => self.set_fcr(value),
            LCR => self.lcr = value,
            MCR => self.set_mcr(value),
            SCR => self.scr = value,
            _ => {}
        }
    }
}

impl BusDevice for Uart {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.access(|state, now_ns| read_bytes(offset, data, |at| state.read(at, now_ns)));
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.access(|state, now_ns| {
            write_bytes(offset, data, |at, byte| state.write(at, byte, now_ns, &*self.output));
        });
    }
}

impl Device for Uart {
    fn reset(&self) {
        self.replace(State::default());
        self.access(|_, _| {}); // a sender that waits has room now
    }

    fn save(&self) -> Section {
        Section::encode(&SavedUart::from(&lock(&self.inner).state))
    }

    fn restore(&self, section: &Section) -> Result<(), SectionError> {
        let state = State::try_from(section.decode::<SavedUart>()?)?;
        self.replace(state);
        Ok(())
    }
}
