//! The display on the board: where its memory is shown, and that it comes back.

use boot::layout;
use display::Picture;
use guest_memory::{Backing, RamOffset};
use x86_state::Topology;

use super::*;
use crate::event::EventLog;
use crate::spec::DisplaySpec;

/// `0:28.0`, by the configuration ports.
const FUNCTION: u32 = 0x8000_0000 | 28 << 11;
const BAR0: u32 = 0x10;
const COMMAND: u32 = 4;
const TEXT: u64 = 0xb_8000;

fn machine() -> Arc<Machine> {
    let profile = CpuProfile::portable(Topology { cores: 1 }, 2_000_000).unwrap();
    let spec = MachineSpec {
        time: machine_clock::TimeSource::Counted,
        display: Some(DisplaySpec { rom: None, registers: true, mode: Some((640, 480)) }),
        ..MachineSpec::new(profile, 64 << 20)
    };
    Machine::build(spec, EventLog::new()).unwrap()
}

fn set(machine: &Machine, register: u32, value: u32) {
    machine.pio_write(0xcf8, &(FUNCTION | register).to_le_bytes());
    machine.pio_write(0xcfc, &value.to_le_bytes());
}

fn vram(machine: &Machine) -> RamOffset {
    machine.memory().region(VRAM).unwrap().at
}

/// The frame buffer's memory is at this address.
fn is_shown(machine: &Machine, gpa: u64) -> bool {
    machine.memory().view().lookup(gpa) == Some((vram(machine), Backing::Ram))
}

fn picture(machine: &Machine) -> Picture {
    let mut picture = Picture::default();
    machine.display().unwrap().capture(&mut picture);
    picture
}

#[test]
fn the_frame_buffer_is_memory_where_the_guest_wants_it() {
    let machine = machine();
    set(&machine, COMMAND, 2);
    for base in [0xc000_0000, 0xd000_0000u32] {
        set(&machine, BAR0, base);
        assert!(is_shown(&machine, base.into()));
    }
    assert_eq!(machine.memory().view().lookup(0xc000_0000), None);
    set(&machine, COMMAND, 0);
    assert_eq!(machine.memory().view().lookup(0xd000_0000), None);
}

#[test]
fn the_frame_buffer_never_covers_ram_or_the_chips() {
    let machine = machine();
    set(&machine, COMMAND, 2);
    for base in [0x100_0000, 0xfe00_0000u32, 0xff00_0000] {
        set(&machine, BAR0, base);
        assert!(!is_shown(&machine, base.into()));
    }
    assert_eq!(machine.memory().view().lookup(0x100_0000).unwrap().0, RamOffset(0x100_0000));
    // Half of it would be RAM.
    set(&machine, BAR0, 0x0300_0000);
    assert!(!is_shown(&machine, 0x0300_0000));
}

#[test]
fn the_window_is_the_adapters_and_not_ram() {
    let machine = machine();
    assert_eq!(machine.memory().view().lookup(TEXT), None);
    assert_eq!(machine.memory().view().lookup(layout::VGA_WINDOW.base), None);
    let next = layout::VGA_WINDOW.end();
    assert_eq!(machine.memory().view().lookup(next).unwrap().0, RamOffset(next));
    // Text: the map mask, odd and even, the window at 0xb8000.
    machine.pio_write(0x3c4, &[2, 3]);
    machine.pio_write(0x3ce, &[5, 0x10]);
    machine.pio_write(0x3ce, &[6, 0x0e]);
    machine.pio_write(0x3ce, &[8, 0xff]);
    machine.mmio_write(TEXT, b"T\x07");
    let mut read = [0; 2];
    machine.mmio_read(TEXT, &mut read);
    assert_eq!(&read, b"T\x07");
}

#[test]
fn a_machine_with_a_display_comes_back_with_its_picture() {
    let before = machine();
    let screen = before.board.turn_screen_on().unwrap();
    assert_eq!((screen.width, screen.height), (640, 480));
    assert!(is_shown(&before, screen.gpa.into()));
    before.memory().write(vram(&before), &[0x12, 0x34, 0x56, 0]);
    assert_eq!(picture(&before).pixels[0], 0x56_3412);
    let after = machine();
    after.restore(&before.save()).unwrap();
    // Memory is the owner's to bring back; where it is shown is the board's.
    assert!(is_shown(&after, screen.gpa.into()));
    after.memory().write(vram(&after), &[0x12, 0x34, 0x56, 0]);
    assert!(picture(&after) == picture(&before));
    assert_eq!(after.save(), before.save());
    after.reset();
    assert!(!is_shown(&after, screen.gpa.into()));
    assert!(picture(&after).pixels.iter().all(|pixel| *pixel == 0));
}

#[test]
fn a_display_comes_with_a_tablet_and_a_keyboard() {
    let machine = machine();
    let functions: Vec<_> = machine
        .save()
        .into_iter()
        .map(|section| section.path)
        .filter(|p| p.contains("1c"))
        .collect();
    assert_eq!(functions.len(), 5, "{functions:?}");
    assert!(!machine.tablet().unwrap().is_driven() && !machine.keyboard().unwrap().is_driven());
}
