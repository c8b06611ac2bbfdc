//! The debug-exit port: an OUT of `v` ends the run with exit status `(v << 1) | 1`, so that no
//! value says success by accident.

pub mod spec;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bus::{BusDevice, Device, Section, SectionError};

use crate::ports::number;
use crate::{PowerEvent, PowerSink};
use state::SavedDebugExit;

pub use spec::PORTS;

/// The device.
pub struct DebugExit {
    // Wiring.
    power: Arc<dyn PowerSink>,
}

impl DebugExit {
    /// A port that tells `power`.
    pub fn new(power: Arc<dyn PowerSink>) -> Arc<Self> {
        Arc::new(Self { power })
    }
}

impl BusDevice for DebugExit {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, _offset: u64, data: &[u8]) {
        let value = number(data) as u32;
        self.power.power(PowerEvent::DebugExit(value << 1 | 1));
    }
}

impl Device for DebugExit {
    fn reset(&self) {}

    fn save(&self) -> Section {
        Section::encode(&SavedDebugExit {})
    }

    fn restore(&self, section: &Section) -> Result<(), SectionError> {
        let SavedDebugExit {} = section.decode()?;
        Ok(())
    }
}
