//! Register scripts.

use super::*;
use crate::fakes::{Recorder, inb, outb};

const KEYBOARD: u32 = 1;
const MOUSE: u32 = 12;

struct Rig {
    wires: Arc<Recorder>,
    device: Arc<I8042>,
}

fn rig() -> Rig {
    let wires = Recorder::new();
    let device = I8042::new(wires.line(KEYBOARD), wires.line(MOUSE), wires.clone());
    Rig { wires, device }
}

impl Rig {
    fn command(&self, value: u8) {
        outb(&*self.device, STATUS_COMMAND, value);
    }

    fn data(&self, value: u8) {
        outb(&*self.device, DATA, value);
    }

    fn status(&self) -> u8 {
        inb(&*self.device, STATUS_COMMAND)
    }

    /// All that waits, as (from the mouse, byte).
    fn drain(&self) -> Vec<(bool, u8)> {
        let mut bytes = Vec::new();
        while self.status() & STR_OBF != 0 {
            let from_mouse = self.status() & STR_AUX_OBF != 0;
            bytes.push((from_mouse, inb(&*self.device, DATA)));
        }
        bytes
    }

    fn keyboard_says(&self) -> Vec<u8> {
        self.drain()
            .into_iter()
            .filter(|(from_mouse, _)| !from_mouse)
            .map(|(_, byte)| byte)
            .collect()
    }

    fn mouse_says(&self, to_mouse: &[u8]) -> Vec<u8> {
        let mut said = Vec::new();
        for byte in to_mouse {
            self.command(CMD_AUX_SEND);
            self.data(*byte);
            said.extend(self.drain().into_iter().filter(|(from, _)| *from).map(|(_, byte)| byte));
        }
        said
    }

    fn set_command_byte(&self, value: u8) {
        self.command(CMD_WRITE_RAM);
        self.data(value);
    }
}

const A: Key = Key { code: 0x1e, extended: false };
const RIGHT: Key = Key { code: 0x4d, extended: true };

#[test]
fn a_driver_finds_controller_keyboard_and_mouse() {
    let rig = rig();
    rig.command(CMD_SELF_TEST);
    assert_eq!(rig.keyboard_says(), [SELF_TEST_PASSED]);
    rig.command(CMD_READ_RAM);
    assert_eq!(rig.keyboard_says(), [CTR_AT_RESET]);
    rig.command(CMD_KBD_TEST);
    rig.command(CMD_AUX_TEST);
    assert_eq!(rig.keyboard_says(), [0, 0]);
    rig.command(CMD_AUX_LOOP);
    rig.data(0x5a);
    assert_eq!(rig.drain(), [(true, 0x5a)]);
    rig.data(0xf2);
    assert_eq!(rig.keyboard_says(), [ACK, 0xab, 0x41], "the identification is translated too");
    rig.set_command_byte(CTR_KBD_INT | CTR_AUX_INT);
    rig.data(0xf2);
    assert_eq!(rig.keyboard_says(), [ACK, 0xab, 0x83]);
    rig.data(0xff);
    assert_eq!(rig.keyboard_says(), [ACK, BAT_PASSED]);
    assert_eq!(rig.mouse_says(&[0xff]), [ACK, BAT_PASSED, 0]);
    assert_eq!(rig.mouse_says(&[0xf2]), [ACK, 0]);
}

#[test]
fn keys_are_translated_to_set_1_as_asked() {
    let rig = rig();
    rig.device.key(A, true);
    rig.device.key(A, false);
    rig.device.key(RIGHT, true);
    rig.device.key(RIGHT, false);
    assert_eq!(rig.keyboard_says(), [0x1e, 0x9e, 0xe0, 0x4d, 0xe0, 0xcd]);
    rig.set_command_byte(0);
    rig.device.key(A, true);
    rig.device.key(A, false);
    rig.device.key(RIGHT, false);
    assert_eq!(rig.keyboard_says(), [0x1c, 0xf0, 0x1c, 0xe0, 0xf0, 0x74]);
    rig.data(0xf0);
    rig.data(1);
    rig.data(0xf0);
    rig.data(0);
    assert_eq!(rig.keyboard_says(), [ACK, ACK, 1]);
    rig.device.key(A, false);
    assert_eq!(rig.keyboard_says(), [0x9e]);
}

#[test]
fn every_key_of_set_1_survives_the_way_through_set_2() {
    let rig = rig();
    for code in 1..=0x58 {
        rig.device.key(Key { code, extended: false }, true);
        assert_eq!(rig.keyboard_says(), [code]);
    }
}

#[test]
fn each_waiting_byte_is_an_edge_of_its_line() {
    let rig = rig();
    rig.set_command_byte(CTR_KBD_INT | CTR_AUX_INT | CTR_XLATE);
    rig.device.key(A, true);
    rig.device.key(A, false);
    assert_eq!((rig.wires.edges(KEYBOARD), rig.wires.level(KEYBOARD)), (1, true));
    inb(&*rig.device, DATA);
    assert_eq!((rig.wires.edges(KEYBOARD), rig.wires.level(KEYBOARD)), (2, true));
    inb(&*rig.device, DATA);
    assert!(!rig.wires.level(KEYBOARD));
    assert_eq!(inb(&*rig.device, DATA), 0x9e, "an empty buffer repeats");
    rig.command(CMD_AUX_SEND);
    rig.data(0xf4);
    assert!(rig.wires.level(MOUSE) && !rig.wires.level(KEYBOARD));
    rig.set_command_byte(CTR_KBD_INT);
    assert!(!rig.wires.level(MOUSE));
}

