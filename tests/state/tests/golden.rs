//! What any version saved can be restored, and means what it meant.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fs;

use board::{NamedSection, restore_vcpu, save_vcpu};
use engine::{Engine, Parts};
use engine_full::FullEngine;
use guest_memory::GuestMemory;
use machine_clock::{MachineClock, TimeSource};
use state_tests::{Saved, Vm, fields, golden};
use x86_state::bits::{Cr0, Efer};
use x86_state::{Activity, VcpuId};

const SIZE_MAX: usize = 64 << 10;

#[test]
fn every_file_can_be_restored() {
    let files = golden::files();
    assert!(!files.is_empty());
    for path in files {
        let file = fs::read(&path).unwrap();
        assert!(file.len() < SIZE_MAX, "{}", path.display());
        let mut vm = Saved::unpack(golden::CORES, &file);
        let bus = vm.bus();
        for (offset, value) in golden::HPET_MARKS {
            assert_eq!(golden::hpet(bus, offset), value, "HPET {offset:#x}");
        }
        let mut byte = [0];
        bus.pio_read(golden::SCRATCH.0, &mut byte);
        assert_eq!(byte, [golden::SCRATCH.1]);
        // The index register still says which byte.
        bus.pio_read(0x71, &mut byte);
        assert_eq!(byte, [golden::CMOS.1]);
        let mut latch = [0; 4];
        bus.pio_read(0xe0, &mut latch);
        assert_eq!(latch, golden::LATCH.to_le_bytes());
        bus.pio_read(0x511, &mut byte);
        assert_eq!(byte, [golden::FW_CFG.1]);
        for id in 0..2 {
            let state = vm.vcpu(id);
            assert!(state.cr0 & Cr0::PG.bits() != 0 && state.efer & Efer::LMA.bits() != 0);
            assert_ne!(state.cr3, 0);
            assert_ne!(state.activity, Activity::WaitForSipi);
            assert_eq!(state.apic.regs[0x0f] & 0x100, 0x100, "the local APIC is on");
        }
    }
}

/// The sections of the newest file, and of what today's program makes of it.
fn then_and_now() -> (Vec<NamedSection>, Vec<NamedSection>) {
    let file = fs::read(golden::files().pop().unwrap()).unwrap();
    let profile = Vm::profile(golden::CORES);
    let sections = |file: &[u8]| board::unpack(&profile, file).unwrap();
    (sections(&file), sections(&golden::again(&file)))
}

#[test]
fn the_newest_file_is_what_is_saved_today() {
    let (then, now) = then_and_now();
    for (then, now) in then.iter().zip(&now) {
        assert_eq!(then, now, "after a change of the format: cargo xtask golden");
    }
    assert_eq!(then.len(), now.len(), "after a change of the format: cargo xtask golden");
}

/// Fields that a file cannot have otherwise than after reset, or need not.
const AS_AT_RESET: &[(&str, &str)] = &[
    ("i8042/5", "between two bytes of a key, which the keyboard sends at once"),
    ("pit/0/6", "the one gate that can change holds its counter, which is another field"),
    ("pm/3", "no device raises a general-purpose event"),
    ("vcpu/14", "no component of the profile is managed by XSS"),
    ("vcpu/5/3", "there is but one kind of task that TR can hold"),
    ("virtio-block/2", "the size of the disk"),
    ("virtio-pci/8/0", "drivers take queues as large as they are offered"),
];

#[test]
fn in_the_newest_file_every_field_differs_from_reset() {
    let (then, _) = then_and_now();
    let saved = fields(&then);
    let reset = fields(&Vm::new(golden::CORES).save().sections());
    for (name, bytes) in &saved {
        let known = AS_AT_RESET.iter().any(|(known, _)| known == name);
        assert_eq!(reset.get(name) == Some(bytes), known, "{name} as after reset, or not");
    }
}

#[test]
fn full_takes_every_vcpus_state_over_and_gives_it_back() {
    let profile = Vm::profile(golden::CORES);
    if let Err(why) = FullEngine.check(&profile) {
        println!("NOT RUN: {why}");
        return;
    }
    for path in golden::files() {
        let sections = board::unpack(&profile, &fs::read(path).unwrap()).unwrap();
        let memory = GuestMemory::new(&[("ram", 2 << 20)]).unwrap();
        let parts = Parts { clock: MachineClock::new(TimeSource::Host), memory };
        let mut vcpus = FullEngine.build(&profile, &parts).unwrap().vcpus;
        for (id, vcpu) in (0..).map(VcpuId).zip(&mut vcpus) {
            let of = |named: &&NamedSection| named.path == format!("cpu/{}", id.0);
            let section = &sections.iter().find(of).unwrap().section;
            let state = restore_vcpu(section, &profile, id).unwrap();
            vcpu.load(&state).unwrap();
            assert_eq!(save_vcpu(&vcpu.save().unwrap()), save_vcpu(&state), "{id:?}");
        }
    }
}

#[test]
fn the_state_of_other_cpus_is_refused() {
    let file = fs::read(golden::files().pop().unwrap()).unwrap();
    let error = board::unpack(&Vm::profile(4), &file).unwrap_err();
    assert!(error.to_string().contains("the number of CPUs is 2 there, but 4 in this VM"));
}
