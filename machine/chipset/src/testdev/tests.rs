//! Register scripts.

use super::*;
use crate::fakes::{Recorder, inb, inl, outb, outl};

fn rig() -> (Arc<Recorder>, Arc<TestDevice>) {
    let wires = Recorder::new();
    (wires.clone(), TestDevice::new(wires.clone(), wires))
}

#[test]
fn the_latch_reads_as_written_in_each_width() {
    let (_, device) = rig();
    outl(&*device, LATCH, 0x1234_5678);
    assert_eq!(inl(&*device, LATCH), 0x1234_5678);
    device.write(LATCH, &[0xbb, 0xaa]);
    outb(&*device, LATCH, 0xcc);
    assert_eq!(inl(&*device, LATCH), 0x1234_aacc);
}

#[test]
fn a_page_is_unmapped_by_any_address_in_it() {
    let (wires, device) = rig();
    outl(&*device, UNMAP, 0xfed0_0123);
    assert_eq!(wires.take_pages(), [0xfed0_0000]);
}

#[test]
fn an_irq_port_drives_its_line() {
    let (wires, device) = rig();
    outb(&*device, IRQ + 9, 1);
    assert!(wires.level(9));
    assert_eq!((inb(&*device, IRQ + 9), inb(&*device, IRQ + 8)), (1, 0));
    outb(&*device, IRQ + 9, 0);
    assert!(!wires.level(9));
    outb(&*device, IRQ + IRQS, 1);
    assert_eq!(inb(&*device, IRQ + IRQS), 0);
}

#[test]
fn restored_state_saves_equal_and_goes_on() {
    let (_, old) = rig();
    outb(&*old, IRQ + 23, 1);
    outl(&*old, LATCH, 7);
    let (wires, new) = rig();
    new.restore(&old.save()).unwrap();
    assert_eq!(new.save(), old.save());
    assert!(wires.level(23));
    assert_eq!(inl(&*new, LATCH), 7);
    new.reset();
    assert!(!wires.level(23));
    assert_eq!(new.save(), rig().1.save());
}
