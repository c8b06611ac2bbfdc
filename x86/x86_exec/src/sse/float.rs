//! Float arithmetic and compares.

use x86_decode::Insn;
use x86_fpu::sse::{self, Outcome};

use super::table;
use crate::{Cpu, Env, Fault, Flags, Handler, Word};

type Done = Result<(), Fault>;

/// dst = `op`(dst, src) of whole registers.
#[inline(always)]
fn packed<E: Env>(cpu: &mut Cpu<E>, insn: &Insn, op: impl Fn(u32, u128, u128) -> Outcome) -> Done {
    cpu.check_sse()?;
    let src = cpu.xmm128(insn, 1)?;
    let outcome = op(cpu.fpu.mxcsr, cpu.xmm(insn.reg0()), src);
    let value = cpu.settle(outcome)?;
    cpu.set_xmm(insn.reg0(), value);
    Ok(())
}

/// dst = `op`(dst, src) where memory is of type `T`.
#[inline(always)]
pub(super) fn scalar<E: Env, T: Word>(
    cpu: &mut Cpu<E>,
    insn: &Insn,
    op: impl Fn(u32, u128, u128) -> Outcome,
) -> Done {
    cpu.check_sse()?;
    let src = cpu.xmm_or::<T>(insn)?;
    let outcome = op(cpu.fpu.mxcsr, cpu.xmm(insn.reg0()), src);
    let value = cpu.settle(outcome)?;
    cpu.set_xmm(insn.reg0(), value);
    Ok(())
}

/// COMISS and its like.
#[inline(always)]
fn compare<E: Env, T: Word>(
    cpu: &mut Cpu<E>,
    insn: &Insn,
    op: impl Fn(u32, u128, u128) -> Outcome<u64>,
) -> Done {
    cpu.check_sse()?;
    let src = cpu.xmm_or::<T>(insn)?;
    let outcome = op(cpu.fpu.mxcsr, cpu.xmm(insn.reg0()), src);
    cpu.flags = Flags::from_bits(cpu.settle(outcome)?);
    Ok(())
}

/// DPPS and DPPD: lanes of `bits` bits that the immediate's upper half leaves out count as zero,
/// and those its lower half leaves out become zero.
#[inline(always)]
fn dot_product<E: Env>(
    cpu: &mut Cpu<E>,
    insn: &Insn,
    bits: u32,
    op: impl Fn(u32, u128, u128) -> Outcome,
) -> Done {
    cpu.check_sse()?;
    let src = cpu.xmm128(insn, 1)?;
    let dst = cpu.xmm(insn.reg0());
    let lanes = |chosen: u64| {
        let lane = (1_u128 << bits) - 1;
        (0..128 / bits).filter(|i| chosen >> i & 1 != 0).fold(0, |m, i| m | lane << (bits * i))
    };
    let (from, to) = (lanes(insn.imm >> 4), lanes(insn.imm));
    let value = cpu.settle(op(cpu.fpu.mxcsr, dst & from, src & from))?;
    cpu.set_xmm(insn.reg0(), value & to);
    Ok(())
}

/// Four forms of an operation.
macro_rules! four_forms {
    ($insn:ident; $($ps:ident $pd:ident $ss:ident $sd:ident
       => $op_ps:ident $op_pd:ident $op_ss:ident $op_sd:ident;)*) => {
        table! { $insn;
            $($ps => |c, i| packed(c, i, sse::$op_ps),
            $pd => |c, i| packed(c, i, sse::$op_pd),
            $ss => |c, i| scalar::<E, u32>(c, i, sse::$op_ss),
            $sd => |c, i| scalar::<E, u64>(c, i, sse::$op_sd),)*
        }
    };
}

pub(super) fn select<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    arithmetic(insn).or_else(|| with_immediate(insn)).or_else(|| others(insn))
}

fn arithmetic<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    four_forms! { insn;
        Addps_xmm_xmmm128 Addpd_xmm_xmmm128 Addss_xmm_xmmm32 Addsd_xmm_xmmm64
            => addps addpd addss addsd;
        Subps_xmm_xmmm128 Subpd_xmm_xmmm128 Subss_xmm_xmmm32 Subsd_xmm_xmmm64
            => subps subpd subss subsd;
        Mulps_xmm_xmmm128 Mulpd_xmm_xmmm128 Mulss_xmm_xmmm32 Mulsd_xmm_xmmm64
            => mulps mulpd mulss mulsd;
        Divps_xmm_xmmm128 Divpd_xmm_xmmm128 Divss_xmm_xmmm32 Divsd_xmm_xmmm64
            => divps divpd divss divsd;
        Minps_xmm_xmmm128 Minpd_xmm_xmmm128 Minss_xmm_xmmm32 Minsd_xmm_xmmm64
            => minps minpd minss minsd;
        Maxps_xmm_xmmm128 Maxpd_xmm_xmmm128 Maxss_xmm_xmmm32 Maxsd_xmm_xmmm64
            => maxps maxpd maxss maxsd;
        Sqrtps_xmm_xmmm128 Sqrtpd_xmm_xmmm128 Sqrtss_xmm_xmmm32 Sqrtsd_xmm_xmmm64
            => sqrtps sqrtpd sqrtss sqrtsd;
    }
}

