//! Conversions between float registers and general or MMX registers.

use x86_decode::{Insn, OperandKind};
use x86_fpu::sse::{self, Outcome};

use super::operand::merge;
use super::table;
use crate::{Cpu, Env, Fault, Handler, Word};

type Done = Result<(), Fault>;

/// From a general register or memory of type `T`.
#[inline(always)]
fn from_integer<E: Env, T: Word>(
    cpu: &mut Cpu<E>,
    insn: &Insn,
    op: impl Fn(u32, u128, T) -> Outcome,
) -> Done {
    cpu.check_sse()?;
    let src: T = cpu.read_op(insn, 1)?;
    let outcome = op(cpu.fpu.mxcsr, cpu.xmm(insn.reg0()), src);
    let value = cpu.settle(outcome)?;
    cpu.set_xmm(insn.reg0(), value);
    Ok(())
}

/// From memory of type `M` or an XMM register to a general register.
#[inline(always)]
fn to_integer<E: Env, M: Word, T: Word>(
    cpu: &mut Cpu<E>,
    insn: &Insn,
    op: impl Fn(u32, u128) -> Outcome<T>,
) -> Done {
    cpu.check_sse()?;
    let src = cpu.xmm_or::<M>(insn)?;
    let value = cpu.settle(op(cpu.fpu.mxcsr, src))?;
    cpu.set_reg(insn.reg0(), value);
    Ok(())
}

/// CVTPI2PS and CVTPI2PD: `bits` of the result are new. Memory operands leave the x87 alone.
#[inline(always)]
fn from_mmx<E: Env>(
    cpu: &mut Cpu<E>,
    insn: &Insn,
    bits: u32,
    op: impl Fn(u32, u128, u128) -> Outcome,
) -> Done {
    cpu.check_sse()?;
    let is_register = insn.kind(1) == OperandKind::Reg;
    if is_register {
        cpu.x87_pending()?;
    }
    let src = cpu.mm_or::<u64>(insn)?;
    let outcome = op(cpu.fpu.mxcsr, 0, u128::from(src));
    if is_register {
        cpu.mmx_entered();
    }
    let value = cpu.settle(outcome)?;
    let value = if bits == 64 { merge(cpu.xmm(insn.reg0()), value, 64) } else { value };
    cpu.set_xmm(insn.reg0(), value);
    Ok(())
}

/// CVTPS2PI and its like.
#[inline(always)]
fn to_mmx<E: Env>(
    cpu: &mut Cpu<E>,
    insn: &Insn,
    load: impl Fn(&mut Cpu<E>, &Insn) -> Result<u128, Fault>,
    op: impl Fn(u32, u128, u128) -> Outcome,
) -> Done {
    cpu.mmx_and_sse_available()?;
    let src = load(cpu, insn)?;
    let outcome = op(cpu.fpu.mxcsr, 0, src);
    cpu.mmx_entered();
    let value = cpu.settle(outcome)?;
    cpu.set_mm(insn.reg0(), value as u64);
    Ok(())
}

/// Two floats of 32 bits.
fn two_singles<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<u128, Fault> {
    cpu.xmm_or::<u64>(insn).map(|value| value & u128::from(u64::MAX))
}

fn two_doubles<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<u128, Fault> {
    cpu.xmm128(insn, 1)
}

pub(super) fn select<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    table! { insn;
        Cvtsi2ss_xmm_rm32 => |c, i| from_integer::<E, u32>(c, i, sse::cvtsi2ss),
        Cvtsi2ss_xmm_rm64 => |c, i| from_integer::<E, u64>(c, i, sse::cvtsi2ss_64),
        Cvtsi2sd_xmm_rm32 => |c, i| from_integer::<E, u32>(c, i, sse::cvtsi2sd),
        Cvtsi2sd_xmm_rm64 => |c, i| from_integer::<E, u64>(c, i, sse::cvtsi2sd_64),
        Cvtss2si_r32_xmmm32 => |c, i| to_integer::<E, u32, u32>(c, i, sse::cvtss2si),
        Cvtss2si_r64_xmmm32 => |c, i| to_integer::<E, u32, u64>(c, i, sse::cvtss2si_64),
        Cvtsd2si_r32_xmmm64 => |c, i| to_integer::<E, u64, u32>(c, i, sse::cvtsd2si),
        Cvtsd2si_r64_xmmm64 => |c, i| to_integer::<E, u64, u64>(c, i, sse::cvtsd2si_64),
        Cvttss2si_r32_xmmm32 => |c, i| to_integer::<E, u32, u32>(c, i, sse::cvttss2si),
        Cvttss2si_r64_xmmm32 => |c, i| to_integer::<E, u32, u64>(c, i, sse::cvttss2si_64),
        Cvttsd2si_r32_xmmm64 => |c, i| to_integer::<E, u64, u32>(c, i, sse::cvttsd2si),
        Cvttsd2si_r64_xmmm64 => |c, i| to_integer::<E, u64, u64>(c, i, sse::cvttsd2si_64),
        Cvtpi2ps_xmm_mmm64 => |c, i| from_mmx(c, i, 64, sse::cvtdq2ps),
        Cvtpi2pd_xmm_mmm64 => |c, i| from_mmx(c, i, 128, sse::cvtdq2pd),
        Cvtps2pi_mm_xmmm64 => |c, i| to_mmx(c, i, two_singles, sse::cvtps2dq),
        Cvttps2pi_mm_xmmm64 => |c, i| to_mmx(c, i, two_singles, sse::cvttps2dq),
        Cvtpd2pi_mm_xmmm128 => |c, i| to_mmx(c, i, two_doubles, sse::cvtpd2dq),
        Cvttpd2pi_mm_xmmm128 => |c, i| to_mmx(c, i, two_doubles, sse::cvttpd2dq),
    }
}
