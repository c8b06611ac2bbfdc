//! Moves between registers and memory that change nothing on the way.

use x86_decode::{Insn, OperandKind};

use super::operand::merge;
use super::table;
use crate::{Cpu, Env, Fault, Handler, Word};

type Done = Result<(), Fault>;

const LOW_64: u128 = u64::MAX as u128;

/// Loads 16 aligned bytes, or a register.
fn load_aligned<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Done {
    cpu.check_sse()?;
    let value = cpu.xmm128(insn, 1)?;
    cpu.set_xmm(insn.reg0(), value);
    Ok(())
}

fn load_unaligned<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Done {
    cpu.check_sse()?;
    let value = match insn.kind(1) {
        OperandKind::Mem => cpu.read_u128(insn.seg, cpu.ea(insn))?,
        _ => cpu.xmm(insn.reg1()),
    };
    cpu.set_xmm(insn.reg0(), value);
    Ok(())
}

fn store_aligned<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Done {
    cpu.check_sse()?;
    let value = cpu.xmm(insn.reg1());
    if insn.kind(0) == OperandKind::Mem {
        return cpu.write_u128_aligned(insn.seg, cpu.ea(insn), value);
    }
    cpu.set_xmm(insn.reg0(), value);
    Ok(())
}

fn store_unaligned<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Done {
    cpu.check_sse()?;
    let value = cpu.xmm(insn.reg1());
    if insn.kind(0) == OperandKind::Mem {
        return cpu.write_u128(insn.seg, cpu.ea(insn), value);
    }
    cpu.set_xmm(insn.reg0(), value);
    Ok(())
}

/// MOVSS and MOVSD to a register: memory clears what is above, a register leaves it.
#[inline(always)]
fn load_scalar<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Done {
    cpu.check_sse()?;
    let value = cpu.xmm_or::<T>(insn)?;
    let value = match insn.kind(1) {
        OperandKind::Mem => value,
        _ => merge(cpu.xmm(insn.reg0()), value, 8 * T::SIZE as u32),
    };
    cpu.set_xmm(insn.reg0(), value);
    Ok(())
}

/// MOVSS and MOVSD from a register.
#[inline(always)]
fn store_scalar<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Done {
    cpu.check_sse()?;
    let value = cpu.xmm(insn.reg1());
    if insn.kind(0) == OperandKind::Mem {
        return cpu.write(insn.seg, cpu.ea(insn), T::from_u64(value as u64));
    }
    let value = merge(cpu.xmm(insn.reg0()), value, 8 * T::SIZE as u32);
    cpu.set_xmm(insn.reg0(), value);
    Ok(())
}

/// Changes the destination by the second operand: eight bytes of memory, or a register.
#[inline(always)]
fn with_64<E: Env>(cpu: &mut Cpu<E>, insn: &Insn, change: impl Fn(u128, u128) -> u128) -> Done {
    cpu.check_sse()?;
    let value = cpu.xmm_or::<u64>(insn)?;
    let value = change(cpu.xmm(insn.reg0()), value);
    cpu.set_xmm(insn.reg0(), value);
    Ok(())
}

/// Stores eight bytes from this bit on.
#[inline(always)]
fn store_64<E: Env>(cpu: &mut Cpu<E>, insn: &Insn, from: u32) -> Done {
    cpu.check_sse()?;
    let value = (cpu.xmm(insn.reg1()) >> from) as u64;
    cpu.write(insn.seg, cpu.ea(insn), value)
}

/// MOVQ xmm/m64, xmm: a register's upper half is cleared.
fn movq_to_xmmm<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Done {
    if insn.kind(0) == OperandKind::Mem {
        return store_64(cpu, insn, 0);
    }
    cpu.check_sse()?;
    cpu.set_xmm(insn.reg0(), cpu.xmm(insn.reg1()) & LOW_64);
    Ok(())
}

