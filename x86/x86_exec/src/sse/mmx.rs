//! MMX instructions.
//!
//! Most do to 64 bits what their like does to the low half of an XMM register, so that is how
//! they are done; where the halves mix, operands are arranged first.

use x86_decode::{Insn, OperandKind};
use x86_fpu::simd;

use super::integer::store_masked;
use super::table;
use crate::{Cpu, Env, Fault, Handler, Word};

type Done = Result<(), Fault>;

/// dst = low half of `op`(dst, src).
#[inline(always)]
fn binary<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn, op: impl Fn(u128, u128) -> u128) -> Done {
    cpu.mmx_available()?;
    let src = cpu.mm_or::<T>(insn)?;
    cpu.mmx_entered();
    let value = op(u128::from(cpu.mm(insn.reg0())), u128::from(src));
    cpu.set_mm(insn.reg0(), value as u64);
    Ok(())
}

/// Instructions that take lanes from dst first and then from src, of which an XMM register holds
/// both.
#[inline(always)]
fn concatenated<E: Env>(cpu: &mut Cpu<E>, insn: &Insn, op: impl Fn(u128, u128) -> u128) -> Done {
    binary::<E, u64>(cpu, insn, |dst, src| {
        let both = dst | src << 64;
        op(both, both)
    })
}

/// dst = `op`(dst, immediate).
#[inline(always)]
fn shift<E: Env>(cpu: &mut Cpu<E>, insn: &Insn, op: impl Fn(u128, u128) -> u128) -> Done {
    cpu.mmx_available()?;
    cpu.mmx_entered();
    let value = op(u128::from(cpu.mm(insn.reg0())), u128::from(insn.imm as u8));
    cpu.set_mm(insn.reg0(), value as u64);
    Ok(())
}

/// MOVD and MOVQ from a general register or memory.
#[inline(always)]
fn from_gpr<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Done {
    cpu.mmx_available()?;
    let value: T = cpu.read_op(insn, 1)?;
    cpu.mmx_entered();
    cpu.set_mm(insn.reg0(), value.to_u64());
    Ok(())
}

/// MOVD and MOVQ to a general register or memory.
#[inline(always)]
fn to_gpr<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Done {
    cpu.mmx_available()?;
    let value = T::from_u64(cpu.mm(insn.reg1()));
    cpu.write_op(insn, 0, value)?;
    cpu.mmx_entered();
    Ok(())
}

/// MOVQ mm/m64, mm and MOVNTQ.
fn store<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Done {
    cpu.mmx_available()?;
    let value = cpu.mm(insn.reg1());
    if insn.kind(0) == OperandKind::Mem {
        cpu.write(insn.seg, cpu.ea(insn), value)?;
        cpu.mmx_entered();
    } else {
        cpu.mmx_entered();
        cpu.set_mm(insn.reg0(), value);
    }
    Ok(())
}

fn pmovmskb<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Done {
    cpu.mmx_available()?;
    cpu.mmx_entered();
    let value = cpu.mm(insn.reg1());
    let mask = (0..8).fold(0, |mask, i| mask | (value >> (8 * i + 7) & 1) << i);
    cpu.set_reg::<u64>(insn.reg0(), mask);
    Ok(())
}

fn pshufw<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Done {
    binary::<E, u64>(cpu, insn, |_, src| {
        (0..4).fold(0, |value, i| {
            let from = insn.imm >> (2 * i) & 3;
            value | (src >> (16 * from) & 0xffff) << (16 * i)
        })
    })
}

fn pinsrw<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Done {
    cpu.mmx_available()?;
    let word = u64::from(cpu.read_op::<u16>(insn, 1)?);
    cpu.mmx_entered();
    let at = 16 * (insn.imm & 3);
    let value = cpu.mm(insn.reg0()) & !(0xffff << at) | word << at;
    cpu.set_mm(insn.reg0(), value);
    Ok(())
}

fn pextrw<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Done {
    cpu.mmx_available()?;
    cpu.mmx_entered();
    let word = cpu.mm(insn.reg1()) >> (16 * (insn.imm & 3)) & 0xffff;
    cpu.set_reg::<u64>(insn.reg0(), word);
    Ok(())
}

