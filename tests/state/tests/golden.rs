//! What any version saved can be restored, and means what it meant.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fs;

use state_tests::{Saved, golden};
use x86_state::Activity;
use x86_state::bits::{Cr0, Efer};

const SIZE_MAX: usize = 64 << 10;

#[test]
fn every_file_can_be_restored() {
    let files = golden::files();
    assert!(!files.is_empty());
    for path in files {
        let file = fs::read(&path).unwrap();
        assert!(file.len() < SIZE_MAX, "{}", path.display());
        let mut vm = Saved::unpack(&file);
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
        bus.pio_read(0x21, &mut byte);
        assert_ne!(byte, [0], "Linux masks lines of the PIC");
        for id in 0..2 {
            let state = vm.vcpu(id);
            assert!(state.cr0 & Cr0::PG.bits() != 0 && state.efer & Efer::LMA.bits() != 0);
            assert_ne!(state.cr3, 0);
            assert_ne!(state.activity, Activity::WaitForSipi);
            assert_eq!(state.apic.regs[0x0f] & 0x100, 0x100, "the local APIC is on");
        }
    }
}

#[test]
fn the_newest_file_is_what_is_saved_today() {
    let newest = golden::files().pop().unwrap();
    let file = fs::read(newest).unwrap();
    let (then, now) = (statecodec::unpack(&file).unwrap(), golden::again(&file));
    for (then, now) in then.iter().zip(statecodec::unpack(&now).unwrap()) {
        assert_eq!(
            *then, now,
            "after a change of the format: cargo run -p state_tests --bin golden"
        );
    }
    assert!(file == now, "after a change of the format: cargo run -p state_tests --bin golden");
}
