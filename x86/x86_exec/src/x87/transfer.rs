//! Loads, stores, exchanges, conditional moves and constants.

use x86_decode::{Code, Insn};
use x86_fpu::x87::{self, C1, INDEFINITE, Outcome};
use x86_state::bits::Rflags;

use super::arithmetic::{float_of, i16_operand, i32_operand, table};
use super::stack::Pops;
use crate::{Access, Cpu, Env, Fault, Handler, Word};

type Done = Result<(), Fault>;

/// A result that raises nothing.
fn plain(value: u128) -> Outcome {
    Outcome { value, second: 0, status: 0, done: true }
}

/// Loads from memory what converts with exceptions.
#[inline(always)]
fn load<E: Env, T: Word>(
    cpu: &mut Cpu<E>,
    insn: &Insn,
    convert: impl Fn(u16, u128) -> Outcome,
) -> Done {
    cpu.x87_wait()?;
    let value: T = cpu.read(insn.seg, cpu.ea(insn))?;
    let outcome = convert(cpu.fpu.fcw, u128::from(value.to_u64()));
    cpu.x87_push(outcome);
    cpu.x87_retire(insn);
    Ok(())
}

/// Loads what is a float already.
#[inline(always)]
fn load_exact<E: Env>(
    cpu: &mut Cpu<E>,
    insn: &Insn,
    operand: impl Fn(&mut Cpu<E>, &Insn) -> Result<u128, Fault>,
) -> Done {
    cpu.x87_wait()?;
    let value = operand(cpu, insn)?;
    cpu.x87_push(plain(value));
    cpu.x87_retire(insn);
    Ok(())
}

fn i64_operand<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<u128, Fault> {
    cpu.read::<u64>(insn.seg, cpu.ea(insn)).map(|value| float_of(value as i64))
}

fn m80_operand<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<u128, Fault> {
    let mut bytes = [0; 16];
    cpu.read_bytes(insn.seg, cpu.ea(insn), &mut bytes[..10])?;
    Ok(u128::from_le_bytes(bytes))
}

fn fbld<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Done {
    cpu.x87_wait()?;
    let digits = m80_operand(cpu, insn)?;
    let outcome = x87::fbld(cpu.fpu.fcw, digits);
    cpu.x87_push(outcome);
    cpu.x87_retire(insn);
    Ok(())
}

#[inline(always)]
fn constant<E: Env>(cpu: &mut Cpu<E>, insn: &Insn, op: impl Fn(u16) -> Outcome) -> Done {
    cpu.x87_wait()?;
    let outcome = op(cpu.fpu.fcw);
    cpu.x87_push(outcome);
    cpu.x87_retire(insn);
    Ok(())
}

/// FLD ST(i).
fn fld_sti<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Done {
    cpu.x87_wait()?;
    let i = insn.reg0();
    if cpu.fpu.is_used(i) {
        cpu.x87_push(plain(cpu.fpu.get(i)));
    } else if cpu.x87_stack_fault(false, 0) {
        cpu.fpu.push(INDEFINITE);
    }
    cpu.x87_retire(insn);
    Ok(())
}

/// Where `size` bytes would go is looked up, though an exception prevents that they are stored.
fn look_up<E: Env>(cpu: &mut Cpu<E>, insn: &Insn, size: u64) -> Done {
    let first = cpu.linear(insn.seg, cpu.ea(insn), size, Access::Write)?;
    let privilege = cpu.mmu.privilege();
    for linear in [first, first.wrapping_add(size - 1)] {
        cpu.page(linear, Access::Write, privilege)?;
    }
    Ok(())
}

