//! INVLPG and INVPCID.

use x86_decode::Insn;
use x86_state::bits::Cr4;

use crate::memory::is_canonical;
use crate::{Cpu, Env, Fault, Mode};

/// INVLPG. An address that is not canonical has no translation.
pub(super) fn invlpg<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    cpu.require_ring0()?;
    let linear = cpu.segment_base(insn.seg as usize).wrapping_add(cpu.ea(insn));
    cpu.mmu.invalidate(if cpu.mode.is_64() { linear } else { linear & 0xffff_ffff });
    Ok(())
}

/// INVPCID.
pub(super) fn invpcid<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    if cpu.mode == Mode::Virtual8086 {
        return Err(cpu.ud());
    }
    cpu.require_ring0()?;
    let wide = cpu.mode.is_64();
    let kind = cpu.reg::<u64>(insn.reg0()) & if wide { u64::MAX } else { 0xffff_ffff };
    let descriptor = cpu.read_u128(insn.seg, cpu.ea(insn))?;
    let (pcid, linear) = (descriptor as u64, (descriptor >> 64) as u64);
    let pcide = cpu.cr4 & Cr4::PCIDE.bits() != 0;
    let valid = match kind {
        0 => pcid >> 12 == 0 && (pcide || pcid == 0) && is_canonical(linear),
        1 => pcid >> 12 == 0 && (pcide || pcid == 0),
        2 | 3 => pcid >> 12 == 0,
        _ => false,
    };
    if !valid {
        return Err(cpu.gp0());
    }
    match kind {
        0 => cpu.mmu.invalidate(linear),
        1 => cpu.mmu.invalidate_pcid(pcid as u16),
        2 => cpu.mmu.flush(),
        _ => cpu.mmu.flush_local(),
    }
    Ok(())
}
