//! The wiring of interrupt lines: each goes to both controllers.

use std::sync::{Arc, Mutex};

use bus::LineSink;

use crate::{Callback, IoApic, Pic, lock};

/// IRQs of the board. Inputs 0 to 15 are the ISA IRQs, wired to the PIC and to the IOAPIC; inputs
/// 16 to 23 reach the IOAPIC only. IRQ 0 is input 2 of the IOAPIC, where the PIC's cascade would
/// be: the ACPI tables say so in an interrupt source override.
///
/// *Lock*: a leaf but for driving the controllers' inputs.
pub struct IrqLines {
    pic: Arc<Pic>,
    ioapic: Arc<IoApic>,
    /// What devices of ISA and what PCI's interrupt router drive, which may share an input.
    driven: Mutex<[u32; 2]>,
}

/// The inputs, for PCI's interrupt router.
pub struct PciLines(Arc<IrqLines>);

const PIT_IRQ: u32 = 0;
const CASCADE_IRQ: u32 = 2;

impl IrqLines {
    /// Wires both controllers.
    pub fn new(pic: Arc<Pic>, ioapic: Arc<IoApic>) -> Arc<Self> {
        Arc::new(Self { pic, ioapic, driven: Mutex::default() })
    }

    /// The same inputs, for whoever shares them with devices of ISA.
    pub fn for_pci(self: &Arc<Self>) -> Arc<PciLines> {
        Arc::new(PciLines(self.clone()))
    }

    fn drive(&self, who: usize, input: u32, level: bool) {
        if input == CASCADE_IRQ {
            return;
        }
        let bit = 1u32.checked_shl(input).unwrap_or(0);
        let mut driven = lock(&self.driven);
        driven[who] = if level { driven[who] | bit } else { driven[who] & !bit };
        let level = level || driven.iter().any(|levels| levels & bit != 0);
        self.pic.set_line(input, level);
        self.ioapic.set_line(gsi(input), level);
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
        self.drive(0, input, level);
    }
}

impl LineSink for PciLines {
    fn set_line(&self, input: u32, level: bool) {
        self.0.drive(1, input, level);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::fakes::{Recorder, outb, outl};
    use crate::{ioapic, pic};

    struct Rig {
        wires: Arc<Recorder>,
        pic: Arc<Pic>,
        ioapic: Arc<IoApic>,
        lines: Arc<IrqLines>,
    }

    fn rig() -> Rig {
        let wires = Recorder::new();
        let pic = Pic::new(wires.line(0));
        let ioapic = IoApic::new(wires.clone(), wires.clone());
        let lines = IrqLines::new(pic.clone(), ioapic.clone());
        for (offset, word) in [(0, 0x11), (1, 0x20), (1, 4), (1, 1), (1, 0xff)] {
            outb(&*pic, pic::spec::MASTER + offset, word);
        }
        Rig { wires, pic, ioapic, lines }
    }

    impl Rig {
        fn unmask_ioapic(&self, input: u8) {
            let register = ioapic::spec::IOREDTBL + 2 * input;
            outb(&*self.ioapic, ioapic::spec::IOREGSEL, register);
            outl(&*self.ioapic, ioapic::spec::IOWIN, 0x30 + u32::from(input));
        }
    }

    #[test]
    fn the_pit_reaches_input_2_of_the_ioapic_and_nothing_else_does() {
        let rig = rig();
        for input in [0, 2, 17] {
            rig.unmask_ioapic(input);
        }
        for irq in [0, 2, 17] {
            rig.lines.set_line(irq, true);
        }
        let vectors: Vec<_> = rig.wires.take_msis().iter().map(|msi| msi.vector()).collect();
        assert_eq!(vectors, [0x32, 0x30 + 17]);
    }

    #[test]
    fn an_input_that_isa_and_pci_share_is_low_when_neither_drives_it() {
        let rig = rig();
        let register = ioapic::spec::IOREDTBL + 2 * 9;
        outb(&*rig.ioapic, ioapic::spec::IOREGSEL, register);
        outl(&*rig.ioapic, ioapic::spec::IOWIN, 0x8039); // level-triggered
        let pci = rig.lines.for_pci();
        let sent = || rig.wires.take_msis().len();
        rig.lines.set_line(9, true);
        pci.set_line(9, true);
        assert_eq!(sent(), 1);
        rig.lines.set_line(9, false);
        rig.ioapic.eoi(0x39);
        assert_eq!(sent(), 1, "PCI's is still there");
        pci.set_line(9, false);
        rig.ioapic.eoi(0x39);
        assert_eq!(sent(), 0);
    }

    #[test]
    fn a_line_is_heard_by_either_controller_and_its_unmasking_is_told() {
        let rig = rig();
        let told = Arc::new(AtomicUsize::new(0));
        let count = told.clone();
        rig.lines.set_on_unmask(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert!(!rig.lines.is_heard(0));
        rig.unmask_ioapic(2);
        assert!(rig.lines.is_heard(0) && !rig.lines.is_heard(1));
        outb(&*rig.pic, pic::spec::MASTER + 1, 0xfd);
        assert!(rig.lines.is_heard(1));
        assert_eq!(told.load(Ordering::Relaxed), 2);
    }
}