fn maskmovq<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Done {
    cpu.mmx_available()?;
    let (data, mask) = (cpu.mm(insn.reg1()), cpu.mm(insn.reg0()));
    store_masked(cpu, insn, &data.to_le_bytes(), &mask.to_le_bytes())?;
    cpu.mmx_entered();
    Ok(())
}

/// EMMS: the registers are the x87's again, all empty.
fn emms<E: Env>(cpu: &mut Cpu<E>, _: &Insn) -> Done {
    cpu.mmx_available()?;
    cpu.fpu.top = 0;
    cpu.fpu.in_use = 0;
    Ok(())
}

pub(super) fn select<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    by_lanes(insn)
        .or_else(|| across_lanes(insn))
        .or_else(|| by_immediate(insn))
        .or_else(|| others(insn))
}

fn by_lanes<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    macro_rules! list {
        ($($code:ident => $op:ident;)*) => {
            table! { insn; $($code => |c, i| binary::<E, u64>(c, i, simd::$op),)* }
        };
    }
    list! {
        Paddb_mm_mmm64 => paddb;
        Paddw_mm_mmm64 => paddw;
        Paddd_mm_mmm64 => paddd;
        Paddq_mm_mmm64 => paddq;
        Paddsb_mm_mmm64 => paddsb;
        Paddsw_mm_mmm64 => paddsw;
        Paddusb_mm_mmm64 => paddusb;
        Paddusw_mm_mmm64 => paddusw;
        Psubb_mm_mmm64 => psubb;
        Psubw_mm_mmm64 => psubw;
        Psubd_mm_mmm64 => psubd;
        Psubq_mm_mmm64 => psubq;
        Psubsb_mm_mmm64 => psubsb;
        Psubsw_mm_mmm64 => psubsw;
        Psubusb_mm_mmm64 => psubusb;
        Psubusw_mm_mmm64 => psubusw;
        Pmullw_mm_mmm64 => pmullw;
        Pmulhw_mm_mmm64 => pmulhw;
        Pmulhuw_mm_mmm64 => pmulhuw;
        Pmuludq_mm_mmm64 => pmuludq;
        Pmaddwd_mm_mmm64 => pmaddwd;
        Pavgb_mm_mmm64 => pavgb;
        Pavgw_mm_mmm64 => pavgw;
        Psadbw_mm_mmm64 => psadbw;
        Pminub_mm_mmm64 => pminub;
        Pminsw_mm_mmm64 => pminsw;
        Pmaxub_mm_mmm64 => pmaxub;
        Pmaxsw_mm_mmm64 => pmaxsw;
        Pcmpeqb_mm_mmm64 => pcmpeqb;
        Pcmpeqw_mm_mmm64 => pcmpeqw;
        Pcmpeqd_mm_mmm64 => pcmpeqd;
        Pcmpgtb_mm_mmm64 => pcmpgtb;
        Pcmpgtw_mm_mmm64 => pcmpgtw;
        Pcmpgtd_mm_mmm64 => pcmpgtd;
        Psllw_mm_mmm64 => psllw;
        Pslld_mm_mmm64 => pslld;
        Psllq_mm_mmm64 => psllq;
        Psrlw_mm_mmm64 => psrlw;
        Psrld_mm_mmm64 => psrld;
        Psrlq_mm_mmm64 => psrlq;
        Psraw_mm_mmm64 => psraw;
        Psrad_mm_mmm64 => psrad;
        Pmaddubsw_mm_mmm64 => pmaddubsw;
        Pmulhrsw_mm_mmm64 => pmulhrsw;
        Psignb_mm_mmm64 => psignb;
        Psignw_mm_mmm64 => psignw;
        Psignd_mm_mmm64 => psignd;
    }
}

