//! Model-specific registers (SDM vol. 4, table 2-2).

use x86_decode::Insn;
use x86_state::SegReg;
use x86_state::bits::{Cr0, Efer};
use x86_state::msr::*;

use crate::memory::is_canonical;
use crate::{Cpu, Env, Fault};

/// RDMSR.
pub(super) fn rdmsr<E: Env>(cpu: &mut Cpu<E>, _: &Insn) -> Result<(), Fault> {
    cpu.require_ring0()?;
    let number = cpu.gpr[1] as u32;
    match cpu.read_msr(number) {
        Some(value) => {
            cpu.set_edx_eax(value);
            Ok(())
        }
        None => Err(cpu.gp0()),
    }
}

/// WRMSR.
pub(super) fn wrmsr<E: Env>(cpu: &mut Cpu<E>, _: &Insn) -> Result<(), Fault> {
    cpu.require_ring0()?;
    let (number, value) = (cpu.gpr[1] as u32, cpu.edx_eax());
    if cpu.write_msr(number, value).is_none() {
        return Err(cpu.gp0());
    }
    cpu.check_events = true;
    Ok(())
}

/// A memory type an MTRR can have.
const fn is_mtrr_type(kind: u8) -> bool {
    matches!(kind, 0 | 1 | 4..=6)
}

/// `valid` holds for each byte.
fn each_byte(value: u64, valid: impl Fn(u8) -> bool) -> bool {
    value.to_le_bytes().into_iter().all(valid)
}

fn keep(target: &mut u64, value: u64, valid: bool) -> Option<()> {
    valid.then(|| *target = value)
}

const VARIABLE_LAST: u32 = IA32_MTRR_PHYSBASE0 + 15;

impl<E: Env> Cpu<E> {
    /// RDMSR of this register; `None`: #GP.
    pub fn read_msr(&mut self, number: u32) -> Option<u64> {
        if !self.env.allows_msr(number) {
            return None;
        }
        if let Some(index) = IA32_MTRR_FIXED.iter().position(|n| *n == number) {
            return Some(self.msrs.mtrr.fixed[index]);
        }
        Some(match number {
            IA32_TSC => self.env.tsc(self.retired),
            IA32_TSC_ADJUST => self.msrs.tsc_adjust,
            IA32_APIC_BASE | IA32_TSC_DEADLINE | X2APIC_FIRST..=X2APIC_LAST => {
                return self.env.apic_read_msr(number);
            }
            IA32_PLATFORM_ID => 0,
            IA32_BIOS_SIGN_ID => MICROCODE_REVISION,
            IA32_ARCH_CAPABILITIES => self.env.arch_capabilities(),
            IA32_MTRRCAP => MTRRCAP,
            IA32_MCG_CAP => MCG_CAP,
            IA32_MCG_STATUS => 0,
            IA32_SYSENTER_CS => self.msrs.sysenter_cs,
            IA32_SYSENTER_ESP => self.msrs.sysenter_esp,
            IA32_SYSENTER_EIP => self.msrs.sysenter_eip,
            IA32_MISC_ENABLE => self.msrs.misc_enable,
            IA32_MTRR_PHYSBASE0..=VARIABLE_LAST => {
                let (base, mask) = self.msrs.mtrr.variable[variable_index(number)];
                if number & 1 == 0 { base } else { mask }
            }
            IA32_PAT => self.msrs.pat,
            IA32_MTRR_DEF_TYPE => self.msrs.mtrr.def_type,
            IA32_EFER => self.efer,
            IA32_STAR => self.msrs.star,
            IA32_LSTAR => self.msrs.lstar,
            IA32_CSTAR => self.msrs.cstar,
            IA32_FMASK => self.msrs.fmask,
            IA32_FS_BASE => self.segment(SegReg::Fs).base,
            IA32_GS_BASE => self.segment(SegReg::Gs).base,
            IA32_KERNEL_GS_BASE => self.msrs.kernel_gs_base,
            IA32_TSC_AUX => self.msrs.tsc_aux,
            _ => return None,
        })
    }

