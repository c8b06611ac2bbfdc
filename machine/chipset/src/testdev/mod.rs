//! The device of bare-metal test guests: a latch, a port that unmaps a page, a port for each
//! interrupt line. Only in machines that ask for it. Its RAM is the board's to map.

pub mod spec;
mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};

use bus::{BusDevice, Device, LineSink, Section, SectionError};

use crate::lock;
use crate::ports::{number, read_bytes, write_bytes};
use spec::*;
use state::{SavedTestDevice, State};

pub use spec::{PORTS, RAM_BASE, RAM_SIZE};

/// The board, as seen from the test device.
pub trait PageUnmapSink: Send + Sync {
    /// Takes the page at this guest-physical address out of memory's mapping and puts it back,
    /// so that engines find it anew. Called without a lock.
    fn unmap_page(&self, gpa: u64);
}

/// The device.
pub struct TestDevice {
    // Wiring.
    irqs: Arc<dyn LineSink>,
    pages: Arc<dyn PageUnmapSink>,
    // State.
    state: Mutex<State>,
}

impl TestDevice {
    /// A test device that raises inputs 0 to 23 of `irqs`.
    pub fn new(irqs: Arc<dyn LineSink>, pages: Arc<dyn PageUnmapSink>) -> Arc<Self> {
        Arc::new(Self { irqs, pages, state: Mutex::default() })
    }

    /// Replaces the state. Lines that were and stay low are another device's to drive.
    fn replace(&self, new: State) {
        let mut state = lock(&self.state);
        let touched = std::mem::replace(&mut *state, new).lines | new.lines;
        for irq in (0..IRQS as u32).filter(|irq| touched & 1 << irq != 0) {
            self.irqs.set_line(irq, new.lines & 1 << irq != 0);
        }
    }
}

/// The bit of the interrupt line whose port this is.
fn bit(offset: u64) -> Option<u32> {
    offset.checked_sub(IRQ).filter(|irq| *irq < IRQS).map(|irq| 1 << irq)
}

impl BusDevice for TestDevice {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let state = lock(&self.state);
        read_bytes(offset, data, |at| match at {
            LATCH..UNMAP => state.latch[(at - LATCH) as usize],
            UNMAP..IRQ => 0,
            at => u8::from(bit(at).is_some_and(|bit| state.lines & bit != 0)),
        });
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if (UNMAP..IRQ).contains(&offset) {
            return self.pages.unmap_page(number(data) & !0xfff);
        }
        let mut state = lock(&self.state);
        if let Some(bit) = bit(offset) {
            let level = number(data) != 0;
            state.lines = state.lines & !bit | if level { bit } else { 0 };
            return self.irqs.set_line(bit.trailing_zeros(), level);
        }
        write_bytes(offset, data, |at, value| {
            if let Some(byte) = state.latch.get_mut(at as usize) {
                *byte = value;
            }
        });
    }
}

impl Device for TestDevice {
    fn reset(&self) {
        self.replace(State::default());
    }

    fn save(&self) -> Section {
        Section::encode(&SavedTestDevice::from(*lock(&self.state)))
    }

    fn restore(&self, section: &Section) -> Result<(), SectionError> {
        self.replace(section.decode::<SavedTestDevice>()?.into());
        Ok(())
    }
}
