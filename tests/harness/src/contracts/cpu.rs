//! The guest has the profile's CPU.

use x86_state::{Gpr, VcpuId, VcpuState, msr};

use crate::{Machine, Subject, guest};

pub(super) fn cpuid_is_the_profiles(subject: &Subject) {
    let mut machine = Machine::new(subject, 1);
    machine.place(0, guest::cpuid());
    let leaves = [
        (0, 0),
        (1, 0),
        (4, 3),
        (4, 9),
        (7, 0),
        (7, 1),
        (0xb, 1),
        (0xb, 5),
        (0x15, 0),
        (0x17, 0),
        (0x4000_0000, 0),
        (0x4000_0001, 0),
        (0x8000_0000, 0),
        (0x8000_0001, 0),
        (0x8000_0008, 0),
        (0x8000_0009, 0),
    ];
    for (leaf, subleaf) in leaves {
        let mut state = machine.long_mode(0);
        state.regs.gpr[Gpr::Rax as usize] = leaf.into();
        state.regs.gpr[Gpr::Rcx as usize] = subleaf.into();
        machine.vcpus[0].load(&state).unwrap();
        machine.run_until_done();
        let mut wanted = machine.profile.cpuid(leaf, subleaf, VcpuId(0));
        if leaf == 1 {
            wanted[3] |= 1 << 9; // APIC: it is on
        }
        assert_eq!(machine.bus.take_shown(), wanted, "CPUID {leaf:#x}.{subleaf}");
    }
}

fn read(machine: &mut Machine, number: u32) -> Vec<u32> {
    machine.place(0, guest::rdmsr());
    let mut state: VcpuState = machine.long_mode(0);
    state.regs.gpr[Gpr::Rcx as usize] = number.into();
    machine.vcpus[0].load(&state).unwrap();
    machine.run_until_done();
    machine.bus.take_shown()
}

pub(super) fn constants_of_the_profile_are_read(subject: &Subject) {
    let mut machine = Machine::new(subject, 1);
    let constants = [
        (msr::IA32_ARCH_CAPABILITIES, machine.profile.arch_capabilities()),
        (msr::IA32_BIOS_SIGN_ID, msr::MICROCODE_REVISION),
        (msr::IA32_MTRRCAP, msr::MTRRCAP),
        (msr::IA32_MCG_CAP, msr::MCG_CAP),
        (msr::IA32_MCG_STATUS, 0),
        (msr::IA32_MISC_ENABLE, msr::MISC_ENABLE_RESET),
        (msr::IA32_PAT, 0x0007_0406_0007_0406),
    ];
    for (number, value) in constants {
        let halves = [value as u32, (value >> 32) as u32];
        assert_eq!(read(&mut machine, number), halves, "MSR {number:#x}");
    }
}

pub(super) fn what_the_profile_does_not_name_faults(subject: &Subject) {
    let mut machine = Machine::new(subject, 1);
    // SMI count, platform information, XSS, a PMU's, KVM's clock, AMD's SYSCFG
    for number in [0x34, 0xce, 0xda0, 0xc1, 0x4b56_4d01, 0xc001_0010] {
        assert!(!machine.profile.allows_msr(number));
        assert_eq!(read(&mut machine, number), [0xbad], "MSR {number:#x}");
    }
}
