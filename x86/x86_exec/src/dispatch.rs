//! From a decoded instruction to the function that does it.

use x86_decode::{Code, Insn};

use crate::{Cpu, Env, Fault, control, integer, sse, stack, string, system, x87};

/// Does one instruction.
///
/// RIP is implicit. Handlers of ordinary instructions neither read nor write [`Cpu::rip`]; those
/// of instructions that end a block find the next instruction's address in it and may change it.
/// Both have [`Cpu::this_rip`] and [`Cpu::next_rip`]. A handler that returns [`Fault`] has changed
/// nothing the guest can see; RIP is put back by the loop.
pub type Handler<E> = fn(&mut Cpu<E>, &Insn) -> Result<(), Fault>;

/// The function that does `insn`. Each family answers for its own; what none knows is #UD.
pub fn select<E: Env>(insn: &Insn) -> Handler<E> {
    if insn.code == Code::INVALID {
        return undefined;
    }
    integer::select(insn)
        .or_else(|| control::select(insn))
        .or_else(|| stack::select(insn))
        .or_else(|| string::select(insn))
        .or_else(|| system::select(insn))
        .or_else(|| x87::select(insn))
        .or_else(|| sse::select(insn))
        .unwrap_or(undefined)
}

fn undefined<E: Env>(cpu: &mut Cpu<E>, _: &Insn) -> Result<(), Fault> {
    Err(cpu.ud())
}