#[test]
fn a_disabled_keyboard_keeps_its_bytes() {
    let rig = rig();
    rig.command(CMD_KBD_DISABLE);
    rig.device.key(A, true);
    assert_eq!(rig.status() & STR_OBF, 0);
    rig.command(CMD_KBD_ENABLE);
    assert_eq!(rig.keyboard_says(), [0x1e]);
    rig.data(0xf5);
    assert_eq!(rig.keyboard_says(), [ACK]);
    rig.device.key(A, true);
    assert!(rig.drain().is_empty());
}

#[test]
fn a_full_keyboard_loses_whole_keys() {
    let rig = rig();
    rig.command(CMD_KBD_DISABLE);
    for _ in 0..20 {
        rig.device.key(RIGHT, true);
        rig.device.key(RIGHT, false);
    }
    rig.command(CMD_KBD_ENABLE);
    let said = rig.keyboard_says();
    assert_eq!(said[..4], [0xe0, 0x4d, 0xe0, 0xcd]);
    assert_eq!(said.len(), 12, "three keys are 15 of 16 bytes in set 2");
}

#[test]
fn keyboard_commands_take_parameters() {
    let rig = rig();
    for (bytes, answer) in [
        (&[0xee][..], &[0xee][..]),
        (&[0xed, 0x02], &[ACK, ACK]),
        (&[0xf3, 0x20], &[ACK, ACK]),
        (&[0xf0, 0x09], &[ACK, NAK]),
        (&[0x00], &[NAK]),
        (&[0xfe], &[NAK]),
    ] {
        let mut said = Vec::new();
        for byte in bytes {
            rig.data(*byte);
            said.extend(rig.keyboard_says());
        }
        assert_eq!(said, answer, "{bytes:x?}");
    }
}

#[test]
fn the_mouse_reports_motion_and_buttons() {
    let rig = rig();
    rig.device.mouse(Motion { right: 5, ..Motion::default() });
    assert!(rig.drain().is_empty(), "reporting is off");
    rig.mouse_says(&[0xf6, 0xf4]);
    rig.device.mouse(Motion { right: 300, up: -2, wheel: 0, buttons: 1 });
    let said: Vec<_> = rig.drain().into_iter().map(|(_, byte)| byte).collect();
    assert_eq!(said, [0x29, 255, 0xfe, 0x09, 45, 0]);
    assert_eq!(rig.mouse_says(&[0xe9]), [ACK, 0x24, 2, 100]);
    assert_eq!(rig.mouse_says(&[0xeb]), [ACK, 0x09, 0, 0]);
}

#[test]
fn a_knock_of_rates_shows_the_wheel() {
    let rig = rig();
    rig.mouse_says(&[0xf3, 200, 0xf3, 100, 0xf3, 80]);
    assert_eq!(rig.mouse_says(&[0xf2, 0xf4]), [ACK, 3, ACK]);
    rig.device.mouse(Motion { wheel: -1, ..Motion::default() });
    let said: Vec<_> = rig.drain().into_iter().map(|(_, byte)| byte).collect();
    assert_eq!(said, [0x08, 0, 0, 0xff]);
    assert_eq!(rig.mouse_says(&[0xee, 0x12, 0xf2, 0xec, 0xf2]), [ACK, 0x12, 0xf2, ACK, ACK, 3]);
}

#[test]
fn reset_pulses_and_the_output_port_reset_the_machine() {
    let rig = rig();
    rig.command(0xff);
    assert!(rig.wires.take_power().is_empty());
    rig.command(0xfe);
    assert_eq!(rig.wires.take_power(), [PowerEvent::Reset]);
    rig.command(CMD_WRITE_OUTPUT);
    rig.data(OUT_NO_RESET);
    assert!(rig.wires.take_power().is_empty());
    rig.command(CMD_WRITE_OUTPUT);
    rig.data(OUT_A20);
    assert_eq!(rig.wires.take_power(), [PowerEvent::Reset]);
    rig.command(CMD_READ_OUTPUT);
    assert_eq!(rig.keyboard_says(), [OUT_NO_RESET | OUT_A20]);
}

#[test]
fn restored_state_saves_equal_and_goes_on() {
    let old = rig();
    old.mouse_says(&[0xf3, 200, 0xf4]);
    old.device.key(A, true);
    old.device.key(RIGHT, false);
    old.device.mouse(Motion { right: 600, up: 3, wheel: 1, buttons: 2 });
    let section = old.device.save();
    let new = rig();
    new.device.restore(&section).unwrap();
    assert_eq!(new.device.save(), section);
    assert!(new.wires.level(KEYBOARD));
    assert_eq!(new.drain(), old.drain());
    new.device.reset();
    assert_eq!(new.device.save(), rig().device.save());
}