/// Converts ST(0) and stores it, `size` bytes. `empty` is what an empty register stores.
#[inline(always)]
fn store<E: Env>(
    cpu: &mut Cpu<E>,
    insn: &Insn,
    pops: Pops,
    (size, empty): (u64, u128),
    convert: impl Fn(u16, u128) -> Outcome,
    write: impl Fn(&mut Cpu<E>, &Insn, u128) -> Done,
) -> Done {
    cpu.x87_wait()?;
    let used = cpu.fpu.is_used(0);
    let outcome = if used {
        convert(cpu.fpu.fcw, cpu.fpu.get(0))
    } else {
        Outcome { done: cpu.fpu.fcw & x87::IE != 0, ..plain(empty) }
    };
    if outcome.done {
        write(cpu, insn, outcome.value)?;
    } else {
        look_up(cpu, insn, size)?;
    }
    if used {
        cpu.fpu.note(outcome.status, C1);
    } else {
        cpu.x87_stack_fault(false, 0);
    }
    if outcome.done {
        cpu.x87_pop(pops);
    }
    cpu.x87_retire(insn);
    Ok(())
}

fn write_word<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn, value: u128) -> Done {
    cpu.write(insn.seg, cpu.ea(insn), T::from_u64(value as u64))
}

fn write_m80<E: Env>(cpu: &mut Cpu<E>, insn: &Insn, value: u128) -> Done {
    cpu.write_bytes(insn.seg, cpu.ea(insn), &value.to_le_bytes()[..10])
}

/// FST ST(i).
#[inline(always)]
fn fst_sti<E: Env>(cpu: &mut Cpu<E>, insn: &Insn, pops: Pops) -> Done {
    cpu.x87_wait()?;
    let i = insn.reg0();
    if cpu.fpu.is_used(0) {
        cpu.x87_result(i, plain(cpu.fpu.get(0)), C1, pops);
    } else {
        cpu.x87_underflow(i, C1, pops);
    }
    cpu.x87_retire(insn);
    Ok(())
}

/// FSTPNCE, an undocumented FSTP ST(i) that only pops when ST(0) is empty.
fn fstpnce<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Done {
    cpu.x87_wait()?;
    if cpu.fpu.is_used(0) {
        cpu.fpu.set(insn.reg0(), cpu.fpu.get(0));
    }
    cpu.fpu.pop();
    cpu.fpu.note(0, C1);
    cpu.x87_retire(insn);
    Ok(())
}

/// FXCH; an empty register counts as the indefinite value when that is masked.
fn fxch<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Done {
    cpu.x87_wait()?;
    let i = insn.reg1();
    let (a_used, b_used) = (cpu.fpu.is_used(0), cpu.fpu.is_used(i));
    let done = (a_used && b_used) || cpu.x87_stack_fault(false, 0);
    if done {
        let a = if a_used { cpu.fpu.get(0) } else { INDEFINITE };
        let b = if b_used { cpu.fpu.get(i) } else { INDEFINITE };
        cpu.fpu.set(0, b);
        cpu.fpu.set(i, a);
        cpu.fpu.note(0, C1);
    }
    cpu.x87_retire(insn);
    Ok(())
}

/// FCMOVcc: when one of `any` is set, or none with `unless`.
#[inline(always)]
fn fcmov<E: Env>(cpu: &mut Cpu<E>, insn: &Insn, any: Rflags, unless: bool) -> Done {
    cpu.x87_wait()?;
    let i = insn.reg1();
    if !cpu.fpu.is_used(0) || !cpu.fpu.is_used(i) {
        cpu.x87_underflow(0, C1, Pops::None);
    } else if (cpu.flags.bits() & any.bits() != 0) != unless {
        cpu.fpu.set(0, cpu.fpu.get(i));
    }
    cpu.x87_retire(insn);
    Ok(())
}

pub(super) fn select<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    loads(insn).or_else(|| stores(insn)).or_else(|| moves(insn))
}

fn loads<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    Some(table! { insn;
        Fld_m32fp => |c, i| load::<E, u32>(c, i, x87::fld_m32),
        Fld_m64fp => |c, i| load::<E, u64>(c, i, x87::fld_m64),
        Fld_m80fp => |c, i| load_exact(c, i, m80_operand),
        Fild_m16int => |c, i| load_exact(c, i, i16_operand),
        Fild_m32int => |c, i| load_exact(c, i, i32_operand),
        Fild_m64int => |c, i| load_exact(c, i, i64_operand),
        Fbld_m80bcd => fbld,
        Fld_sti => fld_sti,
        Fld1 => |c, i| constant(c, i, x87::fld1),
        Fldl2t => |c, i| constant(c, i, x87::fldl2t),
        Fldl2e => |c, i| constant(c, i, x87::fldl2e),
        Fldpi => |c, i| constant(c, i, x87::fldpi),
        Fldlg2 => |c, i| constant(c, i, x87::fldlg2),
        Fldln2 => |c, i| constant(c, i, x87::fldln2),
        Fldz => |c, i| constant(c, i, x87::fldz),
    })
}

