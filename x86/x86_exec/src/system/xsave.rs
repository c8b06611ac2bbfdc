//! FXSAVE, FXRSTOR, XSAVE and XRSTOR (SDM vol. 1, 10.5 and 13.7 on; vol. 2).

use x86_decode::{Code, Insn};
use x86_mmu::Access;
use x86_state::bits::{Cr0, MXCSR_MASK};
use x86_state::{Exception, XSAVE_HEADER_OFFSET, XSAVE_SSE, XSAVE_X87};

use super::fpu_image::{MXCSR_AT, ST_AT, XMM_AT};
use crate::{Cpu, Env, Fault, Fpu};

const HEADER_SIZE: usize = 64;
/// Legacy region and header: the image of the components we have.
const IMAGE_SIZE: usize = XSAVE_HEADER_OFFSET + HEADER_SIZE;
/// Where the registers of x87 end.
const ST_END: usize = XMM_AT;

impl<E: Env> Cpu<E> {
    /// XMM registers that the current mode can name.
    fn xmm_count(&self) -> usize {
        if self.mode.is_64() { 16 } else { 8 }
    }

    fn require_aligned(&mut self, insn: &Insn, alignment: u64) -> Result<u64, Fault> {
        let offset = self.ea(insn);
        let linear = self.segment_base(insn.seg as usize).wrapping_add(offset);
        if linear & (alignment - 1) == 0 { Ok(offset) } else { Err(self.gp0()) }
    }

    fn require_fpu(&mut self, also_em: bool) -> Result<(), Fault> {
        let bits = if also_em { Cr0::TS | Cr0::EM } else { Cr0::TS };
        if self.cr0 & bits.bits() == 0 { Ok(()) } else { Err(self.raise(Exception::Nm)) }
    }

    fn write_part(
        &mut self,
        insn: &Insn,
        image: &[u8],
        part: std::ops::Range<usize>,
    ) -> Result<(), Fault> {
        let offset = self.ea(insn).wrapping_add(part.start as u64);
        self.write_bytes(insn.seg, offset, &image[part])
    }
}

/// FXSAVE and FXSAVE64.
pub(super) fn fxsave<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    cpu.require_fpu(true)?;
    cpu.require_aligned(insn, 16)?;
    let mut image = [0; 512];
    let count = cpu.xmm_count();
    cpu.fpu.put_x87(&mut image, insn.code == Code::Fxsave64_m512byte);
    cpu.fpu.put_mxcsr(&mut image);
    cpu.fpu.put_xmm(&mut image, count);
    // The last 96 bytes, and XMM registers the mode does not have, are left as they are.
    cpu.write_part(insn, &image, 0..XMM_AT + 16 * count)
}

/// FXRSTOR and FXRSTOR64.
pub(super) fn fxrstor<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    cpu.require_fpu(true)?;
    let offset = cpu.require_aligned(insn, 16)?;
    let mut image = [0; 512];
    cpu.read_bytes(insn.seg, offset, &mut image)?;
    let mxcsr = Fpu::mxcsr_in(&image);
    if mxcsr & !MXCSR_MASK != 0 {
        return Err(cpu.gp0());
    }
    let count = cpu.xmm_count();
    cpu.fpu.take_x87(&image, insn.code == Code::Fxrstor64_m512byte);
    cpu.fpu.take_xmm(&image, count);
    cpu.fpu.mxcsr = mxcsr;
    Ok(())
}

/// XSAVE and XSAVE64, standard format.
pub(super) fn xsave<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    cpu.require_osxsave()?;
    cpu.require_fpu(false)?;
    let offset = cpu.require_aligned(insn, 64)?;
    let wanted = cpu.xcr0 & cpu.edx_eax();
    cpu.probe(insn.seg, offset, IMAGE_SIZE, Access::Write)?;
    let mut image = [0; 512];
    let mut in_use = 0;
    if wanted & XSAVE_X87 != 0 {
        cpu.fpu.put_x87(&mut image, insn.code == Code::Xsave64_mem);
        cpu.write_part(insn, &image, 0..MXCSR_AT)?;
        cpu.write_part(insn, &image, ST_AT..ST_END)?;
        if !cpu.fpu.is_x87_initial() {
            in_use |= XSAVE_X87;
        }
    }
    if wanted & XSAVE_SSE != 0 {
        let count = cpu.xmm_count();
        cpu.fpu.put_mxcsr(&mut image);
        cpu.fpu.put_xmm(&mut image, count);
        cpu.write_part(insn, &image, MXCSR_AT..ST_AT)?;
        cpu.write_part(insn, &image, XMM_AT..XMM_AT + 16 * count)?;
        if cpu.fpu.xmm != [0; 16] {
            in_use |= XSAVE_SSE;
        }
    }
    let header = offset.wrapping_add(XSAVE_HEADER_OFFSET as u64);
    let old: u64 = cpu.read(insn.seg, header)?;
    cpu.write(insn.seg, header, old & !wanted | in_use)
}

/// XRSTOR and XRSTOR64, standard format.
pub(super) fn xrstor<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    cpu.require_osxsave()?;
    cpu.require_fpu(false)?;
    let offset = cpu.require_aligned(insn, 64)?;
    let wanted = cpu.xcr0 & cpu.edx_eax();
    let mut all = [0; IMAGE_SIZE];
    cpu.read_bytes(insn.seg, offset, &mut all)?;
    let mut image = [0; 512];
    image.copy_from_slice(&all[..XSAVE_HEADER_OFFSET]);
    let header = &all[XSAVE_HEADER_OFFSET..];
    let mut present = [0; 8];
    present.copy_from_slice(&header[..8]);
    let present = u64::from_le_bytes(present);
    // XCOMP_BV must be zero without XSAVEC, as must the 8 bytes after it.
    let header_valid = present & !cpu.xcr0 == 0 && header[8..24].iter().all(|b| *b == 0);
    let mxcsr = Fpu::mxcsr_in(&image);
    let loads_sse = wanted & XSAVE_SSE != 0;
    if !header_valid || loads_sse && mxcsr & !MXCSR_MASK != 0 {
        return Err(cpu.gp0());
    }
    if wanted & XSAVE_X87 != 0 {
        if present & XSAVE_X87 != 0 {
            cpu.fpu.take_x87(&image, insn.code == Code::Xrstor64_mem);
        } else {
            cpu.fpu.init_x87();
        }
    }
    if loads_sse {
        // MXCSR comes from the image whether or not XSTATE_BV has SSE (13.8.1).
        cpu.fpu.mxcsr = mxcsr;
        let count = cpu.xmm_count();
        if present & XSAVE_SSE != 0 {
            cpu.fpu.take_xmm(&image, count);
        } else {
            cpu.fpu.xmm[..count].fill(0);
        }
    }
    Ok(())
}
