//! CPUID and the time-stamp counter.

use x86_decode::Insn;
use x86_state::ApicState;
use x86_state::bits::Cr4;
use x86_state::msr::IA32_APIC_BASE;

use crate::{Cpu, Env, Fault};

/// CPUID.1:ECX: CR4.OSXSAVE.
const OSXSAVE: u32 = 1 << 27;
/// CPUID.1:EDX: the APIC is enabled.
const APIC: u32 = 1 << 9;

/// CPUID, with the bits that follow other registers.
pub(super) fn cpuid<E: Env>(cpu: &mut Cpu<E>, _: &Insn) -> Result<(), Fault> {
    let (leaf, subleaf) = (cpu.gpr[0] as u32, cpu.gpr[1] as u32);
    let [eax, ebx, mut ecx, mut edx] = cpu.env.cpuid(leaf, subleaf);
    if leaf == 1 {
        if cpu.cr4 & Cr4::OSXSAVE.bits() != 0 {
            ecx |= OSXSAVE;
        }
        let base = cpu.env.apic_read_msr(IA32_APIC_BASE).unwrap_or(0);
        if base & ApicState::BASE_ENABLE == 0 {
            edx &= !APIC;
        }
    }
    for (number, value) in [(0, eax), (3, ebx), (1, ecx), (2, edx)] {
        cpu.gpr[number] = value.into();
    }
    Ok(())
}

fn check_tsd<E: Env>(cpu: &mut Cpu<E>) -> Result<(), Fault> {
    let forbidden = cpu.cr4 & Cr4::TSD.bits() != 0 && cpu.cpl != 0;
    if forbidden { Err(cpu.gp0()) } else { Ok(()) }
}

/// RDTSC.
pub(super) fn rdtsc<E: Env>(cpu: &mut Cpu<E>, _: &Insn) -> Result<(), Fault> {
    check_tsd(cpu)?;
    let now = cpu.env.tsc(cpu.retired);
    cpu.set_edx_eax(now);
    Ok(())
}

/// RDTSCP.
pub(super) fn rdtscp<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    rdtsc(cpu, insn)?;
    cpu.gpr[1] = cpu.msrs.tsc_aux & 0xffff_ffff;
    Ok(())
}