    /// WRMSR of this register; `None`: #GP.
    pub fn write_msr(&mut self, number: u32, value: u64) -> Option<()> {
        if !self.env.allows_msr(number) {
            return None;
        }
        if let Some(index) = IA32_MTRR_FIXED.iter().position(|n| *n == number) {
            let valid = each_byte(value, is_mtrr_type);
            return keep(&mut self.msrs.mtrr.fixed[index], value, valid);
        }
        let canonical = is_canonical(value);
        let msrs = &mut self.msrs;
        match number {
            IA32_TSC => {
                let delta = value.wrapping_sub(self.env.tsc(self.retired));
                self.env.set_tsc(value, self.retired);
                self.msrs.tsc_adjust = self.msrs.tsc_adjust.wrapping_add(delta);
                Some(())
            }
            IA32_TSC_ADJUST => {
                let delta = value.wrapping_sub(msrs.tsc_adjust);
                msrs.tsc_adjust = value;
                let now = self.env.tsc(self.retired);
                self.env.set_tsc(now.wrapping_add(delta), self.retired);
                Some(())
            }
            IA32_APIC_BASE | IA32_TSC_DEADLINE | X2APIC_FIRST..=X2APIC_LAST => {
                self.env.apic_write_msr(number, value)
            }
            IA32_BIOS_SIGN_ID | IA32_MCG_STATUS => Some(()),
            IA32_SYSENTER_CS => keep(&mut msrs.sysenter_cs, value, true),
            IA32_SYSENTER_ESP => keep(&mut msrs.sysenter_esp, value, canonical),
            IA32_SYSENTER_EIP => keep(&mut msrs.sysenter_eip, value, canonical),
            IA32_MISC_ENABLE => keep(&mut msrs.misc_enable, value, true),
            IA32_MTRR_PHYSBASE0..=VARIABLE_LAST => self.write_variable_mtrr(number, value),
            IA32_PAT => {
                let valid = each_byte(value, |kind| matches!(kind, 0 | 1 | 4..=7));
                keep(&mut msrs.pat, value, valid)
            }
            IA32_MTRR_DEF_TYPE => {
                let valid = value & !0xcff == 0 && is_mtrr_type(value as u8);
                keep(&mut msrs.mtrr.def_type, value, valid)
            }
            IA32_EFER => self.write_efer(value),
            IA32_STAR => keep(&mut msrs.star, value, true),
            IA32_LSTAR => keep(&mut msrs.lstar, value, canonical),
            IA32_CSTAR => keep(&mut msrs.cstar, value, canonical),
            IA32_FMASK => keep(&mut msrs.fmask, value, value >> 32 == 0),
            IA32_FS_BASE => canonical.then(|| self.set_segment_base(SegReg::Fs, value)),
            IA32_GS_BASE => canonical.then(|| self.set_segment_base(SegReg::Gs, value)),
            IA32_KERNEL_GS_BASE => keep(&mut msrs.kernel_gs_base, value, canonical),
            IA32_TSC_AUX => keep(&mut msrs.tsc_aux, value, value >> 32 == 0),
            _ => None,
        }
    }

    fn write_variable_mtrr(&mut self, number: u32, value: u64) -> Option<()> {
        let beyond = value >> self.env.physical_bits() != 0;
        let (base, mask) = &mut self.msrs.mtrr.variable[variable_index(number)];
        if number & 1 == 0 {
            keep(base, value, !beyond && value & 0xf00 == 0 && is_mtrr_type(value as u8))
        } else {
            keep(mask, value, !beyond && value & 0x7ff == 0)
        }
    }

    fn write_efer(&mut self, value: u64) -> Option<()> {
        let changes_lme = (value ^ self.efer) & Efer::LME.bits() != 0;
        let paging = self.cr0 & Cr0::PG.bits() != 0;
        if value & !self.env.efer_mask() != 0 || changes_lme && paging {
            return None;
        }
        let lma = Efer::LMA.bits();
        self.efer = value & !lma | self.efer & lma;
        self.update_paging();
        Some(())
    }

    /// Sets the base of FS or GS.
    pub(super) fn set_segment_base(&mut self, seg: SegReg, base: u64) {
        self.segments[seg as usize].base = base;
        self.windows[seg as usize].base = self.segment_base(seg as usize);
    }
}

fn variable_index(number: u32) -> usize {
    ((number - IA32_MTRR_PHYSBASE0) / 2) as usize
}
