//! ADD, ADC, SUB, SBB, CMP, AND, OR, XOR, TEST, INC, DEC, NEG, NOT.

use x86_decode::{Insn, Mnemonic, OperandKind};

use super::sized;
use crate::memory::{Form, by_address};
use crate::{Cpu, Env, Fault, Flags, Handler, HostAddr, Word};

/// An operation of two operands.
pub(crate) trait Binary {
    /// The first operand receives the result.
    const WRITES: bool = true;
    fn apply<T: Word>(flags: &mut Flags, a: T, b: T) -> T;
}

/// An operation of one operand.
trait Unary {
    fn apply<T: Word>(flags: &mut Flags, a: T) -> T;
}

macro_rules! binary {
    ($($name:ident, $writes:literal, |$flags:ident, $a:ident, $b:ident| $body:expr;)*) => {
        $(
            pub(crate) struct $name;
            impl Binary for $name {
                const WRITES: bool = $writes;
                #[inline(always)]
                fn apply<T: Word>($flags: &mut Flags, $a: T, $b: T) -> T {
                    $body
                }
            }
        )*
    };
}

#[inline(always)]
fn logic<T: Word>(flags: &mut Flags, result: u64) -> T {
    let result = T::from_u64(result);
    flags.set_logic(result);
    result
}

binary! {
    Add, true, |f, a, b| f.add(a, b);
    Adc, true, |f, a, b| f.adc(a, b);
    Sub, true, |f, a, b| f.sub(a, b);
    Sbb, true, |f, a, b| f.sbb(a, b);
    Cmp, false, |f, a, b| f.sub(a, b);
    And, true, |f, a, b| logic(f, a.to_u64() & b.to_u64());
    Or, true, |f, a, b| logic(f, a.to_u64() | b.to_u64());
    Xor, true, |f, a, b| logic(f, a.to_u64() ^ b.to_u64());
    Test, false, |f, a, b| logic(f, a.to_u64() & b.to_u64());
}

macro_rules! unary {
    ($($name:ident, |$flags:ident, $a:ident| $body:expr;)*) => {
        $(
            struct $name;
            impl Unary for $name {
                #[inline(always)]
                fn apply<T: Word>($flags: &mut Flags, $a: T) -> T {
                    $body
                }
            }
        )*
    };
}

unary! {
    Inc, |f, a| f.inc(a);
    Dec, |f, a| f.dec(a);
    Neg, |f, a| f.sub(T::from_u64(0), a);
    Not, |_f, a| T::from_u64(!a.to_u64());
}

pub(super) fn select<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    Some(match insn.mnemonic() {
        Mnemonic::Add => by_form::<E, Add>(insn),
        Mnemonic::Adc => by_form::<E, Adc>(insn),
        Mnemonic::Sub => by_form::<E, Sub>(insn),
        Mnemonic::Sbb => by_form::<E, Sbb>(insn),
        Mnemonic::Cmp => by_form::<E, Cmp>(insn),
        Mnemonic::And => by_form::<E, And>(insn),
        Mnemonic::Or => by_form::<E, Or>(insn),
        Mnemonic::Xor => by_form::<E, Xor>(insn),
        Mnemonic::Test => by_form::<E, Test>(insn),
        Mnemonic::Inc => unary_by_form::<E, Inc>(insn),
        Mnemonic::Dec => unary_by_form::<E, Dec>(insn),
        Mnemonic::Neg => unary_by_form::<E, Neg>(insn),
        Mnemonic::Not => unary_by_form::<E, Not>(insn),
        _ => return None,
    })
}

fn by_form<E: Env, O: Binary>(insn: &Insn) -> Handler<E> {
    use OperandKind::{Imm, Mem, Reg};
    match (insn.kind(0), insn.kind(1)) {
        (Mem, Imm) if insn.locked() => sized!(insn.op_size, mi_lock, O),
        (Mem, _) if insn.locked() => sized!(insn.op_size, mr_lock, O),
        (Mem, Imm) => by_address!(insn, mi, mi_flat, O),
        (Mem, _) => by_address!(insn, mr, mr_flat, O),
        (_, Mem) => by_address!(insn, rm, rm_flat, O),
        (_, Imm) => sized!(insn.op_size, ri, O),
        (_, Reg | OperandKind::None) => sized!(insn.op_size, rr, O),
    }
}

fn unary_by_form<E: Env, O: Unary>(insn: &Insn) -> Handler<E> {
    match insn.kind(0) {
        OperandKind::Mem => sized!(insn.op_size, m, O),
        _ => sized!(insn.op_size, r, O),
    }
}

fn rr<E: Env, T: Word, O: Binary>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let b = cpu.reg::<T>(insn.reg1());
    into_reg::<E, T, O>(cpu, insn, b);
    Ok(())
}