/// MOVD and MOVQ from a general register or memory.
#[inline(always)]
fn from_gpr<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Done {
    cpu.check_sse()?;
    let value: T = cpu.read_op(insn, 1)?;
    cpu.set_xmm(insn.reg0(), u128::from(value.to_u64()));
    Ok(())
}

/// MOVD and MOVQ to a general register or memory.
#[inline(always)]
fn to_gpr<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Done {
    cpu.check_sse()?;
    let value = T::from_u64(cpu.xmm(insn.reg1()) as u64);
    cpu.write_op(insn, 0, value)
}

/// MOVNTI: an integer store; SSE need not be on.
#[inline(always)]
fn movnti<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Done {
    let value: T = cpu.reg(insn.reg1());
    cpu.write(insn.seg, cpu.ea(insn), value)
}

fn movq2dq<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Done {
    cpu.mmx_and_sse_available()?;
    cpu.mmx_entered();
    cpu.set_xmm(insn.reg0(), u128::from(cpu.mm(insn.reg1())));
    Ok(())
}

fn movdq2q<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Done {
    cpu.mmx_and_sse_available()?;
    cpu.mmx_entered();
    cpu.set_mm(insn.reg0(), cpu.xmm(insn.reg1()) as u64);
    Ok(())
}

pub(super) fn select<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    whole(insn).or_else(|| part(insn))
}

fn whole<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    table! { insn;
        Movaps_xmm_xmmm128 | Movapd_xmm_xmmm128 | Movdqa_xmm_xmmm128 | Movntdqa_xmm_m128 =>
            load_aligned,
        Movups_xmm_xmmm128 | Movupd_xmm_xmmm128 | Movdqu_xmm_xmmm128 | Lddqu_xmm_m128 =>
            load_unaligned,
        Movaps_xmmm128_xmm | Movapd_xmmm128_xmm | Movdqa_xmmm128_xmm | Movntps_m128_xmm
            | Movntpd_m128_xmm | Movntdq_m128_xmm => store_aligned,
        Movups_xmmm128_xmm | Movupd_xmmm128_xmm | Movdqu_xmmm128_xmm => store_unaligned,
    }
}

fn part<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    table! { insn;
        Movss_xmm_xmmm32 => load_scalar::<E, u32>,
        Movsd_xmm_xmmm64 => load_scalar::<E, u64>,
        Movss_xmmm32_xmm => store_scalar::<E, u32>,
        Movsd_xmmm64_xmm => store_scalar::<E, u64>,
        Movq_xmm_xmmm64 => |c, i| with_64(c, i, |_, value| value & LOW_64),
        Movddup_xmm_xmmm64 => |c, i| with_64(c, i, |_, v| v & LOW_64 | v << 64),
        Movlps_xmm_m64 | Movlpd_xmm_m64 => |c, i| with_64(c, i, |old, v| merge(old, v, 64)),
        Movhlps_xmm_xmm => |c, i| with_64(c, i, |old, v| merge(old, v >> 64, 64)),
        Movhps_xmm_m64 | Movhpd_xmm_m64 | Movlhps_xmm_xmm =>
            |c, i| with_64(c, i, |old, v| old & LOW_64 | v << 64),
        Movlps_m64_xmm | Movlpd_m64_xmm => |c, i| store_64(c, i, 0),
        Movhps_m64_xmm | Movhpd_m64_xmm => |c, i| store_64(c, i, 64),
        Movq_xmmm64_xmm => movq_to_xmmm,
        Movd_xmm_rm32 => from_gpr::<E, u32>,
        Movq_xmm_rm64 => from_gpr::<E, u64>,
        Movd_rm32_xmm => to_gpr::<E, u32>,
        Movq_rm64_xmm => to_gpr::<E, u64>,
        Movnti_m32_r32 => movnti::<E, u32>,
        Movnti_m64_r64 => movnti::<E, u64>,
        Movq2dq_xmm_mm => movq2dq,
        Movdq2q_mm_xmm => movdq2q,
    }
}
