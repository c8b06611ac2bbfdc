//! Two ports that reset the machine: 0xcf9 (PIIX/ICH) and 0x92 (PS/2), which also pretends to
//! gate A20.

pub mod spec;
mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};

use bus::{BusDevice, Device, Section, SectionError};

use crate::ports::{read_bytes, write_bytes};
use crate::{PowerEvent, PowerSink, lock};
use spec::*;
use state::{SavedResetControl, State};

pub use spec::{PORT_A, PORTS, RESET_PORT};

/// The device.
pub struct ResetControl {
    // Wiring.
    power: Arc<dyn PowerSink>,
    // State.
    state: Mutex<State>,
}

impl ResetControl {
    /// Ports that tell `power`.
    pub fn new(power: Arc<dyn PowerSink>) -> Arc<Self> {
        Arc::new(Self { power, state: Mutex::default() })
    }
}

impl BusDevice for ResetControl {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let state = lock(&self.state);
        read_bytes(offset, data, |at| match at {
            RST_CNT => state.rst_cnt,
            SYSTEM_CONTROL_A => state.port_a | A20,
            _ => 0xff,
        });
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let mut state = lock(&self.state);
        write_bytes(offset, data, |at, value| {
            let (register, kept, trigger) = match at {
                RST_CNT => (&mut state.rst_cnt, RST_MASK, RST_CPU),
                SYSTEM_CONTROL_A => (&mut state.port_a, FAST_RESET, FAST_RESET),
                _ => return,
            };
            let before = std::mem::replace(register, value & kept);
            if value & !before & trigger != 0 {
                self.power.power(PowerEvent::Reset);
            }
        });
    }
}

impl Device for ResetControl {
    fn reset(&self) {
        *lock(&self.state) = State::default();
    }

    fn save(&self) -> Section {
        Section::encode(&SavedResetControl::from(*lock(&self.state)))
    }

    fn restore(&self, section: &Section) -> Result<(), SectionError> {
        *lock(&self.state) = section.decode::<SavedResetControl>()?.into();
        Ok(())
    }
}
