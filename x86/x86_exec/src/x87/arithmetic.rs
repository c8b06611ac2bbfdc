//! Arithmetic, functions and compares.

use x86_decode::{Code, Insn};
use x86_fpu::x87::{self, C0, C1, C2, C3, CONDITIONS, INDEFINITE, Outcome};
use x86_state::bits::Rflags;

use super::stack::Pops;
use crate::{Cpu, Env, Fault, Flags, Handler};

type Done = Result<(), Fault>;

/// ST(`to`) = `op`(ST(0), ST(`from`)).
#[inline(always)]
fn binary<E: Env>(
    cpu: &mut Cpu<E>,
    insn: &Insn,
    (to, from): (u8, u8),
    pops: Pops,
    conditions: u16,
    op: impl Fn(u16, u128, u128) -> Outcome,
) -> Done {
    cpu.x87_wait()?;
    if cpu.fpu.is_used(0) && cpu.fpu.is_used(from) {
        let outcome = op(cpu.fpu.fcw, cpu.fpu.get(0), cpu.fpu.get(from));
        cpu.x87_result(to, outcome, conditions, pops);
    } else {
        cpu.x87_underflow(to, conditions, pops);
    }
    cpu.x87_retire(insn);
    Ok(())
}

/// ST(0) = `op`(ST(0), memory).
#[inline(always)]
fn with_memory<E: Env>(
    cpu: &mut Cpu<E>,
    insn: &Insn,
    load: impl Fn(&mut Cpu<E>, &Insn) -> Result<u128, Fault>,
    op: impl Fn(u16, u128, u128) -> Outcome,
) -> Done {
    cpu.x87_wait()?;
    let operand = load(cpu, insn)?;
    if cpu.fpu.is_used(0) {
        let outcome = op(cpu.fpu.fcw, cpu.fpu.get(0), operand);
        cpu.x87_result(0, outcome, C1, Pops::None);
    } else {
        cpu.x87_underflow(0, C1, Pops::None);
    }
    cpu.x87_retire(insn);
    Ok(())
}

/// Compares ST(0) with `other`, which is `None` when it is empty.
#[inline(always)]
fn compare<E: Env>(
    cpu: &mut Cpu<E>,
    insn: &Insn,
    other: Option<u128>,
    pops: Pops,
    op: impl Fn(u16, u128, u128) -> Outcome,
) {
    match other {
        Some(other) if cpu.fpu.is_used(0) => {
            let outcome = op(cpu.fpu.fcw, cpu.fpu.get(0), other);
            cpu.x87_compared(outcome, pops);
        }
        _ => {
            let done = cpu.x87_stack_fault(false, CONDITIONS);
            cpu.x87_compared(Outcome { value: 0, second: 0, status: C0 | C2 | C3, done }, pops);
        }
    }
    cpu.x87_retire(insn);
}

#[inline(always)]
fn compare_register<E: Env>(
    cpu: &mut Cpu<E>,
    insn: &Insn,
    i: u8,
    pops: Pops,
    op: impl Fn(u16, u128, u128) -> Outcome,
) -> Done {
    cpu.x87_wait()?;
    let other = cpu.fpu.is_used(i).then(|| cpu.fpu.get(i));
    compare(cpu, insn, other, pops, op);
    Ok(())
}

#[inline(always)]
fn compare_memory<E: Env>(
    cpu: &mut Cpu<E>,
    insn: &Insn,
    load: impl Fn(&mut Cpu<E>, &Insn) -> Result<u128, Fault>,
    pops: Pops,
    op: impl Fn(u16, u128, u128) -> Outcome,
) -> Done {
    cpu.x87_wait()?;
    let other = load(cpu, insn)?;
    compare(cpu, insn, Some(other), pops, op);
    Ok(())
}

