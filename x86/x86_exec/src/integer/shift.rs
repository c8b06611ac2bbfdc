//! Shifts and rotates.
//!
//! OF of counts above one and AF are undefined: OF goes by the formula of a count of one, AF is
//! clear after a shift.

use x86_decode::{Insn, Mnemonic, OperandKind};
use x86_state::Gpr;

use super::{sized, sized_wide, top, width};
use crate::flags::sign_extend;
use crate::{Cpu, Env, Fault, Flags, Handler, Word};

/// A shift or rotate by a count that is not zero and below 64.
trait Shift {
    fn apply<T: Word>(flags: &mut Flags, a: T, count: u32) -> T;
}

struct Shl;
impl Shift for Shl {
    #[inline(always)]
    fn apply<T: Word>(flags: &mut Flags, a: T, count: u32) -> T {
        let (a, w) = (a.to_u64(), width::<T>());
        // Counts reach 31 where the operand has 8 or 16 bits.
        let carry = if w == 64 { a >> (64 - count) } else { (a << count) >> w };
        let result = T::from_u64(a << count);
        shifted(flags, result, carry & 1 != 0, top(result) != (carry & 1 != 0))
    }
}

struct Shr;
impl Shift for Shr {
    #[inline(always)]
    fn apply<T: Word>(flags: &mut Flags, a: T, count: u32) -> T {
        let carry = (a.to_u64() >> (count - 1)) & 1 != 0;
        let result = T::from_u64(a.to_u64() >> count);
        shifted(flags, result, carry, top_two_differ(result))
    }
}

struct Sar;
impl Shift for Sar {
    #[inline(always)]
    fn apply<T: Word>(flags: &mut Flags, a: T, count: u32) -> T {
        let a = sign_extend(a) as i64;
        let carry = (a >> (count - 1)) & 1 != 0;
        shifted(flags, T::from_u64((a >> count) as u64), carry, false)
    }
}

#[inline(always)]
fn shifted<T: Word>(flags: &mut Flags, result: T, carry: bool, overflow: bool) -> T {
    flags.set_logic(result);
    flags.set_carry_overflow(carry, overflow);
    result
}

#[inline(always)]
fn top_two_differ<T: Word>(value: T) -> bool {
    (value.to_u64() >> (width::<T>() - 2)).wrapping_add(1) & 2 != 0
}

struct Rol;
impl Shift for Rol {
    #[inline(always)]
    fn apply<T: Word>(flags: &mut Flags, a: T, count: u32) -> T {
        let (a, w) = (a.to_u64(), width::<T>());
        let count = count % w;
        let result = T::from_u64(a << count | a.checked_shr(w - count).unwrap_or(0));
        let carry = result.to_u64() & 1 != 0;
        flags.set_carry_overflow(carry, top(result) != carry);
        result
    }
}

struct Ror;
impl Shift for Ror {
    #[inline(always)]
    fn apply<T: Word>(flags: &mut Flags, a: T, count: u32) -> T {
        let (a, w) = (a.to_u64(), width::<T>());
        let count = count % w;
        let result = T::from_u64(a >> count | a.checked_shl(w - count).unwrap_or(0));
        flags.set_carry_overflow(top(result), top_two_differ(result));
        result
    }
}

struct Rcl;
impl Shift for Rcl {
    fn apply<T: Word>(flags: &mut Flags, a: T, count: u32) -> T {
        let w = width::<T>();
        let (result, carry) = rotate_through(flags, a, count % (w + 1));
        flags.set_carry_overflow(carry, top(result) != carry);
        result
    }
}

struct Rcr;
impl Shift for Rcr {
    fn apply<T: Word>(flags: &mut Flags, a: T, count: u32) -> T {
        let w = width::<T>();
        let (result, carry) = rotate_through(flags, a, w + 1 - count % (w + 1));
        flags.set_carry_overflow(carry, top_two_differ(result));
        result
    }
}

/// Rotates CF and the operand, as one of `width + 1` bits, left by at most as many.
fn rotate_through<T: Word>(flags: &Flags, a: T, count: u32) -> (T, bool) {
    let w = width::<T>();
    let whole = u128::from(flags.carry()) << w | u128::from(a.to_u64());
    let turned = whole << count | whole >> (w + 1 - count);
    (T::from_u64(turned as u64), turned >> w & 1 != 0)
}

