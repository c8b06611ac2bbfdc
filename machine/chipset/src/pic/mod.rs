//! Two cascaded 8259A interrupt controllers (Intel 231468-003) with edge/level control.
//!
//! The master's INT pin is the CPU's INTR; [`Pic::ack`] is the acknowledge cycle. Inputs are the
//! sixteen ISA IRQs; input 2 is the cascade and cannot be driven.

mod chip;
pub mod spec;
mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, OnceLock};

use bus::{BusDevice, Device, Line, LineSink, Section, SectionError};

use crate::ports::{read_bytes, write_bytes};
use crate::{Callback, lock};
use chip::{Chip, Phase};
use spec::*;
use state::SavedPic;

pub use spec::PORTS;

/// The device.
pub struct Pic {
    // Wiring.
    intr: Line,
    on_unmask: OnceLock<Callback>,
    // State.
    inner: Mutex<Inner>,
}

struct Inner {
    /// Master and slave.
    chips: [Chip; 2],
    /// The level of `intr`.
    level: bool,
}

impl Inner {
    /// The level of INT, after the cascade has settled.
    fn settle(&mut self) -> bool {
        let [master, slave] = &mut self.chips;
        master.set_line(CASCADE, slave.request(false).is_some(), false);
        master.request(true).is_some()
    }
}

impl Pic {
    /// Both chips, with the master's output on `intr`.
    pub fn new(intr: Line) -> Arc<Self> {
        let inner = Mutex::new(Inner { chips: [Chip::at_reset(0); 2], level: false });
        Arc::new(Self { intr, on_unmask: OnceLock::new(), inner })
    }

    /// The interrupt-acknowledge cycle: the vector of the request of the highest priority, or
    /// the spurious one of IRQ 7 (IRQ 15) when it has gone. `None` from chips that nobody has
    /// initialised, which do not answer.
    pub fn ack(&self) -> Option<u8> {
        let mut inner = lock(&self.inner);
        let [master, slave] = &mut inner.chips;
        if master.phase != Phase::Ready {
            return None;
        }
        let input = master.acknowledge(true);
        let vector = if input == CASCADE {
            let input = slave.acknowledge(false);
            // The slave's INT falls in the cycle even if it wants more.
            master.set_line(CASCADE, false, false);
            slave.vector(input)
        } else {
            master.vector(input)
        };
        self.sync(&mut inner);
        Some(vector)
    }

    /// A request at this IRQ could reach the CPU.
    pub fn is_unmasked(&self, irq: u32) -> bool {
        let chips = &lock(&self.inner).chips;
        let open =
            |chip: &Chip, input: u32| chip.phase == Phase::Ready && chip.imr & (1u8 << input) == 0;
        match irq {
            0..8 => open(&chips[0], irq),
            8..16 => open(&chips[0], u32::from(CASCADE)) && open(&chips[1], irq - 8),
            _ => false,
        }
    }

    /// `callback` is called, outside of the device's lock, when an input may have been unmasked.
    /// Only the first callback given stays.
    pub fn set_on_unmask(&self, callback: Callback) {
        // A second callback is the board's mistake and harmless.
        let _ = self.on_unmask.set(callback);
    }

    /// Re-derives the cascade and INTR.
    fn sync(&self, inner: &mut Inner) {
        let level = inner.settle();
        if level != inner.level {
            inner.level = level;
            self.intr.set(level);
        }
    }

    /// Replaces the state, and drives INTR whatever its level was.
    fn replace(&self, edit: impl FnOnce(&mut [Chip; 2])) {
        let mut inner = lock(&self.inner);
        edit(&mut inner.chips);
        inner.level = inner.settle();
        self.intr.set(inner.level);
    }
}

fn write(chips: &mut [Chip; 2], at: u64, value: u8) {
    match at {
        MASTER..SLAVE => chips[0].write(at & 1 != 0, value),
        SLAVE..ELCR => chips[1].write(at & 1 != 0, value),
        _ => {
            let which = (at & 1) as usize;
            chips[which].elcr = value & !ELCR_FIXED[which];
        }
    }
}

impl BusDevice for Pic {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let mut inner = lock(&self.inner);
        read_bytes(offset, data, |at| match at {
            MASTER..SLAVE => inner.chips[0].read(at & 1 != 0, true),
            SLAVE..ELCR => inner.chips[1].read(at & 1 != 0, false),
            _ => inner.chips[(at & 1) as usize].elcr,
        });
        self.sync(&mut inner); // a poll acknowledges
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let mut inner = lock(&self.inner);
        let closed = |chips: &[Chip; 2]| {
            chips.map(|chip| if chip.phase == Phase::Ready { chip.imr } else { 0xff })
        };
        let before = closed(&inner.chips);
        write_bytes(offset, data, |at, byte| write(&mut inner.chips, at, byte));
        let after = closed(&inner.chips);
        self.sync(&mut inner);
        drop(inner);
        let unmasked = before[0] & !after[0] | before[1] & !after[1] != 0;
        if let (true, Some(callback)) = (unmasked, self.on_unmask.get()) {
            callback();
        }
    }
}

impl LineSink for Pic {
    fn set_line(&self, input: u32, level: bool) {
        let mut inner = lock(&self.inner);
        match u8::try_from(input) {
            Ok(CASCADE) => return,
            Ok(irq @ 0..8) => inner.chips[0].set_line(irq, level, true),
            Ok(irq @ 8..16) => inner.chips[1].set_line(irq - 8, level, true),
            _ => return,
        }
        self.sync(&mut inner);
    }
}

impl Device for Pic {
    fn reset(&self) {
        self.replace(|chips| *chips = chips.map(|chip| Chip::at_reset(chip.lines)));
    }

    fn save(&self) -> Section {
        Section::encode(&SavedPic::from(&lock(&self.inner).chips))
    }

    fn restore(&self, section: &Section) -> Result<(), SectionError> {
        let restored = <[Chip; 2]>::try_from(section.decode::<SavedPic>()?)?;
        self.replace(|chips| *chips = restored);
        Ok(())
    }
}