/// FCOMI and its like: to RFLAGS. The condition codes stay.
fn compare_to_flags<E: Env>(
    cpu: &mut Cpu<E>,
    insn: &Insn,
    pops: Pops,
    op: impl Fn(u16, u128, u128) -> Outcome,
) -> Done {
    cpu.x87_wait()?;
    let i = insn.reg1();
    let outcome = if cpu.fpu.is_used(0) && cpu.fpu.is_used(i) {
        let outcome = op(cpu.fpu.fcw, cpu.fpu.get(0), cpu.fpu.get(i));
        cpu.fpu.note(outcome.status, 0);
        outcome
    } else {
        let done = cpu.x87_stack_fault(false, 0);
        Outcome { value: 0, second: 0, status: C0 | C2 | C3, done }
    };
    let bit = |code: u16, flag: Rflags| if outcome.status & code != 0 { flag.bits() } else { 0 };
    cpu.flags = Flags::from_bits(bit(C3, Rflags::ZF) | bit(C2, Rflags::PF) | bit(C0, Rflags::CF));
    if outcome.done {
        cpu.x87_pop(pops);
    }
    cpu.x87_retire(insn);
    Ok(())
}

/// From ST(0) to ST(0).
#[inline(always)]
fn unary<E: Env>(
    cpu: &mut Cpu<E>,
    insn: &Insn,
    conditions: u16,
    op: impl Fn(u16, u128) -> Outcome,
) -> Done {
    cpu.x87_wait()?;
    if cpu.fpu.is_used(0) {
        let outcome = op(cpu.fpu.fcw, cpu.fpu.get(0));
        cpu.x87_result(0, outcome, conditions, Pops::None);
    } else {
        cpu.x87_underflow(0, conditions, Pops::None);
    }
    cpu.x87_retire(insn);
    Ok(())
}

/// From ST(0) and ST(1) to ST(1), which becomes ST(0).
#[inline(always)]
fn binary_pop<E: Env>(
    cpu: &mut Cpu<E>,
    insn: &Insn,
    op: impl Fn(u16, u128, u128) -> Outcome,
) -> Done {
    binary(cpu, insn, (1, 1), Pops::One, C1, op)
}

/// FPREM and FPREM1: condition codes hold the quotient, if there is one.
#[inline(always)]
fn remainder<E: Env>(
    cpu: &mut Cpu<E>,
    insn: &Insn,
    op: impl Fn(u16, u128, u128) -> Outcome,
) -> Done {
    let old = cpu.fpu.fsw & (C0 | C3);
    binary(cpu, insn, (0, 1), Pops::None, CONDITIONS, |fcw, a, b| {
        let outcome = op(fcw, a, b);
        let is_nan = outcome.value >> 64 & 0x7fff == 0x7fff;
        let status = if is_nan || !outcome.done {
            outcome.status & !(C0 | C3) | old
        } else {
            outcome.status
        };
        Outcome { status, ..outcome }
    })
}

/// From ST(0) to ST(0) and one more.
#[inline(always)]
fn to_two<E: Env>(
    cpu: &mut Cpu<E>,
    insn: &Insn,
    conditions: u16,
    op: impl Fn(u16, u128) -> Outcome,
) -> Done {
    cpu.x87_wait()?;
    if !cpu.fpu.is_used(0) || cpu.fpu.is_used(7) {
        let overflow = cpu.fpu.is_used(0);
        if cpu.x87_stack_fault(overflow, conditions) {
            cpu.fpu.set(0, INDEFINITE);
            cpu.fpu.push(INDEFINITE);
        }
    } else {
        let outcome = op(cpu.fpu.fcw, cpu.fpu.get(0));
        cpu.fpu.note(outcome.status, conditions);
        if outcome.done && outcome.status & conditions & C2 == 0 {
            cpu.fpu.set(0, outcome.second);
            cpu.fpu.push(outcome.value);
        }
    }
    cpu.x87_retire(insn);
    Ok(())
}

/// FCHS and FABS: only the sign bit, of whatever is there.
fn sign<E: Env>(cpu: &mut Cpu<E>, insn: &Insn, change: impl Fn(u128) -> u128) -> Done {
    unary(cpu, insn, C1, |_, a| Outcome { value: change(a), second: 0, status: 0, done: true })
}