fn with_immediate<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    macro_rules! immediate {
        ($form:expr, $op:ident) => {
            |c, i| $form(c, i, |csr, a, b| sse::$op(csr, a, b, i.imm as u8))
        };
    }
    table! { insn;
        Cmpps_xmm_xmmm128_imm8 => immediate!(packed, cmpps),
        Cmppd_xmm_xmmm128_imm8 => immediate!(packed, cmppd),
        Cmpss_xmm_xmmm32_imm8 => immediate!(scalar::<E, u32>, cmpss),
        Cmpsd_xmm_xmmm64_imm8 => immediate!(scalar::<E, u64>, cmpsd),
        Roundps_xmm_xmmm128_imm8 => immediate!(packed, roundps),
        Roundpd_xmm_xmmm128_imm8 => immediate!(packed, roundpd),
        Roundss_xmm_xmmm32_imm8 => immediate!(scalar::<E, u32>, roundss),
        Roundsd_xmm_xmmm64_imm8 => immediate!(scalar::<E, u64>, roundsd),
        Dpps_xmm_xmmm128_imm8 => |c, i| dot_product(c, i, 32, sse::dpps),
        Dppd_xmm_xmmm128_imm8 => |c, i| dot_product(c, i, 64, sse::dppd),
    }
}

fn others<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    table! { insn;
        Addsubps_xmm_xmmm128 => |c, i| packed(c, i, sse::addsubps),
        Addsubpd_xmm_xmmm128 => |c, i| packed(c, i, sse::addsubpd),
        Haddps_xmm_xmmm128 => |c, i| packed(c, i, sse::haddps),
        Haddpd_xmm_xmmm128 => |c, i| packed(c, i, sse::haddpd),
        Hsubps_xmm_xmmm128 => |c, i| packed(c, i, sse::hsubps),
        Hsubpd_xmm_xmmm128 => |c, i| packed(c, i, sse::hsubpd),
        Rcpps_xmm_xmmm128 => |c, i| packed(c, i, sse::rcpps),
        Rcpss_xmm_xmmm32 => |c, i| scalar::<E, u32>(c, i, sse::rcpss),
        Rsqrtps_xmm_xmmm128 => |c, i| packed(c, i, sse::rsqrtps),
        Rsqrtss_xmm_xmmm32 => |c, i| scalar::<E, u32>(c, i, sse::rsqrtss),
        Comiss_xmm_xmmm32 => |c, i| compare::<E, u32>(c, i, sse::comiss),
        Comisd_xmm_xmmm64 => |c, i| compare::<E, u64>(c, i, sse::comisd),
        Ucomiss_xmm_xmmm32 => |c, i| compare::<E, u32>(c, i, sse::ucomiss),
        Ucomisd_xmm_xmmm64 => |c, i| compare::<E, u64>(c, i, sse::ucomisd),
        Cvtdq2ps_xmm_xmmm128 => |c, i| packed(c, i, sse::cvtdq2ps),
        Cvtps2dq_xmm_xmmm128 => |c, i| packed(c, i, sse::cvtps2dq),
        Cvttps2dq_xmm_xmmm128 => |c, i| packed(c, i, sse::cvttps2dq),
        Cvtpd2dq_xmm_xmmm128 => |c, i| packed(c, i, sse::cvtpd2dq),
        Cvttpd2dq_xmm_xmmm128 => |c, i| packed(c, i, sse::cvttpd2dq),
        Cvtpd2ps_xmm_xmmm128 => |c, i| packed(c, i, sse::cvtpd2ps),
        Cvtps2pd_xmm_xmmm64 => |c, i| scalar::<E, u64>(c, i, sse::cvtps2pd),
        Cvtdq2pd_xmm_xmmm64 => |c, i| scalar::<E, u64>(c, i, sse::cvtdq2pd),
        Cvtss2sd_xmm_xmmm32 => |c, i| scalar::<E, u32>(c, i, sse::cvtss2sd),
        Cvtsd2ss_xmm_xmmm64 => |c, i| scalar::<E, u64>(c, i, sse::cvtsd2ss),
    }
}
