//! Register scripts.

use super::*;
use crate::fakes::{Recorder, inb, outb};

const INTR: u32 = 100;
const SLAVE_DATA: u64 = SLAVE + 1;
const MASTER_DATA: u64 = MASTER + 1;

fn fresh() -> (Arc<Recorder>, Arc<Pic>) {
    let wires = Recorder::new();
    let pic = Pic::new(wires.line(INTR));
    (wires, pic)
}

/// As a PC's firmware does it: vectors 0x20 and 0x28, nothing masked.
fn initialised(icw4: u8) -> (Arc<Recorder>, Arc<Pic>) {
    let (wires, pic) = fresh();
    for (chip, base, cascade) in [(MASTER, 0x20, 4), (SLAVE, 0x28, 2)] {
        outb(&*pic, chip, 0x11);
        for word in [base, cascade, icw4] {
            outb(&*pic, chip + 1, word);
        }
    }
    (wires, pic)
}

fn pulse(pic: &Pic, irq: u32) {
    pic.set_line(irq, true);
    pic.set_line(irq, false);
}

#[test]
fn uninitialised_chips_request_nothing() {
    let (wires, pic) = fresh();
    pulse(&pic, 1);
    assert!(!wires.level(INTR));
    assert_eq!(pic.ack(), None);
    assert!(!pic.is_unmasked(1));
}

#[test]
fn an_edge_is_acknowledged_once_and_ended() {
    let (wires, pic) = initialised(1);
    pic.set_line(4, true);
    assert!(wires.level(INTR));
    assert_eq!(inb(&*pic, MASTER), 0x10);
    assert_eq!(pic.ack(), Some(0x24));
    assert!(!wires.level(INTR));
    outb(&*pic, MASTER, 0x0b);
    assert_eq!(inb(&*pic, MASTER), 0x10);
    outb(&*pic, MASTER, 0x20);
    assert_eq!(inb(&*pic, MASTER), 0);
    assert!(!wires.level(INTR), "the line is still high, but there was no new edge");
    pic.set_line(4, false);
    pic.set_line(4, true);
    assert!(wires.level(INTR));
}

#[test]
fn a_higher_priority_interrupts_and_a_lower_waits() {
    let (wires, pic) = initialised(1);
    pulse(&pic, 5);
    assert_eq!(pic.ack(), Some(0x25));
    pulse(&pic, 6);
    assert!(!wires.level(INTR));
    pulse(&pic, 1);
    assert_eq!(pic.ack(), Some(0x21));
    outb(&*pic, MASTER, 0x20);
    assert!(!wires.level(INTR));
    outb(&*pic, MASTER, 0x20);
    assert_eq!(pic.ack(), Some(0x26));
}

#[test]
fn the_slave_requests_through_the_cascade() {
    let (wires, pic) = initialised(1);
    pulse(&pic, 8);
    pulse(&pic, 12);
    assert_eq!(pic.ack(), Some(0x28));
    outb(&*pic, MASTER, 0x0b);
    assert_eq!(inb(&*pic, MASTER), 4);
    outb(&*pic, MASTER, 0x62);
    assert!(!wires.level(INTR), "IRQ 8 is in service at the slave");
    outb(&*pic, SLAVE, 0x20);
    assert_eq!(pic.ack(), Some(0x2c));
    outb(&*pic, MASTER_DATA, 4);
    assert!(!pic.is_unmasked(8));
    outb(&*pic, MASTER_DATA, 0);
    assert!(pic.is_unmasked(8));
}

#[test]
fn special_fully_nested_mode_lets_the_slave_interrupt_itself() {
    let (wires, pic) = initialised(0x11);
    pulse(&pic, 12);
    assert_eq!(pic.ack(), Some(0x2c));
    pulse(&pic, 8);
    assert!(wires.level(INTR));
    assert_eq!(pic.ack(), Some(0x28));
}

#[test]
fn level_triggered_inputs_request_as_long_as_they_are_high() {
    let (wires, pic) = initialised(1);
    pic.write(ELCR, &[0xff, 0xff]);
    assert_eq!((inb(&*pic, ELCR), inb(&*pic, ELCR + 1)), (0xf8, 0xde));
    pic.set_line(10, true);
    assert_eq!(pic.ack(), Some(0x2a));
    outb(&*pic, SLAVE, 0x20);
    outb(&*pic, MASTER, 0x20);
    assert!(wires.level(INTR));
    pic.set_line(10, false);
    assert!(!wires.level(INTR));
}

#[test]
fn a_request_that_is_gone_is_spurious_and_not_in_service() {
    let (_, pic) = initialised(1);
    outb(&*pic, ELCR, 0x20);
    pic.set_line(5, true);
    pic.set_line(5, false);
    assert_eq!(pic.ack(), Some(0x27));
    outb(&*pic, MASTER, 0x0b);
    assert_eq!(inb(&*pic, MASTER), 0);
}