/// FXAM: the class of ST(0).
fn fxam<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Done {
    cpu.x87_wait()?;
    let value = cpu.fpu.get(0);
    let (significand, exponent) = (value as u64, (value >> 64) as u16 & 0x7fff);
    let integer_bit = significand >> 63 != 0;
    let class = match exponent {
        _ if !cpu.fpu.is_used(0) => C3 | C0,
        0 if significand == 0 => C3,
        0 => C3 | C2,
        _ if !integer_bit => 0,
        0x7fff if significand << 1 == 0 => C2 | C0,
        0x7fff => C0,
        _ => C2,
    };
    let sign = if value >> 79 & 1 != 0 { C1 } else { 0 };
    cpu.fpu.note(class | sign, CONDITIONS);
    cpu.x87_retire(insn);
    Ok(())
}

fn m32<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<u128, Fault> {
    cpu.read::<u32>(insn.seg, cpu.ea(insn)).map(u128::from)
}

fn m64<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<u128, Fault> {
    cpu.read::<u64>(insn.seg, cpu.ea(insn)).map(u128::from)
}

/// An integer becomes a float exactly.
pub(super) fn i16_operand<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<u128, Fault> {
    let value = cpu.read::<u16>(insn.seg, cpu.ea(insn))?;
    Ok(float_of(i64::from(value as i16)))
}

pub(super) fn i32_operand<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<u128, Fault> {
    let value = cpu.read::<u32>(insn.seg, cpu.ea(insn))?;
    Ok(float_of(i64::from(value as i32)))
}

/// The 80-bit float of an integer.
pub(super) fn float_of(value: i64) -> u128 {
    if value == 0 {
        return 0;
    }
    let magnitude = value.unsigned_abs();
    let shift = magnitude.leading_zeros();
    let exponent = u128::from(0x3fff + 63 - shift) | if value < 0 { 0x8000 } else { 0 };
    exponent << 64 | u128::from(magnitude << shift)
}

macro_rules! table {
    ($insn:ident; $($($code:ident)|+ => $handler:expr,)*) => {
        match $insn.code {
            $($(Code::$code)|+ => $handler,)*
            _ => return None,
        }
    };
}
pub(super) use table;

/// The six operations in their seven forms. The names of the forms to ST(i) are the other way
/// round for subtraction and division (SDM vol. 2, FSUB: DC E0 is FSUBR).
macro_rules! arithmetic {
    ($insn:ident; $($st0:ident $sti:ident $pop:ident $m32:ident $m64:ident $i32:ident $i16:ident
       => $op:ident $op_sti:ident $op32:ident $op64:ident;)*) => {
        table! { $insn;
            $($st0 => |c, i| binary(c, i, (0, i.reg1()), Pops::None, C1, x87::$op),
            $sti => |c, i| binary(c, i, (i.reg0(), i.reg0()), Pops::None, C1, x87::$op_sti),
            $pop => |c, i| binary(c, i, (i.reg0(), i.reg0()), Pops::One, C1, x87::$op_sti),
            $m32 => |c, i| with_memory(c, i, m32, x87::$op32),
            $m64 => |c, i| with_memory(c, i, m64, x87::$op64),
            $i32 => |c, i| with_memory(c, i, i32_operand, x87::$op),
            $i16 => |c, i| with_memory(c, i, i16_operand, x87::$op),)*
        }
    };
}

pub(super) fn select<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    basic(insn).or_else(|| comparison(insn)).or_else(|| function(insn))
}

fn basic<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    Some(arithmetic! { insn;
        Fadd_st0_sti Fadd_sti_st0 Faddp_sti_st0 Fadd_m32fp Fadd_m64fp Fiadd_m32int Fiadd_m16int
            => fadd fadd fadd_m32 fadd_m64;
        Fmul_st0_sti Fmul_sti_st0 Fmulp_sti_st0 Fmul_m32fp Fmul_m64fp Fimul_m32int Fimul_m16int
            => fmul fmul fmul_m32 fmul_m64;
        Fsub_st0_sti Fsub_sti_st0 Fsubp_sti_st0 Fsub_m32fp Fsub_m64fp Fisub_m32int Fisub_m16int
            => fsub fsubr fsub_m32 fsub_m64;
        Fsubr_st0_sti Fsubr_sti_st0 Fsubrp_sti_st0 Fsubr_m32fp Fsubr_m64fp Fisubr_m32int
            Fisubr_m16int => fsubr fsub fsubr_m32 fsubr_m64;
        Fdiv_st0_sti Fdiv_sti_st0 Fdivp_sti_st0 Fdiv_m32fp Fdiv_m64fp Fidiv_m32int Fidiv_m16int
            => fdiv fdivr fdiv_m32 fdiv_m64;
        Fdivr_st0_sti Fdivr_sti_st0 Fdivrp_sti_st0 Fdivr_m32fp Fdivr_m64fp Fidivr_m32int
            Fidivr_m16int => fdivr fdiv fdivr_m32 fdivr_m64;
    })
}

