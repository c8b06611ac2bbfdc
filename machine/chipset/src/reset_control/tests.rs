//! Register scripts.

use super::*;
use crate::fakes::{Recorder, inb, outb};

fn rig() -> (Arc<Recorder>, Arc<ResetControl>) {
    let wires = Recorder::new();
    (wires.clone(), ResetControl::new(wires))
}

#[test]
fn a_rising_edge_of_rst_cpu_resets() {
    let (wires, device) = rig();
    outb(&*device, RST_CNT, 0x02);
    assert!(wires.take_power().is_empty());
    outb(&*device, RST_CNT, 0x06);
    assert_eq!(wires.take_power(), [PowerEvent::Reset]);
    outb(&*device, RST_CNT, 0x0e);
    assert!(wires.take_power().is_empty());
    assert_eq!(inb(&*device, RST_CNT), 0x0e);
}

#[test]
fn port_a_resets_and_leaves_a20_open() {
    let (wires, device) = rig();
    outb(&*device, SYSTEM_CONTROL_A, 0);
    assert_eq!(inb(&*device, SYSTEM_CONTROL_A), A20);
    outb(&*device, SYSTEM_CONTROL_A, 1);
    assert_eq!(wires.take_power(), [PowerEvent::Reset]);
}

#[test]
fn restored_state_saves_equal_and_goes_on() {
    let (_, old) = rig();
    outb(&*old, RST_CNT, 0x04);
    let (wires, new) = rig();
    new.restore(&old.save()).unwrap();
    assert_eq!(new.save(), old.save());
    outb(&*new, RST_CNT, 0x04);
    assert!(wires.take_power().is_empty(), "no edge");
    new.reset();
    outb(&*new, RST_CNT, 0x04);
    assert_eq!(wires.take_power(), [PowerEvent::Reset]);
}
