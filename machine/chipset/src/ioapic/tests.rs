//! Register scripts.

use super::*;
use crate::fakes::{Recorder, inl, outb, outl};

struct Rig {
    wires: Arc<Recorder>,
    ioapic: Arc<IoApic>,
}

fn rig() -> Rig {
    let wires = Recorder::new();
    let ioapic = IoApic::new(wires.clone(), wires.clone());
    Rig { wires, ioapic }
}

impl Rig {
    fn get(&self, register: u8) -> u32 {
        outb(&*self.ioapic, IOREGSEL, register);
        inl(&*self.ioapic, IOWIN)
    }

    fn set(&self, register: u8, value: u32) {
        outl(&*self.ioapic, IOREGSEL, u32::from(register));
        outl(&*self.ioapic, IOWIN, value);
    }

    fn program(&self, input: u8, low: u32, destination: u8) {
        self.set(IOREDTBL + 2 * input + 1, u32::from(destination) << 24);
        self.set(IOREDTBL + 2 * input, low);
    }

    fn sent(&self) -> Vec<u8> {
        self.wires.take_msis().iter().map(Msi::vector).collect()
    }
}

const LEVEL: u32 = 1 << 15;
const MASKED: u32 = 1 << 16;
const REMOTE_IRR: u32 = 1 << 14;

#[test]
fn identification_says_24_inputs_and_version_0x20() {
    let rig = rig();
    assert_eq!(rig.get(IOAPICVER), 0x0017_0020);
    rig.set(IOAPICID, 0x0500_0000);
    assert_eq!((rig.get(IOAPICID), rig.get(IOAPICARB)), (0x0500_0000, 0x0500_0000));
    assert_eq!(rig.get(IOREDTBL), MASKED);
    assert_eq!(rig.get(0x40), 0);
}

#[test]
fn a_shorter_table_ends_where_it_says() {
    let wires = Recorder::new();
    let rig = Rig { wires: wires.clone(), ioapic: IoApic::with_inputs(10, wires.clone(), wires) };
    assert_eq!(rig.get(IOAPICVER), 0x0009_0020);
    rig.program(9, 0x31, 0);
    rig.program(10, 0x32, 0);
    assert_eq!((rig.get(IOREDTBL + 18), rig.get(IOREDTBL + 20)), (0x31, 0));
    (8..24).for_each(|input| rig.ioapic.set_line(input, true));
    assert_eq!(rig.sent(), [0x31]);
}

#[test]
fn an_edge_is_one_message() {
    let rig = rig();
    rig.program(4, 0x0931, 0x42); // lowest priority, logical
    rig.ioapic.set_line(4, true);
    rig.ioapic.set_line(4, true);
    rig.ioapic.set_line(4, false);
    let msis = rig.wires.take_msis();
    assert_eq!(msis, [Msi { address: 0xfee4_2004, data: 0x4131 }]);
    assert!(msis[0].logical() && !msis[0].level_triggered());
    assert_eq!(msis[0].destination(), 0x42);
}

#[test]
fn masked_entry_sends_nothing() {
    let rig = rig();
    rig.program(4, 0x31 | MASKED, 0);
    rig.ioapic.set_line(4, true);
    rig.program(4, 0x31, 0);
    assert_eq!(rig.sent(), [], "the edge came while masked and is lost");
    rig.program(5, 0x35 | LEVEL | MASKED, 0);
    rig.ioapic.set_line(5, true);
    assert_eq!(rig.sent(), []);
    rig.program(5, 0x35 | LEVEL, 0);
    assert_eq!(rig.sent(), [0x35]);
}

#[test]
fn a_level_is_sent_again_after_eoi_while_high() {
    let rig = rig();
    rig.program(9, 0x51 | LEVEL, 0);
    rig.ioapic.set_line(9, true);
    rig.ioapic.set_line(9, true);
    assert_eq!(rig.sent(), [0x51]);
    assert_eq!(rig.get(IOREDTBL + 18), 0x51 | LEVEL | REMOTE_IRR);
    rig.ioapic.eoi(0x50);
    assert_eq!(rig.sent(), []);
    rig.ioapic.eoi(0x51);
    assert_eq!(rig.sent(), [0x51]);
    rig.ioapic.set_line(9, false);
    outl(&*rig.ioapic, IOEOI, 0x51);
    assert_eq!(rig.sent(), []);
    assert_eq!(rig.get(IOREDTBL + 18), 0x51 | LEVEL);
}

#[test]
fn making_an_entry_edge_triggered_ends_it() {
    let rig = rig();
    rig.program(9, 0x51 | LEVEL, 0);
    rig.ioapic.set_line(9, true);
    rig.program(9, 0x51 | MASKED, 0);
    rig.program(9, 0x51 | LEVEL | MASKED, 0);
    assert_eq!(rig.get(IOREDTBL + 18), 0x51 | LEVEL | MASKED);
    rig.sent();
    rig.program(9, 0x51 | LEVEL, 0);
    assert_eq!(rig.sent(), [0x51]);
}

#[test]
fn routes_are_told_when_a_level_entry_changes_and_only_then() {
    let rig = rig();
    rig.program(4, 0x31, 0);
    assert!(rig.wires.take_routes().is_empty());
    rig.program(9, 0x51 | LEVEL | MASKED, 3);
    let told = rig.wires.take_routes();
    assert_eq!(told.len(), 1);
    let route = told[0][9].unwrap();
    assert!(route.level_triggered() && route.vector() == 0x51 && route.destination() == 3);
    assert_eq!(told[0].iter().flatten().count(), 1);
    rig.program(9, 0x51 | LEVEL, 3);
    assert!(rig.wires.take_routes().is_empty());
    rig.ioapic.reset();
    assert_eq!(rig.wires.take_routes(), [vec![None; INPUTS]]);
}

#[test]
fn an_entry_masked_in_service_keeps_its_route_on_another_engine() {
    let old = rig();
    old.program(9, 0x51 | LEVEL, 0);
    old.ioapic.set_line(9, true);
    old.program(9, 0x51 | LEVEL | MASKED, 0);
    let new = rig();
    new.ioapic.restore(&old.ioapic.save()).unwrap();
    let told = new.wires.take_routes();
    assert_eq!(told[0][9].map(|route| route.vector()), Some(0x51), "its EOI is awaited");
}

#[test]
fn narrow_writes_to_the_window_are_ignored() {
    let rig = rig();
    outb(&*rig.ioapic, IOREGSEL, IOREDTBL);
    outb(&*rig.ioapic, IOWIN, 0x31);
    assert_eq!(rig.get(IOREDTBL), MASKED);
    let mut half = [0; 2];
    rig.ioapic.read(IOWIN + 2, &mut half);
    assert_eq!(half, [1, 0]);
}

#[test]
fn restored_state_saves_equal_and_goes_on() {
    let old = rig();
    old.program(9, 0x51 | LEVEL, 0);
    old.program(1, 0x30, 0);
    old.ioapic.set_line(9, true);
    let section = old.ioapic.save();
    let new = rig();
    new.ioapic.restore(&section).unwrap();
    assert_eq!(new.ioapic.save(), section);
    assert_eq!(new.wires.take_routes().len(), 1);
    assert_eq!(new.sent(), [], "it was sent before, and is not lost in the CPU");
    new.ioapic.eoi(0x51);
    new.ioapic.set_line(1, true);
    assert_eq!(new.sent(), [0x51, 0x30]);
    new.ioapic.set_line(9, false);
    new.ioapic.set_line(1, false);
    new.ioapic.reset();
    assert_eq!(new.ioapic.save(), rig().ioapic.save());
}