fn comparison<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    use Pops::{None as Keep, One, Two};
    Some(table! { insn;
        Fcom_st0_sti | Fcom_st0_sti_DCD0 =>
            |c, i| compare_register(c, i, i.reg1(), Keep, x87::fcom),
        Fcomp_st0_sti | Fcomp_st0_sti_DCD8 | Fcomp_st0_sti_DED0 =>
            |c, i| compare_register(c, i, i.reg1(), One, x87::fcom),
        Fcompp => |c, i| compare_register(c, i, 1, Two, x87::fcom),
        Fucom_st0_sti => |c, i| compare_register(c, i, i.reg1(), Keep, x87::fucom),
        Fucomp_st0_sti => |c, i| compare_register(c, i, i.reg1(), One, x87::fucom),
        Fucompp => |c, i| compare_register(c, i, 1, Two, x87::fucom),
        Ftst => |c, i| compare_register(c, i, 0, Keep, x87::ftst),
        Fcom_m32fp => |c, i| compare_memory(c, i, m32, Keep, x87::fcom_m32),
        Fcomp_m32fp => |c, i| compare_memory(c, i, m32, One, x87::fcom_m32),
        Fcom_m64fp => |c, i| compare_memory(c, i, m64, Keep, x87::fcom_m64),
        Fcomp_m64fp => |c, i| compare_memory(c, i, m64, One, x87::fcom_m64),
        Ficom_m32int => |c, i| compare_memory(c, i, i32_operand, Keep, x87::fcom),
        Ficomp_m32int => |c, i| compare_memory(c, i, i32_operand, One, x87::fcom),
        Ficom_m16int => |c, i| compare_memory(c, i, i16_operand, Keep, x87::fcom),
        Ficomp_m16int => |c, i| compare_memory(c, i, i16_operand, One, x87::fcom),
        Fcomi_st0_sti => |c, i| compare_to_flags(c, i, Keep, x87::fcom),
        Fcomip_st0_sti => |c, i| compare_to_flags(c, i, One, x87::fcom),
        Fucomi_st0_sti => |c, i| compare_to_flags(c, i, Keep, x87::fucom),
        Fucomip_st0_sti => |c, i| compare_to_flags(c, i, One, x87::fucom),
        Fxam => fxam,
    })
}

fn function<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    Some(table! { insn;
        Fchs => |c, i| sign(c, i, |value| value ^ 1 << 79),
        Fabs => |c, i| sign(c, i, |value| value & !(1 << 79)),
        Fsqrt => |c, i| unary(c, i, C1, x87::fsqrt),
        Frndint => |c, i| unary(c, i, C1, x87::frndint),
        F2xm1 => |c, i| unary(c, i, C1, x87::f2xm1),
        Fsin => |c, i| unary(c, i, C1 | C2, x87::fsin),
        Fcos => |c, i| unary(c, i, C1 | C2, x87::fcos),
        Fprem => |c, i| remainder(c, i, x87::fprem),
        Fprem1 => |c, i| remainder(c, i, x87::fprem1),
        Fscale => |c, i| binary(c, i, (0, 1), Pops::None, C1, x87::fscale),
        Fpatan => |c, i| binary_pop(c, i, x87::fpatan),
        Fyl2x => |c, i| binary_pop(c, i, x87::fyl2x),
        Fyl2xp1 => |c, i| binary_pop(c, i, x87::fyl2xp1),
        Fxtract => |c, i| to_two(c, i, C1, x87::fxtract),
        Fsincos => |c, i| to_two(c, i, C1 | C2, x87::fsincos),
        Fptan => |c, i| to_two(c, i, C1 | C2, x87::fptan),
    })
}
