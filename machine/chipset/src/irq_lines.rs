//! The wiring of interrupt lines: each goes to both controllers.

use std::sync::Arc;

use bus::LineSink;

use crate::{Callback, IoApic, Pic};

/// IRQs of the board. Inputs 0 to 15 are the ISA IRQs, wired to the PIC and to the IOAPIC; inputs
/// 16 to 23 reach the IOAPIC only. IRQ 0 is input 2 of the IOAPIC, where the PIC's cascade would
/// be: the ACPI tables say so in an interrupt source override.
pub struct IrqLines {
    pic: Arc<Pic>,
    ioapic: Arc<IoApic>,
}

const PIT_IRQ: u32 = 0;
const CASCADE_IRQ: u32 = 2;

impl IrqLines {
    /// Wires both controllers.
    pub fn new(pic: Arc<Pic>, ioapic: Arc<IoApic>) -> Arc<Self> {
        Arc::new(Self { pic, ioapic })
    }

    /// An interrupt on this line could get through a controller now. A periodic source that is
    /// not heard need not tick.
    pub fn is_heard(&self, irq: u32) -> bool {
        self.pic.is_unmasked(irq) || self.ioapic.is_unmasked(gsi(irq))
    }

    /// `callback` is called whenever a line may have become heard. Only the first one given stays.
    pub fn set_on_unmask(&self, callback: impl Fn() + Clone + Send + Sync + 'static) {
        self.pic.set_on_unmask(Box::new(callback.clone()) as Callback);
        self.ioapic.set_on_unmask(Box::new(callback) as Callback);
    }
}

fn gsi(irq: u32) -> u32 {
    if irq == PIT_IRQ { CASCADE_IRQ } else { irq }
}

impl LineSink for IrqLines {
    fn set_line(&self, input: u32, level: bool) {
        if input == CASCADE_IRQ {
            return;
        }
        self.pic.set_line(input, level);
        self.ioapic.set_line(gsi(input), level);
    }
}