#[test]
fn masking_holds_a_request_back() {
    let (wires, pic) = initialised(1);
    outb(&*pic, SLAVE_DATA, 0xff);
    outb(&*pic, MASTER_DATA, 0x02);
    pulse(&pic, 1);
    pulse(&pic, 9);
    assert!(!wires.level(INTR));
    assert_eq!(inb(&*pic, MASTER_DATA), 2);
    outb(&*pic, MASTER_DATA, 0);
    assert_eq!(pic.ack(), Some(0x21));
}

#[test]
fn special_mask_mode_lets_lower_priorities_through() {
    let (wires, pic) = initialised(1);
    pulse(&pic, 3);
    pic.ack();
    pulse(&pic, 6);
    assert!(!wires.level(INTR));
    outb(&*pic, MASTER, 0x68);
    outb(&*pic, MASTER_DATA, 0x08);
    assert_eq!(pic.ack(), Some(0x26));
    outb(&*pic, MASTER, 0x20);
    outb(&*pic, MASTER, 0x0b);
    assert_eq!(inb(&*pic, MASTER), 0x08, "the unspecific EOI passed over the masked one");
}

#[test]
fn automatic_eoi_leaves_nothing_in_service() {
    let (wires, pic) = initialised(3);
    pulse(&pic, 9);
    pulse(&pic, 10);
    assert_eq!(pic.ack(), Some(0x29));
    assert!(wires.level(INTR));
    assert_eq!(pic.ack(), Some(0x2a));
    assert!(!wires.level(INTR));
}

#[test]
fn rotation_makes_the_served_input_the_lowest() {
    let (_, pic) = initialised(1);
    pulse(&pic, 3);
    pic.ack();
    outb(&*pic, MASTER, 0xa0);
    pulse(&pic, 3);
    pulse(&pic, 4);
    assert_eq!(pic.ack(), Some(0x24));
    // Set priority: 5 is the lowest, so 6 is the highest.
    outb(&*pic, MASTER, 0x20);
    outb(&*pic, MASTER, 0xc5);
    pulse(&pic, 6);
    assert_eq!(pic.ack(), Some(0x26));
    // Rotate in automatic EOI.
    let (_, pic) = initialised(3);
    outb(&*pic, MASTER, 0x80);
    pulse(&pic, 1);
    pic.ack();
    pulse(&pic, 1);
    pulse(&pic, 7);
    assert_eq!(pic.ack(), Some(0x27));
}

#[test]
fn a_poll_acknowledges_without_a_vector() {
    let (wires, pic) = initialised(1);
    outb(&*pic, MASTER, 0x0c);
    assert_eq!(inb(&*pic, MASTER), 0);
    pulse(&pic, 6);
    outb(&*pic, MASTER, 0x0c);
    assert_eq!(inb(&*pic, MASTER), 0x86);
    assert!(!wires.level(INTR));
    outb(&*pic, MASTER, 0x0b);
    assert_eq!(inb(&*pic, MASTER), 0x40);
}

#[test]
fn icw1_forgets_requests_and_masks() {
    let (wires, pic) = initialised(1);
    outb(&*pic, MASTER_DATA, 0xf0);
    pulse(&pic, 1);
    outb(&*pic, MASTER, 0x13);
    assert!(!wires.level(INTR));
    outb(&*pic, MASTER_DATA, 0x40);
    outb(&*pic, MASTER_DATA, 0x01);
    assert_eq!((inb(&*pic, MASTER_DATA), inb(&*pic, MASTER)), (0, 0));
    pulse(&pic, 0);
    assert_eq!(pic.ack(), Some(0x40));
}

#[test]
fn unmasking_is_told() {
    let (_, pic) = initialised(1);
    let told = Arc::new(Mutex::new(0));
    let count = told.clone();
    pic.set_on_unmask(Box::new(move || *lock(&count) += 1));
    outb(&*pic, MASTER_DATA, 0xff);
    outb(&*pic, MASTER_DATA, 0xff);
    assert_eq!(*lock(&told), 0);
    outb(&*pic, MASTER_DATA, 0xfe);
    assert_eq!(*lock(&told), 1);
}

#[test]
fn restored_state_saves_equal_and_goes_on() {
    let (_, old) = initialised(1);
    pulse(&old, 9);
    pulse(&old, 1);
    old.ack();
    let section = old.save();
    let (wires, new) = fresh();
    new.restore(&section).unwrap();
    assert_eq!(new.save(), section);
    assert!(!wires.level(INTR));
    outb(&*new, MASTER, 0x20);
    assert_eq!(new.ack(), Some(0x29));
    new.reset();
    assert_eq!(new.save(), fresh().1.save());
}