/// The integer indefinite values, and those of floats and packed decimals.
const EMPTY_I16: u128 = 0x8000;
const EMPTY_I32: u128 = 0x8000_0000;
const EMPTY_I64: u128 = 0x8000_0000_0000_0000;
const EMPTY_M32: u128 = 0xffc0_0000;
const EMPTY_M64: u128 = 0xfff8_0000_0000_0000;
const EMPTY_BCD: u128 = 0xffff_c000_0000_0000_0000;

fn stores<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    use Pops::{None as Keep, One};
    macro_rules! word {
        ($type:ty, $pops:expr, $empty:expr, $op:ident) => {
            |c, i| {
                let empty = (size_of::<$type>() as u64, $empty);
                store(c, i, $pops, empty, x87::$op, write_word::<E, $type>)
            }
        };
    }
    Some(table! { insn;
        Fst_m32fp => word!(u32, Keep, EMPTY_M32, fst_m32),
        Fstp_m32fp => word!(u32, One, EMPTY_M32, fst_m32),
        Fst_m64fp => word!(u64, Keep, EMPTY_M64, fst_m64),
        Fstp_m64fp => word!(u64, One, EMPTY_M64, fst_m64),
        Fist_m16int => word!(u16, Keep, EMPTY_I16, fist_m16),
        Fistp_m16int => word!(u16, One, EMPTY_I16, fist_m16),
        Fist_m32int => word!(u32, Keep, EMPTY_I32, fist_m32),
        Fistp_m32int => word!(u32, One, EMPTY_I32, fist_m32),
        Fistp_m64int => word!(u64, One, EMPTY_I64, fist_m64),
        Fisttp_m16int => word!(u16, One, EMPTY_I16, fisttp_m16),
        Fisttp_m32int => word!(u32, One, EMPTY_I32, fisttp_m32),
        Fisttp_m64int => word!(u64, One, EMPTY_I64, fisttp_m64),
        Fstp_m80fp => |c, i| store(c, i, One, (10, INDEFINITE), |_, a| plain(a), write_m80),
        Fbstp_m80bcd => |c, i| store(c, i, One, (10, EMPTY_BCD), x87::fbstp, write_m80),
    })
}

fn moves<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    const BE: Rflags = Rflags::CF.union(Rflags::ZF);
    Some(table! { insn;
        Fst_sti => |c, i| fst_sti(c, i, Pops::None),
        Fstp_sti | Fstp_sti_DFD0 | Fstp_sti_DFD8 => |c, i| fst_sti(c, i, Pops::One),
        Fstpnce_sti => fstpnce,
        Fxch_st0_sti | Fxch_st0_sti_DDC8 | Fxch_st0_sti_DFC8 => fxch,
        Fcmovb_st0_sti => |c, i| fcmov(c, i, Rflags::CF, false),
        Fcmove_st0_sti => |c, i| fcmov(c, i, Rflags::ZF, false),
        Fcmovbe_st0_sti => |c, i| fcmov(c, i, BE, false),
        Fcmovu_st0_sti => |c, i| fcmov(c, i, Rflags::PF, false),
        Fcmovnb_st0_sti => |c, i| fcmov(c, i, Rflags::CF, true),
        Fcmovne_st0_sti => |c, i| fcmov(c, i, Rflags::ZF, true),
        Fcmovnbe_st0_sti => |c, i| fcmov(c, i, BE, true),
        Fcmovnu_st0_sti => |c, i| fcmov(c, i, Rflags::PF, true),
    })
}
