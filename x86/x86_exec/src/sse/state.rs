//! MXCSR.

use x86_decode::Insn;
use x86_state::bits::MXCSR_MASK;

use super::table;
use crate::{Cpu, Env, Fault, Handler};

type Done = Result<(), Fault>;

fn ldmxcsr<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Done {
    cpu.check_sse()?;
    let value: u32 = cpu.read(insn.seg, cpu.ea(insn))?;
    if value & !MXCSR_MASK != 0 {
        return Err(cpu.gp0());
    }
    cpu.fpu.mxcsr = value;
    Ok(())
}

fn stmxcsr<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Done {
    cpu.check_sse()?;
    cpu.write(insn.seg, cpu.ea(insn), cpu.fpu.mxcsr)
}

pub(super) fn select<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    table! { insn;
        Ldmxcsr_m32 => ldmxcsr,
        Stmxcsr_m32 => stmxcsr,
    }
}