fn ri<E: Env, T: Word, O: Binary>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    into_reg::<E, T, O>(cpu, insn, T::from_u64(insn.imm));
    Ok(())
}

fn rm<E: Env, T: Word, O: Binary>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let b = cpu.read::<T>(insn.seg, cpu.ea(insn))?;
    into_reg::<E, T, O>(cpu, insn, b);
    Ok(())
}

fn mr<E: Env, T: Word, O: Binary>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let b = cpu.reg::<T>(insn.reg1());
    into_mem::<E, T, O>(cpu, insn, b, false)
}

fn mi<E: Env, T: Word, O: Binary>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    into_mem::<E, T, O>(cpu, insn, T::from_u64(insn.imm), false)
}

fn rm_flat<E: Env, T: Word, O: Binary, A: Form>(
    cpu: &mut Cpu<E>,
    insn: &Insn,
) -> Result<(), Fault> {
    let Some(at) = cpu.flat_read::<T>(cpu.flat_ea::<A>(insn)) else {
        return rm::<E, T, O>(cpu, insn);
    };
    let b = T::load(&cpu.env, at);
    into_reg::<E, T, O>(cpu, insn, b);
    Ok(())
}

fn mr_flat<E: Env, T: Word, O: Binary, A: Form>(
    cpu: &mut Cpu<E>,
    insn: &Insn,
) -> Result<(), Fault> {
    match flat_place::<E, T, O, A>(cpu, insn) {
        Some(at) => into_flat::<E, T, O>(cpu, at, cpu.reg::<T>(insn.reg1())),
        None => mr::<E, T, O>(cpu, insn),
    }
}

fn mi_flat<E: Env, T: Word, O: Binary, A: Form>(
    cpu: &mut Cpu<E>,
    insn: &Insn,
) -> Result<(), Fault> {
    match flat_place::<E, T, O, A>(cpu, insn) {
        Some(at) => into_flat::<E, T, O>(cpu, at, T::from_u64(insn.imm)),
        None => mi::<E, T, O>(cpu, insn),
    }
}

#[inline(always)]
fn flat_place<E: Env, T: Word, O: Binary, A: Form>(cpu: &Cpu<E>, insn: &Insn) -> Option<HostAddr> {
    let linear = cpu.flat_ea::<A>(insn);
    if O::WRITES { cpu.flat_write::<T>(linear) } else { cpu.flat_read::<T>(linear) }
}

#[inline(always)]
fn into_flat<E: Env, T: Word, O: Binary>(
    cpu: &mut Cpu<E>,
    at: HostAddr,
    b: T,
) -> Result<(), Fault> {
    let a = T::load(&cpu.env, at);
    let result = O::apply(&mut cpu.flags, a, b);
    if O::WRITES { cpu.flat_store(at, result) } else { Ok(()) }
}

fn mr_lock<E: Env, T: Word, O: Binary>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let b = cpu.reg::<T>(insn.reg1());
    into_mem::<E, T, O>(cpu, insn, b, true)
}

fn mi_lock<E: Env, T: Word, O: Binary>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    into_mem::<E, T, O>(cpu, insn, T::from_u64(insn.imm), true)
}

#[inline(always)]
fn into_reg<E: Env, T: Word, O: Binary>(cpu: &mut Cpu<E>, insn: &Insn, b: T) {
    let a = cpu.reg::<T>(insn.reg0());
    let result = O::apply(&mut cpu.flags, a, b);
    if O::WRITES {
        cpu.set_reg(insn.reg0(), result);
    }
}

#[inline(always)]
fn into_mem<E: Env, T: Word, O: Binary>(
    cpu: &mut Cpu<E>,
    insn: &Insn,
    b: T,
    lock: bool,
) -> Result<(), Fault> {
    let offset = cpu.ea(insn);
    if !O::WRITES {
        let a = cpu.read::<T>(insn.seg, offset)?;
        O::apply(&mut cpu.flags, a, b);
        return Ok(());
    }
    let before = cpu.flags;
    cpu.flags = cpu.modify(insn.seg, offset, lock, |a: T| {
        let mut flags = before;
        (O::apply(&mut flags, a, b), flags)
    })?;
    Ok(())
}

fn r<E: Env, T: Word, O: Unary>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let a = cpu.reg::<T>(insn.reg0());
    let result = O::apply(&mut cpu.flags, a);
    cpu.set_reg(insn.reg0(), result);
    Ok(())
}

fn m<E: Env, T: Word, O: Unary>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let before = cpu.flags;
    cpu.flags = cpu.modify(insn.seg, cpu.ea(insn), insn.locked(), |a: T| {
        let mut flags = before;
        (O::apply(&mut flags, a), flags)
    })?;
    Ok(())
}
