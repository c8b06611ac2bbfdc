//! Control and status words, tags, FWAIT.

use x86_decode::{Code, Insn};
use x86_fpu::x87::{C1, CONDITIONS};
use x86_state::Exception;
use x86_state::bits::{Cr0, FCW_INIT};

use super::arithmetic::table;
use crate::{Cpu, Env, Fault, Fpu, Handler};

type Done = Result<(), Fault>;

/// FCW bits that can be set; bit 6 always reads as one.
const FCW_WRITABLE: u16 = 0x1f3f;
const FCW_FIXED: u16 = 0x40;

impl Fpu {
    /// FNINIT. Registers keep their contents.
    pub(crate) fn initialize(&mut self) {
        self.fcw = FCW_INIT;
        self.fsw = 0;
        self.top = 0;
        self.in_use = 0;
        self.fop = 0;
        self.fip = 0;
        self.fdp = 0;
    }

    /// Sets the control word, and what follows from it.
    pub(crate) fn set_control_word(&mut self, value: u16) {
        self.fcw = value & FCW_WRITABLE | FCW_FIXED;
        self.update_summary();
    }

    /// Sets status word and TOP; ES and B follow from the rest.
    pub(crate) fn set_status_word(&mut self, value: u16) {
        self.fsw = value & (CONDITIONS | 0x7f);
        self.top = (value >> 11 & 7) as u8;
        self.update_summary();
    }
}

fn fldcw<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Done {
    cpu.x87_wait()?;
    let value = cpu.read(insn.seg, cpu.ea(insn))?;
    cpu.fpu.set_control_word(value);
    Ok(())
}

fn fnstcw<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Done {
    cpu.x87_available()?;
    cpu.write(insn.seg, cpu.ea(insn), cpu.fpu.fcw)
}

fn fnstsw<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Done {
    cpu.x87_available()?;
    let value = cpu.fpu.status_word();
    if insn.is_mem() {
        return cpu.write(insn.seg, cpu.ea(insn), value);
    }
    cpu.set_reg(0, value);
    Ok(())
}

fn fnclex<E: Env>(cpu: &mut Cpu<E>, _: &Insn) -> Done {
    cpu.x87_available()?;
    cpu.fpu.fsw &= CONDITIONS;
    Ok(())
}

fn fninit<E: Env>(cpu: &mut Cpu<E>, _: &Insn) -> Done {
    cpu.x87_available()?;
    cpu.fpu.initialize();
    Ok(())
}

/// Waits for the x87; CR0.MP says whether that needs it.
fn fwait<E: Env>(cpu: &mut Cpu<E>, _: &Insn) -> Done {
    let both = (Cr0::MP | Cr0::TS).bits();
    if cpu.cr0 & both == both {
        return Err(cpu.raise(Exception::Nm));
    }
    cpu.x87_pending()
}

fn ffree<E: Env>(cpu: &mut Cpu<E>, insn: &Insn, pops: bool) -> Done {
    cpu.x87_wait()?;
    cpu.fpu.free(insn.reg0());
    if pops {
        cpu.fpu.pop();
    }
    cpu.fpu.note(0, C1);
    cpu.x87_retire(insn);
    Ok(())
}

fn turn<E: Env>(cpu: &mut Cpu<E>, insn: &Insn, by: u8) -> Done {
    cpu.x87_wait()?;
    cpu.fpu.top = cpu.fpu.top.wrapping_add(by) & 7;
    cpu.fpu.note(0, C1);
    cpu.x87_retire(insn);
    Ok(())
}

fn fnop<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Done {
    cpu.x87_wait()?;
    cpu.x87_retire(insn);
    Ok(())
}

/// FNENI, FNDISI and FNSETPM of the 8087 and 80287: nothing since the 80387.
fn nothing<E: Env>(cpu: &mut Cpu<E>, _: &Insn) -> Done {
    cpu.x87_available()
}

pub(super) fn select<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    Some(table! { insn;
        Fldcw_m2byte => fldcw,
        Fnstcw_m2byte => fnstcw,
        Fnstsw_m2byte | Fnstsw_AX => fnstsw,
        Fnclex => fnclex,
        Fninit => fninit,
        Wait => fwait,
        Ffree_sti => |c, i| ffree(c, i, false),
        Ffreep_sti => |c, i| ffree(c, i, true),
        Fincstp => |c, i| turn(c, i, 1),
        Fdecstp => |c, i| turn(c, i, 7),
        Fnop => fnop,
        Fneni | Fndisi | Fnsetpm => nothing,
    })
}
