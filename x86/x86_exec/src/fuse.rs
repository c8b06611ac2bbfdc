//! Two instructions as one: a comparison of a register, and the conditional jump after it.
//!
//! Only the jump can fault, so its place in the block is the pair's.

use x86_decode::{Insn, Mnemonic, OperandKind};

use crate::blocks::Op;
use crate::control::condition_of;
use crate::integer::{Binary, Cmp, Test, by_condition};
use crate::{Cpu, Env, Fault, Handler, Word};

/// `first` and `jump` as one, when they are such a pair.
pub(crate) fn fuse<E: Env>(first: &Insn, jump: &Insn) -> Option<Op<E>> {
    let condition = condition_of(jump.mnemonic()).filter(|_| jump.is_64())?;
    if first.kind(0) != OperandKind::Reg {
        return None;
    }
    let handler = match (first.mnemonic(), first.kind(1)) {
        (Mnemonic::Cmp, OperandKind::Reg) => by_size::<E, Cmp, Reg>(first.op_size, condition),
        (Mnemonic::Cmp, OperandKind::Imm) => by_size::<E, Cmp, Imm>(first.op_size, condition),
        (Mnemonic::Test, OperandKind::Reg) => by_size::<E, Test, Reg>(first.op_size, condition),
        (Mnemonic::Test, OperandKind::Imm) => by_size::<E, Test, Imm>(first.op_size, condition),
        _ => return None,
    };
    // Neither operand is memory, so the displacement is free to hold the jump's distance.
    let mut insn = *first;
    (insn.disp, insn.offset, insn.len) = (jump.imm, jump.offset, jump.len);
    Some(Op { handler, insn })
}

fn by_size<E: Env, O: Binary, B: Second>(size: u8, condition: u8) -> Handler<E> {
    match size {
        1 => by_condition!(condition, pair, u8, O, B),
        2 => by_condition!(condition, pair, u16, O, B),
        4 => by_condition!(condition, pair, u32, O, B),
        _ => by_condition!(condition, pair, u64, O, B),
    }
}

/// The second operand.
trait Second {
    fn get<E: Env, T: Word>(cpu: &Cpu<E>, insn: &Insn) -> T;
}
struct Reg;
impl Second for Reg {
    #[inline(always)]
    fn get<E: Env, T: Word>(cpu: &Cpu<E>, insn: &Insn) -> T {
        cpu.reg(insn.reg1())
    }
}
struct Imm;
impl Second for Imm {
    #[inline(always)]
    fn get<E: Env, T: Word>(_: &Cpu<E>, insn: &Insn) -> T {
        T::from_u64(insn.imm)
    }
}

fn pair<E: Env, T: Word, O: Binary, B: Second, const C: u8>(
    cpu: &mut Cpu<E>,
    insn: &Insn,
) -> Result<(), Fault> {
    let (a, b) = (cpu.reg::<T>(insn.reg0()), B::get::<E, T>(cpu, insn));
    O::apply(&mut cpu.flags, a, b);
    if cpu.flags.condition(C) { cpu.jump64(insn.disp) } else { Ok(()) }
}
