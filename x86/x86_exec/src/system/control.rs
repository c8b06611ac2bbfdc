//! Control registers (SDM vol. 3A, 2.5; vol. 2B, MOV to control registers).

use x86_decode::{Code, Insn};
use x86_mmu::Paging;
use x86_state::bits::{Cr0, Cr4, Efer};
use x86_state::{SegReg, Segment};

use crate::memory::Tables;
use crate::{Cpu, Env, Fault};

/// Bit 63 of what is loaded into CR3 with CR4.PCIDE: keep the translations.
const CR3_KEEP: u64 = 1 << 63;
/// CR0 bits whose change reloads the PDPTEs of PAE paging.
const CR0_RELOADS: Cr0 = Cr0::PG.union(Cr0::CD).union(Cr0::NW);
/// CR4 bits whose change reloads them.
const CR4_RELOADS: Cr4 = Cr4::PAE.union(Cr4::PSE).union(Cr4::PGE).union(Cr4::SMEP);

impl<E: Env> Cpu<E> {
    /// PAE paging is on: three levels, of which the first is in registers.
    fn uses_pdptes(cr0: u64, cr4: u64, efer: u64) -> bool {
        cr0 & Cr0::PG.bits() != 0 && cr4 & Cr4::PAE.bits() != 0 && efer & Efer::LMA.bits() == 0
    }

    /// The walker's registers for these values, PDPTEs read where they are used.
    fn paging_for(&mut self, cr0: u64, cr3: u64, cr4: u64, efer: u64) -> Result<Paging, Fault> {
        let mut paging = self.walker_for(cr0, cr3, cr4, efer);
        if Self::uses_pdptes(cr0, cr4, efer) {
            match paging.load_pdptes(&mut Tables(&mut self.env)) {
                Some(pdptes) => paging.pdptes = pdptes,
                None => return Err(self.gp0()),
            }
        }
        Ok(paging)
    }

    /// Sets CR0 with all its consequences.
    ///
    /// # Errors
    /// #GP(0).
    pub fn write_cr0(&mut self, value: u64) -> Result<(), Fault> {
        if value >> 32 != 0 {
            return Err(self.gp0());
        }
        let new = Cr0::from_bits_truncate(value) | Cr0::ET;
        let old = Cr0::from_bits_retain(self.cr0);
        let invalid = new.contains(Cr0::PG) && !new.contains(Cr0::PE)
            || new.contains(Cr0::NW) && !new.contains(Cr0::CD);
        if invalid {
            return Err(self.gp0());
        }
        let mut efer = self.efer;
        let code_is_long = self.segment(SegReg::Cs).has(Segment::L);
        if new.contains(Cr0::PG) && !old.contains(Cr0::PG) && efer & Efer::LME.bits() != 0 {
            if self.cr4 & Cr4::PAE.bits() == 0 || code_is_long {
                return Err(self.gp0());
            }
            efer |= Efer::LMA.bits();
        }
        if old.contains(Cr0::PG) && !new.contains(Cr0::PG) {
            if self.cr4 & Cr4::PCIDE.bits() != 0 || self.mode.is_64() {
                return Err(self.gp0());
            }
            efer &= !Efer::LMA.bits();
        }
        if (old ^ new).intersects(CR0_RELOADS) {
            let paging = self.paging_for(new.bits(), self.cr3, self.cr4, efer)?;
            self.mmu.set_paging(paging);
        }
        self.cr0 = new.bits();
        self.efer = efer;
        self.update_mode();
        self.update_paging();
        Ok(())
    }

    /// Sets CR3. `keep`: without dropping translations.
    ///
    /// # Errors
    /// #GP(0) for reserved bits, also those of PDPTEs.
    pub fn load_cr3(&mut self, value: u64, keep: bool) -> Result<(), Fault> {
        if value >> self.env.physical_bits() != 0 {
            return Err(self.gp0());
        }
        let paging = self.paging_for(self.cr0, value, self.cr4, self.efer)?;
        self.cr3 = value;
        let pcid = if self.cr4 & Cr4::PCIDE.bits() != 0 { value as u16 & 0xfff } else { 0 };
        self.mmu.load_root(paging, pcid, keep);
        Ok(())
    }

    fn write_cr3(&mut self, value: u64) -> Result<(), Fault> {
        let pcide = self.cr4 & Cr4::PCIDE.bits() != 0;
        if pcide && self.mode.is_64() {
            return self.load_cr3(value & !CR3_KEEP, value & CR3_KEEP != 0);
        }
        self.load_cr3(value, false)
    }

    /// Sets CR4 with all its consequences.
    ///
    /// # Errors
    /// #GP(0).
    pub fn write_cr4(&mut self, value: u64) -> Result<(), Fault> {
        if value & !self.env.cr4_mask() != 0 {
            return Err(self.gp0());
        }
        let (new, old) = (Cr4::from_bits_retain(value), Cr4::from_bits_retain(self.cr4));
        let long = self.efer & Efer::LMA.bits() != 0;
        let begins_pcid = new.contains(Cr4::PCIDE) && !old.contains(Cr4::PCIDE);
        if long && !new.contains(Cr4::PAE) || begins_pcid && (!long || self.cr3 & 0xfff != 0) {
            return Err(self.gp0());
        }
        if (old ^ new).intersects(CR4_RELOADS) {
            let paging = self.paging_for(self.cr0, self.cr3, value, self.efer)?;
            self.mmu.set_paging(paging);
        }
        self.cr4 = value;
        self.update_paging();
        if old.contains(Cr4::PCIDE) && !new.contains(Cr4::PCIDE) {
            self.mmu.flush();
        }
        Ok(())
    }
}