/// SHLD or SHRD; `count` is not zero.
trait DoubleShift {
    fn apply<T: Word>(flags: &mut Flags, a: T, b: T, count: u32) -> T;
}

struct Shld;
impl DoubleShift for Shld {
    fn apply<T: Word>(flags: &mut Flags, a: T, b: T, count: u32) -> T {
        let w = width::<T>();
        // Undefined: go on with the first operand behind the second, as CPUs do.
        let (a, b, count) = if count > w { (b, a, count - w) } else { (a, b, count) };
        let whole = u128::from(a.to_u64()) << w | u128::from(b.to_u64());
        let result = T::from_u64((whole << count >> w) as u64);
        let carry = a.to_u64() >> (w - count) & 1 != 0;
        shifted(flags, result, carry, top(result) != carry)
    }
}

struct Shrd;
impl DoubleShift for Shrd {
    fn apply<T: Word>(flags: &mut Flags, a: T, b: T, count: u32) -> T {
        let w = width::<T>();
        let (a, b, count) = if count > w { (b, a, count - w) } else { (a, b, count) };
        let whole = u128::from(b.to_u64()) << w | u128::from(a.to_u64());
        let result = T::from_u64((whole >> count) as u64);
        let carry = a.to_u64() >> (count - 1) & 1 != 0;
        shifted(flags, result, carry, top_two_differ(result))
    }
}

pub(super) fn select<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    Some(match insn.mnemonic() {
        Mnemonic::Shl | Mnemonic::Sal => by_form::<E, Shl>(insn),
        Mnemonic::Shr => by_form::<E, Shr>(insn),
        Mnemonic::Sar => by_form::<E, Sar>(insn),
        Mnemonic::Rol => by_form::<E, Rol>(insn),
        Mnemonic::Ror => by_form::<E, Ror>(insn),
        Mnemonic::Rcl => by_form::<E, Rcl>(insn),
        Mnemonic::Rcr => by_form::<E, Rcr>(insn),
        Mnemonic::Shld => sized_wide!(insn.op_size, double, Shld),
        Mnemonic::Shrd => sized_wide!(insn.op_size, double, Shrd),
        _ => return None,
    })
}

fn by_form<E: Env, O: Shift>(insn: &Insn) -> Handler<E> {
    let mask = if insn.op_size == 8 { 63 } else { 31 };
    match (insn.kind(0), insn.kind(1)) {
        (OperandKind::Reg, OperandKind::Imm) if insn.imm & mask != 0 => {
            sized!(insn.op_size, reg_by_imm, O)
        }
        _ => sized!(insn.op_size, any, O),
    }
}

fn mask<T: Word>(count: u64) -> u32 {
    count as u32 & if T::SIZE == 8 { 63 } else { 31 }
}

fn count<E: Env, T: Word>(cpu: &Cpu<E>, insn: &Insn, index: u32) -> u32 {
    mask::<T>(match insn.kind(index) {
        OperandKind::Imm => insn.imm,
        _ => cpu.gpr[Gpr::Rcx as usize],
    })
}

/// By an immediate that is not zero: most of them.
fn reg_by_imm<E: Env, T: Word, O: Shift>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let a = cpu.reg::<T>(insn.reg0());
    let result = O::apply(&mut cpu.flags, a, mask::<T>(insn.imm));
    cpu.set_reg(insn.reg0(), result);
    Ok(())
}

fn any<E: Env, T: Word, O: Shift>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let count = count::<E, T>(cpu, insn, 1);
    let before = cpu.flags;
    cpu.flags = cpu.modify_op(insn, |a: T| {
        let mut flags = before;
        let result = if count == 0 { a } else { O::apply(&mut flags, a, count) };
        (result, flags)
    })?;
    Ok(())
}

fn double<E: Env, T: Word, O: DoubleShift>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let count = count::<E, T>(cpu, insn, 2);
    let b = cpu.reg::<T>(insn.reg1());
    let before = cpu.flags;
    cpu.flags = cpu.modify_op(insn, |a: T| {
        let mut flags = before;
        let result = if count == 0 { a } else { O::apply(&mut flags, a, b, count) };
        (result, flags)
    })?;
    Ok(())
}
