//! The I/O APIC (82093AA datasheet) with 24 inputs, or fewer, and an EOI register.
//!
//! Interrupts leave as messages. A level-triggered one is sent again when it was ended and its
//! line is still high. Lines carry "asserted" or not, so the polarity bit is kept and ignored.
//! Edges at masked inputs are lost, as the datasheet has it.

pub mod spec;
mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, OnceLock};

use bus::{BusDevice, Device, LineSink, MsiSink, Section, SectionError};
use x86_state::Msi;

use crate::ports::{answer, number};
use crate::{Callback, lock};
use spec::*;
use state::{SavedIoApic, State};

/// Who must know which vectors' EOIs to broadcast.
pub trait RouteSink: Send + Sync {
    /// By input: the message of a level-triggered one, masked or not (what was sent before it was
    /// masked will still be ended); `None` for edge-triggered inputs, whose EOIs matter to
    /// nobody. Called under the device's lock, only when the table has changed.
    fn set_routes(&self, routes: &[Option<Msi>]);
}

type Routes = [Option<Msi>; INPUTS];

/// The device.
pub struct IoApic {
    // Fixed configuration.
    inputs: usize,
    // Wiring.
    messages: Arc<dyn MsiSink>,
    routes: Arc<dyn RouteSink>,
    on_unmask: OnceLock<Callback>,
    // State.
    inner: Mutex<Inner>,
}

struct Inner {
    state: State,
    /// What `routes` was last told.
    told: Routes,
}

impl IoApic {
    /// An IOAPIC that sends to `messages` and keeps `routes` informed. The sink of routes begins
    /// with none.
    pub fn new(messages: Arc<dyn MsiSink>, routes: Arc<dyn RouteSink>) -> Arc<Self> {
        Self::with_inputs(INPUTS, messages, routes)
    }

    /// One with so many inputs, at most [`INPUTS`]. Software that finds an IOAPIC goes through all
    /// of its table, whatever is wired to it.
    pub fn with_inputs(
        inputs: usize,
        messages: Arc<dyn MsiSink>,
        routes: Arc<dyn RouteSink>,
    ) -> Arc<Self> {
        assert!((1..=INPUTS).contains(&inputs), "{inputs} inputs");
        let inner = Mutex::new(Inner { state: State::at_reset(0), told: [None; INPUTS] });
        Arc::new(Self { inputs, messages, routes, on_unmask: OnceLock::new(), inner })
    }

    /// A level-triggered interrupt of this vector was ended.
    pub fn eoi(&self, vector: u8) {
        self.end(&mut lock(&self.inner).state, vector);
    }

    /// A request at this input could reach a CPU.
    pub fn is_unmasked(&self, input: u32) -> bool {
        let table = &lock(&self.inner).state.table;
        table.get(input as usize).is_some_and(|entry| entry & RTE_MASK == 0)
    }

    /// `callback` is called, outside of the device's lock, when an input may have been unmasked.
    /// Only the first callback given stays.
    pub fn set_on_unmask(&self, callback: Callback) {
        // A second callback is the board's mistake and harmless.
        let _ = self.on_unmask.set(callback);
    }

    fn end(&self, state: &mut State, vector: u8) {
        for input in 0..INPUTS {
            let entry = &mut state.table[input];
            if *entry & RTE_LEVEL != 0 && *entry as u8 == vector {
                *entry &= !RTE_REMOTE_IRR;
                self.send_level(state, input);
            }
        }
    }

    /// Sends a level-triggered interrupt, unless one is under way.
    fn send_level(&self, state: &mut State, input: usize) {
        let entry = &mut state.table[input];
        let high = state.lines & (1 << input) != 0;
        if high && *entry & (RTE_LEVEL | RTE_MASK | RTE_REMOTE_IRR) == RTE_LEVEL {
            *entry |= RTE_REMOTE_IRR;
            self.messages.send_msi(message(*entry));
        }
    }

    /// Tells the routes, if they have changed.
    fn sync(&self, inner: &mut Inner) {
        let routes = routes(&inner.state);
        if routes != inner.told {
            inner.told = routes;
            self.routes.set_routes(&routes);
        }
    }

