//! MUL, IMUL, DIV, IDIV.

use x86_decode::{Insn, Mnemonic, OperandKind};
use x86_state::{Exception, Gpr};

use super::{sized, sized_wide, width};
use crate::flags::sign_extend;
use crate::{Cpu, Env, Fault, Handler, Word};

const AX: u8 = Gpr::Rax as u8;
const DX: u8 = Gpr::Rdx as u8;

pub(super) fn select<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    Some(match (insn.mnemonic(), insn.kind(1)) {
        (Mnemonic::Mul, _) => sized!(insn.op_size, mul),
        (Mnemonic::Imul, OperandKind::None) => sized!(insn.op_size, imul),
        (Mnemonic::Imul, _) => sized_wide!(insn.op_size, imul_truncated),
        (Mnemonic::Div, _) => sized!(insn.op_size, div),
        (Mnemonic::Idiv, _) => sized!(insn.op_size, idiv),
        _ => return None,
    })
}

/// Sets rDX:rAX, or AX when the operands are bytes.
fn set_product<E: Env, T: Word>(cpu: &mut Cpu<E>, product: u128) {
    if T::SIZE == 1 {
        cpu.set_reg(AX, product as u16);
    } else {
        cpu.set_reg(AX, T::from_u64(product as u64));
        cpu.set_reg(DX, T::from_u64((product >> width::<T>()) as u64));
    }
}

/// rDX:rAX, or AX when the operands are bytes.
fn dividend<E: Env, T: Word>(cpu: &Cpu<E>) -> u128 {
    if T::SIZE == 1 {
        return u128::from(cpu.reg::<u16>(AX));
    }
    let (high, low) = (cpu.reg::<T>(DX).to_u64(), cpu.reg::<T>(AX).to_u64());
    u128::from(high) << width::<T>() | u128::from(low)
}

/// CF and OF tell whether the upper half counts. The others are undefined.
fn set_flags<E: Env, T: Word>(cpu: &mut Cpu<E>, low: u64, overflow: bool) {
    cpu.flags.set_result(T::from_u64(low));
    cpu.flags.set_carry_overflow(overflow, overflow);
}

fn mul<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let b: T = cpu.read_op(insn, 0)?;
    let product = u128::from(cpu.reg::<T>(AX).to_u64()) * u128::from(b.to_u64());
    set_product::<E, T>(cpu, product);
    set_flags::<E, T>(cpu, product as u64, product >> width::<T>() != 0);
    Ok(())
}

fn imul<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let b: T = cpu.read_op(insn, 0)?;
    let product = signed_product(cpu.reg::<T>(AX), b);
    set_product::<E, T>(cpu, product as u128);
    set_flags::<E, T>(cpu, product as u64, truncates::<T>(product));
    Ok(())
}

/// Two operands, or three of which the last is immediate.
fn imul_truncated<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let b: T = if insn.is_mem() { cpu.read(insn.seg, cpu.ea(insn))? } else { cpu.reg(insn.reg1()) };
    let a = match insn.kind(2) {
        OperandKind::None => cpu.reg::<T>(insn.reg0()),
        _ => T::from_u64(insn.imm),
    };
    let (a, b) = (sign_extend(a) as i64, sign_extend(b) as i64);
    // Products of smaller operands fit, and are truncated below.
    let (product, mut overflow) = a.overflowing_mul(b);
    let result = T::from_u64(product as u64);
    overflow |= sign_extend(result) as i64 != product;
    cpu.set_reg(insn.reg0(), result);
    set_flags::<E, T>(cpu, product as u64, overflow);
    Ok(())
}

#[inline(always)]
fn signed_product<T: Word>(a: T, b: T) -> i128 {
    i128::from(sign_extend(a) as i64) * i128::from(sign_extend(b) as i64)
}

#[inline(always)]
fn truncates<T: Word>(product: i128) -> bool {
    i128::from(sign_extend(T::from_u64(product as u64)) as i64) != product
}

/// Sets quotient and remainder.
fn set_quotient<E: Env, T: Word>(cpu: &mut Cpu<E>, quotient: u64, remainder: u64) {
    if T::SIZE == 1 {
        cpu.set_reg(AX, (quotient & 0xff | remainder << 8) as u16);
    } else {
        cpu.set_reg(AX, T::from_u64(quotient));
        cpu.set_reg(DX, T::from_u64(remainder));
    }
}

fn div<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let divisor: T = cpu.read_op(insn, 0)?;
    let a = dividend::<E, T>(cpu);
    let b = divisor.to_u64();
    // The quotient fits exactly when the upper half is below the divisor; zero never is above.
    if (a >> width::<T>()) as u64 >= b {
        return Err(cpu.raise(Exception::De));
    }
    let (quotient, remainder) = match u64::try_from(a) {
        Ok(a) => (a / b, a % b),
        Err(_) => ((a / u128::from(b)) as u64, (a % u128::from(b)) as u64),
    };
    set_quotient::<E, T>(cpu, quotient, remainder);
    Ok(())
}

fn idiv<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let divisor: T = cpu.read_op(insn, 0)?;
    let unused = 128 - 2 * width::<T>();
    let a = (dividend::<E, T>(cpu) << unused) as i128 >> unused;
    let b = i128::from(sign_extend(divisor) as i64);
    // `checked`: the most negative number divided by -1 has no quotient even in 128 bits.
    let quotient = a.checked_div(b).filter(|q| !truncates::<T>(*q));
    let Some(quotient) = quotient else {
        return Err(cpu.raise(Exception::De));
    };
    let remainder = a.wrapping_sub(quotient.wrapping_mul(b));
    let low = (1u128 << width::<T>()) - 1;
    set_quotient::<E, T>(cpu, (quotient as u128 & low) as u64, (remainder as u128 & low) as u64);
    Ok(())
}