fn across_lanes<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    macro_rules! list {
        ($($code:ident => $op:ident;)*) => {
            table! { insn; $($code => |c, i| concatenated(c, i, simd::$op),)* }
        };
    }
    list! {
        Packsswb_mm_mmm64 => packsswb;
        Packssdw_mm_mmm64 => packssdw;
        Packuswb_mm_mmm64 => packuswb;
        Phaddw_mm_mmm64 => phaddw;
        Phaddd_mm_mmm64 => phaddd;
        Phaddsw_mm_mmm64 => phaddsw;
        Phsubw_mm_mmm64 => phsubw;
        Phsubd_mm_mmm64 => phsubd;
        Phsubsw_mm_mmm64 => phsubsw;
    }
}

fn by_immediate<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    macro_rules! list {
        ($($code:ident => $op:ident;)*) => {
            table! { insn; $($code => |c, i| shift(c, i, simd::$op),)* }
        };
    }
    list! {
        Psllw_mm_imm8 => psllw;
        Pslld_mm_imm8 => pslld;
        Psllq_mm_imm8 => psllq;
        Psrlw_mm_imm8 => psrlw;
        Psrld_mm_imm8 => psrld;
        Psrlq_mm_imm8 => psrlq;
        Psraw_mm_imm8 => psraw;
        Psrad_mm_imm8 => psrad;
    }
}

fn others<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    // The upper halves of both, where PUNPCKL takes them from.
    macro_rules! high {
        ($op:ident) => {
            |c, i| binary::<E, u64>(c, i, |a, b| simd::$op(a >> 32, b >> 32))
        };
    }
    table! { insn;
        Punpcklbw_mm_mmm32 => |c, i| binary::<E, u32>(c, i, simd::punpcklbw),
        Punpcklwd_mm_mmm32 => |c, i| binary::<E, u32>(c, i, simd::punpcklwd),
        Punpckldq_mm_mmm32 => |c, i| binary::<E, u32>(c, i, simd::punpckldq),
        Punpckhbw_mm_mmm64 => high!(punpcklbw),
        Punpckhwd_mm_mmm64 => high!(punpcklwd),
        Punpckhdq_mm_mmm64 => high!(punpckldq),
        Pand_mm_mmm64 => |c, i| binary::<E, u64>(c, i, |a, b| a & b),
        Pandn_mm_mmm64 => |c, i| binary::<E, u64>(c, i, |a, b| !a & b),
        Por_mm_mmm64 => |c, i| binary::<E, u64>(c, i, |a, b| a | b),
        Pxor_mm_mmm64 => |c, i| binary::<E, u64>(c, i, |a, b| a ^ b),
        Pabsb_mm_mmm64 => |c, i| binary::<E, u64>(c, i, |_, b| simd::pabsb(b)),
        Pabsw_mm_mmm64 => |c, i| binary::<E, u64>(c, i, |_, b| simd::pabsw(b)),
        Pabsd_mm_mmm64 => |c, i| binary::<E, u64>(c, i, |_, b| simd::pabsd(b)),
        // An index has three bits here, not four.
        Pshufb_mm_mmm64 => |c, i| {
            binary::<E, u64>(c, i, |a, b| simd::pshufb(a, b & 0x8787_8787_8787_8787))
        },
        Palignr_mm_mmm64_imm8 => |c, i| {
            binary::<E, u64>(c, i, |a, b| {
                (a << 64 | b).checked_shr(8 * (i.imm & 0xff) as u32).unwrap_or(0)
            })
        },
        Pshufw_mm_mmm64_imm8 => pshufw,
        Movq_mm_mmm64 => |c, i| binary::<E, u64>(c, i, |_, b| b),
        Movd_mm_rm32 => from_gpr::<E, u32>,
        Movq_mm_rm64 => from_gpr::<E, u64>,
        Movd_rm32_mm => to_gpr::<E, u32>,
        Movq_rm64_mm => to_gpr::<E, u64>,
        Movq_mmm64_mm | Movntq_m64_mm => store,
        Pmovmskb_r32_mm | Pmovmskb_r64_mm => pmovmskb,
        Pinsrw_mm_r32m16_imm8 | Pinsrw_mm_r64m16_imm8 => pinsrw,
        Pextrw_r32_mm_imm8 | Pextrw_r64_mm_imm8 => pextrw,
        Maskmovq_rDI_mm_mm => maskmovq,
        Emms => emms,
    }
}