    fn write_entry(&self, state: &mut State, input: usize, value: u64) {
        let entry = &mut state.table[input];
        *entry = value & RTE_WRITABLE | *entry & RTE_REMOTE_IRR;
        if *entry & RTE_LEVEL == 0 {
            // Software ends a stuck interrupt by making it edge-triggered for a moment.
            *entry &= !RTE_REMOTE_IRR;
        }
        self.send_level(state, input);
    }

    /// Which entry a register is half of, and whether it is the high half.
    fn entry_of(&self, select: u8) -> Option<(usize, bool)> {
        let index = usize::from(select.checked_sub(IOREDTBL)?);
        (index / 2 < self.inputs).then_some((index / 2, index % 2 != 0))
    }

    fn read_window(&self, state: &State) -> u32 {
        match state.select {
            IOAPICID | IOAPICARB => u32::from(state.id) << 24,
            IOAPICVER => VERSION | (self.inputs as u32 - 1) << 16,
            select => match self.entry_of(select) {
                Some((input, false)) => state.table[input] as u32,
                Some((input, true)) => (state.table[input] >> 32) as u32,
                None => 0,
            },
        }
    }

    fn write_window(&self, state: &mut State, value: u32) {
        match state.select {
            IOAPICID => state.id = (value >> 24) as u8 & 0xf,
            select => {
                let Some((input, high)) = self.entry_of(select) else { return };
                let old = state.table[input];
                let new = if high {
                    old & 0xffff_ffff | u64::from(value) << 32
                } else {
                    old & !0xffff_ffff | u64::from(value)
                };
                self.write_entry(state, input, new);
            }
        }
    }
}

fn message(entry: u64) -> Msi {
    let logical = if entry & RTE_LOGICAL != 0 { MSI_LOGICAL } else { 0 };
    let level = if entry & RTE_LEVEL != 0 { MSI_LEVEL | MSI_ASSERT } else { MSI_ASSERT };
    // Vector and delivery mode are at the same bits in both.
    Msi { address: MSI_ADDRESS | (entry >> 56) << 12 | logical, data: entry as u32 & 0x7ff | level }
}

fn routes(state: &State) -> Routes {
    state.table.map(|entry| (entry & RTE_LEVEL != 0).then(|| message(entry)))
}

impl BusDevice for IoApic {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let state = &lock(&self.inner).state;
        let value = match offset & !3 {
            IOREGSEL => u32::from(state.select),
            IOWIN => self.read_window(state),
            _ => 0,
        };
        answer(data, u64::from(value) >> (8 * (offset & 3)));
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let mut inner = lock(&self.inner);
        let before = masked(&inner.state);
        let value = number(data);
        match offset {
            IOREGSEL => inner.state.select = value as u8,
            IOWIN if data.len() >= 4 => self.write_window(&mut inner.state, value as u32),
            IOEOI => self.end(&mut inner.state, value as u8),
            _ => return,
        }
        self.sync(&mut inner);
        let unmasked = before & !masked(&inner.state) != 0;
        drop(inner);
        if let (true, Some(callback)) = (unmasked, self.on_unmask.get()) {
            callback();
        }
    }
}

/// The masked inputs, a bit each.
fn masked(state: &State) -> u32 {
    let bits = state.table.iter().enumerate();
    bits.fold(0, |mask, (i, entry)| mask | u32::from(entry & RTE_MASK != 0) << i)
}

impl LineSink for IoApic {
    fn set_line(&self, input: u32, level: bool) {
        let input = input as usize;
        if input >= self.inputs {
            return;
        }
        let state = &mut lock(&self.inner).state;
        let was = state.lines & (1 << input) != 0;
        state.lines = state.lines & !(1 << input) | u32::from(level) << input;
        let entry = state.table[input];
        if entry & RTE_LEVEL != 0 {
            self.send_level(state, input);
        } else if level && !was && entry & RTE_MASK == 0 {
            self.messages.send_msi(message(entry));
        }
    }
}

impl Device for IoApic {
    fn reset(&self) {
        let mut inner = lock(&self.inner);
        inner.state = State::at_reset(inner.state.lines);
        self.sync(&mut inner);
    }

    fn save(&self) -> Section {
        Section::encode(&SavedIoApic::from(&lock(&self.inner).state))
    }

    fn restore(&self, section: &Section) -> Result<(), SectionError> {
        let state = State::try_from(section.decode::<SavedIoApic>()?)?;
        let mut inner = lock(&self.inner);
        inner.state = state;
        self.sync(&mut inner);
        Ok(())
    }
}
