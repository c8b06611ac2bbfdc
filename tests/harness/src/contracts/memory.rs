//! RAM, ROM, MMIO and the dirty log.

use std::thread;
use std::time::Duration;

use guest_memory::{Backing, DirtyBitmap};
use x86_state::Gpr;

use crate::{Machine, Subject, guest};

const MIB: u64 = 1 << 20;

pub(super) fn rom_is_read_as_memory_and_written_as_mmio(subject: &Subject) {
    let mut machine = Machine::about_to_run(subject, guest::exchange(), |state| {
        state.regs.gpr[Gpr::Rsi as usize] = 0x20_0010;
        state.regs.gpr[Gpr::Rax as usize] = 0x1234;
    });
    machine.set_view(&[(0, 2 * MIB, 0, Backing::Ram), (2 * MIB, MIB, 2 * MIB, Backing::Rom)]);
    machine.write(0x20_0010, 0xabcd);
    machine.run_until_done();
    assert_eq!(machine.bus.take_shown(), [0xabcd, 0xabcd]);
    assert_eq!(machine.bus.take_rom_writes(), [(0x20_0010, vec![0x34, 0x12, 0, 0])]);
    assert_eq!(machine.read(0x20_0010), 0xabcd);
}

pub(super) fn what_nothing_backs_is_mmio(subject: &Subject) {
    let nowhere = 0xd000_0800;
    let mut machine = Machine::about_to_run(subject, guest::exchange(), |state| {
        state.regs.gpr[Gpr::Rsi as usize] = nowhere;
    });
    machine.run_until_done();
    assert_eq!(machine.bus.take_shown(), [u32::MAX; 2]);
    assert_eq!(machine.bus.unclaimed().get(&nowhere), Some(&3));
}

pub(super) fn the_dirty_log_has_what_was_written(subject: &Subject) {
    let page = 0x155;
    let mut machine = Machine::about_to_run(subject, guest::store(), |state| {
        state.regs.gpr[Gpr::Rsi as usize] = (page << 12) + 0x10;
    });
    let harvest = |machine: &Machine| {
        let dirty = DirtyBitmap::new(machine.memory.bits().pages());
        machine.memory.bits().harvest_dirty(&dirty);
        machine.complex.harvest_dirty(&dirty).unwrap();
        dirty
    };
    machine.complex.set_dirty_log(true).unwrap();
    machine.memory.bits().watch_dirty(true);
    machine.run_until_done();
    harvest(&machine);
    for _ in 0..3 {
        assert!(!harvest(&machine).get(page as usize), "nothing ran since the last harvest");
        machine.run_until_done();
        let dirty = harvest(&machine);
        assert!(dirty.get(page as usize));
        assert!(!dirty.get(page as usize + 1) && !dirty.get(page as usize - 1));
    }
    // A page's mark outlives the view it was written under.
    machine.run_until_done();
    machine.set_view(&[(0, MIB, 0, Backing::Ram)]);
    machine.set_view(&[(0, 4 * MIB, 0, Backing::Ram)]);
    assert!(harvest(&machine).get(page as usize));
    machine.complex.set_dirty_log(false).unwrap();
    machine.memory.bits().watch_dirty(false);
    machine.run_until_done();
}

pub(super) fn locked_accesses_are_atomic_wherever_they_are(subject: &Subject) {
    const TIMES: u64 = 30_000;
    // Aligned, split over cache lines, and over pages.
    for at in [Machine::DATA, Machine::DATA + 0x3c, Machine::DATA + 0xffc] {
        let mut machine = Machine::new(subject, 2);
        for id in 0..2 {
            machine.place(id, guest::locked());
            let mut state = machine.long_mode(id);
            state.regs.gpr[Gpr::Rsi as usize] = at;
            state.regs.gpr[Gpr::Rcx as usize] = TIMES;
            machine.vcpus[id].load(&state).unwrap();
        }
        machine.run_all_until_done();
        assert_eq!(machine.read(at), 2 * TIMES, "at {at:#x}");
    }
}

pub(super) fn memory_stays_there_while_the_view_changes(subject: &Subject) {
    let mut machine = Machine::about_to_run(subject, guest::hammer(), |state| {
        state.regs.gpr[Gpr::Rsi as usize] = Machine::DATA;
    });
    machine.run_while(|machine| {
        for n in 0..100 {
            let size = if n % 2 == 0 { 2 } else { 4 } * MIB;
            machine.set_view(&[(0, size, 0, Backing::Ram)]);
            thread::sleep(Duration::from_micros(n * 10));
        }
    });
    assert!(machine.read(Machine::DATA) > 0);
    assert!(machine.bus.unclaimed().is_empty(), "RAM was MMIO for a moment");
}
