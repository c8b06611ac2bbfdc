//! The debug console: what firmware writes to it is for who works on the firmware.

pub mod spec;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bus::{BusDevice, Device, Section, SectionError};

use crate::ByteSink;
use crate::ports::read_bytes;
use spec::PRESENT;
use state::SavedDebugCon;

pub use spec::PORTS;

/// The device.
pub struct DebugCon {
    // Wiring.
    sink: Arc<dyn ByteSink>,
}

impl DebugCon {
    /// A console that writes to `sink`.
    pub fn new(sink: Arc<dyn ByteSink>) -> Arc<Self> {
        Arc::new(Self { sink })
    }
}

impl BusDevice for DebugCon {
    fn read(&self, offset: u64, data: &mut [u8]) {
        read_bytes(offset, data, |_| PRESENT);
    }

    fn write(&self, _offset: u64, data: &[u8]) {
        data.iter().for_each(|byte| self.sink.put(*byte));
    }
}

impl Device for DebugCon {
    fn reset(&self) {}

    fn save(&self) -> Section {
        Section::encode(&SavedDebugCon {})
    }

    fn restore(&self, section: &Section) -> Result<(), SectionError> {
        let SavedDebugCon {} = section.decode()?;
        Ok(())
    }
}