/// MOV CRn, r.
pub(super) fn mov_to<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let number = insn.reg0();
    if !matches!(number, 0 | 2 | 3 | 4 | 8) {
        return Err(cpu.ud());
    }
    cpu.require_ring0()?;
    let value = match insn.code {
        Code::Mov_cr_r64 => cpu.reg::<u64>(insn.reg1()),
        _ => cpu.reg::<u32>(insn.reg1()).into(),
    };
    match number {
        0 => cpu.write_cr0(value)?,
        2 => cpu.cr2 = value,
        3 => cpu.write_cr3(value)?,
        4 => cpu.write_cr4(value)?,
        _ if value > 15 => return Err(cpu.gp0()),
        _ => cpu.env.set_cr8(value as u8),
    }
    cpu.check_events = true;
    Ok(())
}

/// MOV r, CRn.
pub(super) fn mov_from<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let number = insn.reg1();
    if !matches!(number, 0 | 2 | 3 | 4 | 8) {
        return Err(cpu.ud());
    }
    cpu.require_ring0()?;
    let value = match number {
        0 => cpu.cr0,
        2 => cpu.cr2,
        3 => cpu.cr3,
        4 => cpu.cr4,
        _ => cpu.env.cr8().into(),
    };
    match insn.code {
        Code::Mov_r64_cr => cpu.set_reg(insn.reg0(), value),
        _ => cpu.set_reg(insn.reg0(), value as u32),
    }
    Ok(())
}

/// CLTS.
pub(super) fn clts<E: Env>(cpu: &mut Cpu<E>, _: &Insn) -> Result<(), Fault> {
    cpu.require_ring0()?;
    cpu.cr0 &= !Cr0::TS.bits();
    Ok(())
}

/// LMSW: the low four bits of CR0; PE can be set but not cleared.
pub(super) fn lmsw<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    cpu.require_ring0()?;
    let value = u64::from(cpu.read_op::<u16>(insn, 0)?);
    let pe = cpu.cr0 & Cr0::PE.bits();
    cpu.write_cr0(cpu.cr0 & !0xf | value & 0xf | pe)
}

/// SMSW: a register takes as much of CR0 as it holds.
pub(super) fn smsw<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    cpu.check_umip()?;
    let value = cpu.cr0;
    if insn.is_mem() {
        return cpu.write(insn.seg, cpu.ea(insn), value as u16);
    }
    match insn.op_size {
        2 => cpu.set_reg(insn.reg0(), value as u16),
        4 => cpu.set_reg(insn.reg0(), value as u32),
        _ => cpu.set_reg(insn.reg0(), value),
    }
    Ok(())
}

impl<E: Env> Cpu<E> {
    /// #GP(0) when CR4.UMIP keeps SGDT, SIDT, SLDT, SMSW and STR from this ring.
    pub(super) fn check_umip(&mut self) -> Result<(), Fault> {
        let forbidden = self.cr4 & Cr4::UMIP.bits() != 0 && self.cpl != 0;
        if forbidden { Err(self.gp0()) } else { Ok(()) }
    }
}

/// XSETBV.
pub(super) fn xsetbv<E: Env>(cpu: &mut Cpu<E>, _: &Insn) -> Result<(), Fault> {
    cpu.require_osxsave()?;
    cpu.require_ring0()?;
    let value = cpu.edx_eax();
    let valid = cpu.gpr[1] as u32 == 0
        && value & x86_state::XSAVE_X87 != 0
        && value & !cpu.env.xcr0_mask() == 0;
    if !valid {
        return Err(cpu.gp0());
    }
    cpu.xcr0 = value;
    Ok(())
}

/// XGETBV.
pub(super) fn xgetbv<E: Env>(cpu: &mut Cpu<E>, _: &Insn) -> Result<(), Fault> {
    cpu.require_osxsave()?;
    if cpu.gpr[1] as u32 != 0 {
        return Err(cpu.gp0());
    }
    cpu.set_edx_eax(cpu.xcr0);
    Ok(())
}

impl<E: Env> Cpu<E> {
    /// #UD while CR4.OSXSAVE is clear.
    pub(super) fn require_osxsave(&mut self) -> Result<(), Fault> {
        if self.cr4 & Cr4::OSXSAVE.bits() == 0 { Err(self.ud()) } else { Ok(()) }
    }

    /// EDX:EAX.
    pub(super) fn edx_eax(&self) -> u64 {
        self.gpr[2] << 32 | self.gpr[0] & 0xffff_ffff
    }

    /// Sets EDX:EAX; the upper halves become zero.
    pub(super) fn set_edx_eax(&mut self, value: u64) {
        self.gpr[0] = value & 0xffff_ffff;
        self.gpr[2] = value >> 32;
    }
}
