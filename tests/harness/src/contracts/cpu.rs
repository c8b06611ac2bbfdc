//! The guest has the profile's CPU.

use engine::EngineKind;
use x86_state::bits::{Cr4, Efer};
use x86_state::{CpuFeatures, Gpr, VcpuId, VcpuState, msr};

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
        (msr::IA32_PLATFORM_ID, 0),
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

/// Tries an instruction at ring 0; says whether it faults.
fn faults(machine: &mut Machine, insn: &[u8], prepare: impl Fn(&mut VcpuState)) -> bool {
    let mut code = guest::tried().to_vec();
    code[..insn.len()].copy_from_slice(insn);
    machine.place(0, &code);
    let mut state = machine.long_mode(0);
    state.cr4 |= Cr4::OSFXSR.bits();
    state.efer &= machine.profile.efer_mask();
    prepare(&mut state);
    machine.vcpus[0].load(&state).unwrap();
    machine.run_until_done();
    machine.bus.take_shown() == [0xbad]
}

/// A CPU without a feature neither tells it nor has it. Instructions that are only computations and
/// that hardware has are not kept from guests of a hardware engine: nothing could.
pub(super) fn what_the_profile_is_without_faults(subject: &Subject) {
    use CpuFeatures as F;
    const MOV_CR4_RAX: &[u8] = &[0x0f, 0x22, 0xe0];
    const WRMSR: &[u8] = &[0x0f, 0x30];
    let modes = [
        (F::PCID, Cr4::PCIDE),
        (F::UMIP, Cr4::UMIP),
        (F::FSGSBASE, Cr4::FSGSBASE),
        (F::XSAVE, Cr4::OSXSAVE),
        (F::SMEP, Cr4::SMEP),
        (F::SMAP, Cr4::SMAP),
    ];
    let insns: [(F, &[u8]); 8] = [
        (F::SSE3, &[0xf2, 0x0f, 0x7c, 0xc0]),        // haddps xmm0, xmm0
        (F::SSSE3, &[0x66, 0x0f, 0x38, 0x00, 0xc0]), // pshufb xmm0, xmm0
        (F::SSE4_1, &[0x66, 0x0f, 0x38, 0x40, 0xc0]), // pmulld xmm0, xmm0
        (F::SSE4_2, &[0x66, 0x0f, 0x38, 0x37, 0xc0]), // pcmpgtq xmm0, xmm0
        (F::POPCNT, &[0xf3, 0x0f, 0xb8, 0xc0]),      // popcnt eax, eax
        (F::RDRAND, &[0x0f, 0xc7, 0xf0]),            // rdrand eax
        (F::RDTSCP, &[0x0f, 0x01, 0xf9]),            // rdtscp
        (F::CX16, &[0x48, 0x0f, 0xc7, 0x0c, 0x25, 0, 0, 0x10, 0]), // cmpxchg16b [0x100000]
    ];
    let all = modes.iter().fold(F::NX, |all, (feature, _)| all | *feature);
    let all = insns.iter().fold(all, |all, (feature, _)| all | *feature);
    let software = subject.engine.kind() != EngineKind::Hw;
    for (features, there) in [(all, false), (F::empty(), true)] {
        if there && !software {
            continue; // what this host has is another matter
        }
        let mut machine = Machine::without(subject, 1, features);
        // Some KVMs emulate UMIP and let every guest have it.
        for (feature, bit) in modes.into_iter().filter(|(f, _)| software || *f != F::UMIP) {
            let faults = faults(&mut machine, MOV_CR4_RAX, |state| {
                state.regs.gpr[Gpr::Rax as usize] = state.cr4 | bit.bits();
            });
            assert_ne!(faults, there, "{feature:?}");
        }
        let faults_nx = faults(&mut machine, WRMSR, |state| {
            state.regs.gpr[Gpr::Rcx as usize] = msr::IA32_EFER.into();
            let efer = state.efer | Efer::NXE.bits();
            state.regs.gpr[Gpr::Rax as usize] = efer;
            state.regs.gpr[Gpr::Rdx as usize] = 0;
        });
        assert_ne!(faults_nx, there, "EFER.NXE");
        for (feature, insn) in insns.iter().filter(|_| software) {
            assert_ne!(faults(&mut machine, insn, |_| ()), there, "{feature:?}");
        }
    }
}
