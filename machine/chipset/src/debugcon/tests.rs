//! Register scripts.

use super::*;
use crate::fakes::{Recorder, inb, outb};

#[test]
fn firmware_finds_it_and_writes_to_it() {
    let sink = Recorder::new();
    let device = DebugCon::new(sink.clone());
    assert_eq!(inb(&*device, 0), PRESENT);
    b"hi".iter().for_each(|byte| outb(&*device, 0, *byte));
    assert_eq!(sink.take_bytes(), b"hi");
}

#[test]
fn only_its_own_section_is_restored() {
    let device = DebugCon::new(Recorder::new());
    let section = device.save();
    device.restore(&section).unwrap();
    assert!(device.restore(&Section { kind: "uart".into(), ..section }).is_err());
}
