//! Register scripts.

use super::*;
use crate::fakes::{Recorder, outb, outl};

#[test]
fn a_write_of_any_width_ends_the_run() {
    let wires = Recorder::new();
    let device = DebugExit::new(wires.clone());
    outb(&*device, 0, 0);
    device.write(0, &[0x34, 0x12]);
    outl(&*device, 0, 0x8000_0001);
    let exits = [1, 0x2469, 3].map(PowerEvent::DebugExit);
    assert_eq!(wires.take_power(), exits);
}

#[test]
fn only_its_own_section_is_restored() {
    let device = DebugExit::new(Recorder::new());
    let section = device.save();
    device.restore(&section).unwrap();
    assert!(device.restore(&Section { kind: "uart".into(), ..section }).is_err());
}
