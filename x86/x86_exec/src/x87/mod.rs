//! x87 instructions, FWAIT included.
//!
//! Arithmetic is [`x86_fpu::x87`]'s; here are the stack, the status word, deferred exceptions and
//! the operands. An exception found by one instruction is taken by the next one that waits for
//! the x87, as #MF whatever CR0.NE says: with VMX, NE is fixed at one, and no board of ours wires
//! FERR#.
//!
//! FIP and FDP follow each instruction that is not a control instruction; FOP only those that
//! raise an unmasked exception, as CPUs do whose IA32_MISC_ENABLE\[2\] is zero (SDM vol. 1,
//! 8.1.9.1). FCS and FDS are zero (CPUID.7.0:EBX\[13\]).

mod arithmetic;
mod control;
mod environment;
mod stack;
mod transfer;

use x86_decode::Insn;

use crate::{Env, Handler};

/// The function that does `insn`, when it is of this family.
pub(crate) fn select<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    arithmetic::select(insn)
        .or_else(|| transfer::select(insn))
        .or_else(|| control::select(insn))
        .or_else(|| environment::select(insn))
}
