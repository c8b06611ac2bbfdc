//! Instructions on system flags, software interrupts, and HLT.

use x86_decode::{Code, Insn};
use x86_mmu::Privilege;
use x86_state::bits::Rflags;
use x86_state::{Activity, Exception, InterruptShadow};

use crate::{Cpu, Env, Fault, Mode};

impl<E: Env> Cpu<E> {
    /// #GP(0) above ring 0.
    pub(super) fn require_ring0(&mut self) -> Result<(), Fault> {
        if self.cpl == 0 { Ok(()) } else { Err(self.gp0()) }
    }

    /// RFLAGS.IOPL.
    pub(crate) fn iopl(&self) -> u8 {
        (self.system_flags >> 12) as u8 & 3
    }

    fn require_iopl(&mut self) -> Result<(), Fault> {
        if self.cpl <= self.iopl() { Ok(()) } else { Err(self.gp0()) }
    }
}

/// CLI.
pub(super) fn cli<E: Env>(cpu: &mut Cpu<E>, _: &Insn) -> Result<(), Fault> {
    cpu.require_iopl()?;
    cpu.system_flags &= !Rflags::IF.bits();
    Ok(())
}

/// STI: interrupts wait for one more instruction when they were off.
pub(super) fn sti<E: Env>(cpu: &mut Cpu<E>, _: &Insn) -> Result<(), Fault> {
    cpu.require_iopl()?;
    if !cpu.system_flag(Rflags::IF) {
        cpu.system_flags |= Rflags::IF.bits();
        cpu.shadow = InterruptShadow::Sti;
    }
    cpu.check_events = true;
    Ok(())
}

/// CLAC and STAC. The hit path's key is all that depends on AC below ring 3.
fn set_ac<E: Env>(cpu: &mut Cpu<E>, on: bool) -> Result<(), Fault> {
    if cpu.cpl != 0 {
        return Err(cpu.ud());
    }
    if on {
        cpu.system_flags |= Rflags::AC.bits();
        cpu.mmu.set_privilege(Privilege::SupervisorAc);
    } else {
        cpu.system_flags &= !Rflags::AC.bits();
        cpu.mmu.set_privilege(Privilege::Supervisor);
    }
    Ok(())
}

/// CLAC.
pub(super) fn clac<E: Env>(cpu: &mut Cpu<E>, _: &Insn) -> Result<(), Fault> {
    set_ac(cpu, false)
}

/// STAC.
pub(super) fn stac<E: Env>(cpu: &mut Cpu<E>, _: &Insn) -> Result<(), Fault> {
    set_ac(cpu, true)
}

/// HLT.
pub(super) fn hlt<E: Env>(cpu: &mut Cpu<E>, _: &Insn) -> Result<(), Fault> {
    cpu.require_ring0()?;
    cpu.activity = Activity::Halted;
    cpu.check_events = true;
    Ok(())
}

/// PAUSE, and what only touches caches we do not have and needs ring 3 at most.
pub(super) fn nothing<E: Env>(_: &mut Cpu<E>, _: &Insn) -> Result<(), Fault> {
    Ok(())
}

/// WBINVD and INVD: guest memory is coherent.
pub(super) fn nothing_at_ring0<E: Env>(cpu: &mut Cpu<E>, _: &Insn) -> Result<(), Fault> {
    cpu.require_ring0()
}

/// RDPMC: the profiles have no counters.
pub(super) fn no_counter<E: Env>(cpu: &mut Cpu<E>, _: &Insn) -> Result<(), Fault> {
    Err(cpu.gp0())
}

/// INT n, INT3, INT1, INTO.
pub(super) fn int<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    match insn.code {
        Code::Int3 => cpu.software_interrupt(Exception::Bp as u8),
        Code::Int1 => cpu.int1(),
        Code::Into if !cpu.flags.has(Rflags::OF) => Ok(()),
        Code::Into => cpu.software_interrupt(Exception::Of as u8),
        _ => {
            if cpu.mode == Mode::Virtual8086 && cpu.iopl() < 3 {
                return Err(cpu.gp0());
            }
            cpu.software_interrupt(insn.imm as u8)
        }
    }
}
