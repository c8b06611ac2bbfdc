//! Integer arithmetic of XMM registers.

use x86_decode::Insn;
use x86_fpu::simd;
use x86_state::bits::Rflags;

use super::table;
use crate::operands::cut;
use crate::{Cpu, Env, Fault, Flags, Handler, Word};

type Done = Result<(), Fault>;

/// dst = `op`(dst, src).
#[inline(always)]
pub(super) fn binary<E: Env>(
    cpu: &mut Cpu<E>,
    insn: &Insn,
    op: impl Fn(u128, u128) -> u128,
) -> Done {
    cpu.check_sse()?;
    let src = cpu.xmm128(insn, 1)?;
    let value = op(cpu.xmm(insn.reg0()), src);
    cpu.set_xmm(insn.reg0(), value);
    Ok(())
}

/// dst = `op`(src), which is as much memory as `T` is.
#[inline(always)]
fn extend<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn, op: impl Fn(u128) -> u128) -> Done {
    cpu.check_sse()?;
    let src = cpu.xmm_or::<T>(insn)?;
    cpu.set_xmm(insn.reg0(), op(src));
    Ok(())
}

/// dst = `op`(dst, immediate).
#[inline(always)]
fn shift<E: Env>(cpu: &mut Cpu<E>, insn: &Insn, op: impl Fn(u128, u128) -> u128) -> Done {
    cpu.check_sse()?;
    let value = op(cpu.xmm(insn.reg0()), u128::from(insn.imm as u8));
    cpu.set_xmm(insn.reg0(), value);
    Ok(())
}

/// Shifts by bytes; 16 and more clear everything.
fn shift_bytes(count: u128) -> u32 {
    8 * count.min(16) as u32
}

/// PTEST: ZF and CF tell whether AND and ANDN are zero.
fn ptest<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Done {
    cpu.check_sse()?;
    let src = cpu.xmm128(insn, 1)?;
    let dst = cpu.xmm(insn.reg0());
    let zero = if src & dst == 0 { Rflags::ZF.bits() } else { 0 };
    let carry = if src & !dst == 0 { Rflags::CF.bits() } else { 0 };
    cpu.flags = Flags::from_bits(zero | carry);
    Ok(())
}

/// The top bit of each lane of `bits` bits, to a general register.
#[inline(always)]
fn mask<E: Env>(cpu: &mut Cpu<E>, insn: &Insn, bits: u32) -> Done {
    cpu.check_sse()?;
    let value = cpu.xmm(insn.reg1());
    let top = |i: u32| (value >> (bits * (i + 1) - 1) & 1) as u64;
    let mask = (0..128 / bits).fold(0, |mask, i| mask | top(i) << i);
    cpu.set_reg(insn.reg0(), mask);
    Ok(())
}

/// CRC32 with the Castagnoli polynomial: a step a bit, bit-reflected.
#[inline(always)]
fn crc32<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Done {
    const REFLECTED: u32 = 0x82f6_3b78;
    let src: T = cpu.read_op(insn, 1)?;
    let mut crc = cpu.reg::<u32>(insn.reg0());
    for byte in &src.to_u64().to_le_bytes()[..T::SIZE] {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 != 0 { REFLECTED } else { 0 };
        }
    }
    cpu.set_reg(insn.reg0(), crc);
    Ok(())
}

/// MASKMOVDQU: stores the bytes whose mask byte's top bit is set.
fn maskmovdqu<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Done {
    cpu.check_sse()?;
    let (data, mask) = (cpu.xmm(insn.reg1()), cpu.xmm(insn.reg0()));
    store_masked(cpu, insn, &data.to_le_bytes(), &mask.to_le_bytes())
}

/// Stores to [(R|E)DI]; all or nothing.
pub(super) fn store_masked<E: Env>(
    cpu: &mut Cpu<E>,
    insn: &Insn,
    data: &[u8],
    mask: &[u8],
) -> Done {
    const RDI: u8 = x86_state::Gpr::Rdi as u8;
    let rdi: u64 = cpu.reg(RDI);
    let at = |i: u64| cut(rdi.wrapping_add(i), insn.addr_size);
    let chosen = || (0..).zip(data).zip(mask).filter(|(_, mask)| **mask & 0x80 != 0);
    for ((i, _), _) in chosen() {
        cpu.check_write(insn.seg, at(i), 1)?;
    }
    for ((i, byte), _) in chosen() {
        cpu.write(insn.seg, at(i), *byte)?;
    }
    Ok(())
}

pub(super) fn select<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    by_vector(insn).or_else(|| by_immediate(insn)).or_else(|| others(insn))
}

fn by_vector<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    macro_rules! list {
        ($($code:ident => $op:ident;)*) => {
            table! { insn; $($code => |c, i| binary(c, i, simd::$op),)* }
        };
    }
    list! {
        Paddb_xmm_xmmm128 => paddb;
        Paddw_xmm_xmmm128 => paddw;
        Paddd_xmm_xmmm128 => paddd;
        Paddq_xmm_xmmm128 => paddq;
        Paddsb_xmm_xmmm128 => paddsb;
        Paddsw_xmm_xmmm128 => paddsw;
        Paddusb_xmm_xmmm128 => paddusb;
        Paddusw_xmm_xmmm128 => paddusw;
        Psubb_xmm_xmmm128 => psubb;
        Psubw_xmm_xmmm128 => psubw;
        Psubd_xmm_xmmm128 => psubd;
        Psubq_xmm_xmmm128 => psubq;
        Psubsb_xmm_xmmm128 => psubsb;
        Psubsw_xmm_xmmm128 => psubsw;
        Psubusb_xmm_xmmm128 => psubusb;
        Psubusw_xmm_xmmm128 => psubusw;
        Pmullw_xmm_xmmm128 => pmullw;
        Pmulhw_xmm_xmmm128 => pmulhw;
        Pmulhuw_xmm_xmmm128 => pmulhuw;
        Pmuludq_xmm_xmmm128 => pmuludq;
        Pmaddwd_xmm_xmmm128 => pmaddwd;
        Pavgb_xmm_xmmm128 => pavgb;
        Pavgw_xmm_xmmm128 => pavgw;
        Psadbw_xmm_xmmm128 => psadbw;
        Pminub_xmm_xmmm128 => pminub;
        Pminsw_xmm_xmmm128 => pminsw;
        Pmaxub_xmm_xmmm128 => pmaxub;
        Pmaxsw_xmm_xmmm128 => pmaxsw;
        Pcmpeqb_xmm_xmmm128 => pcmpeqb;
        Pcmpeqw_xmm_xmmm128 => pcmpeqw;
        Pcmpeqd_xmm_xmmm128 => pcmpeqd;
        Pcmpgtb_xmm_xmmm128 => pcmpgtb;
        Pcmpgtw_xmm_xmmm128 => pcmpgtw;
        Pcmpgtd_xmm_xmmm128 => pcmpgtd;
        Psllw_xmm_xmmm128 => psllw;
        Pslld_xmm_xmmm128 => pslld;
        Psllq_xmm_xmmm128 => psllq;
        Psrlw_xmm_xmmm128 => psrlw;
        Psrld_xmm_xmmm128 => psrld;
        Psrlq_xmm_xmmm128 => psrlq;
        Psraw_xmm_xmmm128 => psraw;
        Psrad_xmm_xmmm128 => psrad;
        Pmaddubsw_xmm_xmmm128 => pmaddubsw;
        Pmulhrsw_xmm_xmmm128 => pmulhrsw;
        Psignb_xmm_xmmm128 => psignb;
        Psignw_xmm_xmmm128 => psignw;
        Psignd_xmm_xmmm128 => psignd;
        Packsswb_xmm_xmmm128 => packsswb;
        Packssdw_xmm_xmmm128 => packssdw;
        Packuswb_xmm_xmmm128 => packuswb;
        Phaddw_xmm_xmmm128 => phaddw;
        Phaddd_xmm_xmmm128 => phaddd;
        Phaddsw_xmm_xmmm128 => phaddsw;
        Phsubw_xmm_xmmm128 => phsubw;
        Phsubd_xmm_xmmm128 => phsubd;
        Phsubsw_xmm_xmmm128 => phsubsw;
        Punpcklbw_xmm_xmmm128 => punpcklbw;
        Punpcklwd_xmm_xmmm128 => punpcklwd;
        Punpckldq_xmm_xmmm128 => punpckldq;
        Punpcklqdq_xmm_xmmm128 => punpcklqdq;
        Punpckhbw_xmm_xmmm128 => punpckhbw;
        Punpckhwd_xmm_xmmm128 => punpckhwd;
        Punpckhdq_xmm_xmmm128 => punpckhdq;
        Punpckhqdq_xmm_xmmm128 => punpckhqdq;
        Pshufb_xmm_xmmm128 => pshufb;
        Pmuldq_xmm_xmmm128 => pmuldq;
        Pmulld_xmm_xmmm128 => pmulld;
        Pminsb_xmm_xmmm128 => pminsb;
        Pminsd_xmm_xmmm128 => pminsd;
        Pminuw_xmm_xmmm128 => pminuw;
        Pminud_xmm_xmmm128 => pminud;
        Pmaxsb_xmm_xmmm128 => pmaxsb;
        Pmaxsd_xmm_xmmm128 => pmaxsd;
        Pmaxuw_xmm_xmmm128 => pmaxuw;
        Pmaxud_xmm_xmmm128 => pmaxud;
        Packusdw_xmm_xmmm128 => packusdw;
        Pcmpeqq_xmm_xmmm128 => pcmpeqq;
        Pcmpgtq_xmm_xmmm128 => pcmpgtq;
    }
}

fn by_immediate<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    macro_rules! list {
        ($($code:ident => $op:ident;)*) => {
            table! { insn; $($code => |c, i| shift(c, i, simd::$op),)*
                Pslldq_xmm_imm8 =>
                    |c, i| shift(c, i, |v, n| v.checked_shl(shift_bytes(n)).unwrap_or(0)),
                Psrldq_xmm_imm8 =>
                    |c, i| shift(c, i, |v, n| v.checked_shr(shift_bytes(n)).unwrap_or(0)),
            }
        };
    }
    list! {
        Psllw_xmm_imm8 => psllw;
        Pslld_xmm_imm8 => pslld;
        Psllq_xmm_imm8 => psllq;
        Psrlw_xmm_imm8 => psrlw;
        Psrld_xmm_imm8 => psrld;
        Psrlq_xmm_imm8 => psrlq;
        Psraw_xmm_imm8 => psraw;
        Psrad_xmm_imm8 => psrad;
    }
}

fn others<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    table! { insn;
        Pand_xmm_xmmm128 | Andps_xmm_xmmm128 | Andpd_xmm_xmmm128 =>
            |c, i| binary(c, i, |a, b| a & b),
        Pandn_xmm_xmmm128 | Andnps_xmm_xmmm128 | Andnpd_xmm_xmmm128 =>
            |c, i| binary(c, i, |a, b| !a & b),
        Por_xmm_xmmm128 | Orps_xmm_xmmm128 | Orpd_xmm_xmmm128 =>
            |c, i| binary(c, i, |a, b| a | b),
        Pxor_xmm_xmmm128 | Xorps_xmm_xmmm128 | Xorpd_xmm_xmmm128 =>
            |c, i| binary(c, i, |a, b| a ^ b),
        Pabsb_xmm_xmmm128 => |c, i| binary(c, i, |_, b| simd::pabsb(b)),
        Pabsw_xmm_xmmm128 => |c, i| binary(c, i, |_, b| simd::pabsw(b)),
        Pabsd_xmm_xmmm128 => |c, i| binary(c, i, |_, b| simd::pabsd(b)),
        Phminposuw_xmm_xmmm128 => |c, i| binary(c, i, |_, b| simd::phminposuw(b)),
        Pmovsxbw_xmm_xmmm64 => |c, i| extend::<E, u64>(c, i, simd::pmovsxbw),
        Pmovsxbd_xmm_xmmm32 => |c, i| extend::<E, u32>(c, i, simd::pmovsxbd),
        Pmovsxbq_xmm_xmmm16 => |c, i| extend::<E, u16>(c, i, simd::pmovsxbq),
        Pmovsxwd_xmm_xmmm64 => |c, i| extend::<E, u64>(c, i, simd::pmovsxwd),
        Pmovsxwq_xmm_xmmm32 => |c, i| extend::<E, u32>(c, i, simd::pmovsxwq),
        Pmovsxdq_xmm_xmmm64 => |c, i| extend::<E, u64>(c, i, simd::pmovsxdq),
        Pmovzxbw_xmm_xmmm64 => |c, i| extend::<E, u64>(c, i, simd::pmovzxbw),
        Pmovzxbd_xmm_xmmm32 => |c, i| extend::<E, u32>(c, i, simd::pmovzxbd),
        Pmovzxbq_xmm_xmmm16 => |c, i| extend::<E, u16>(c, i, simd::pmovzxbq),
        Pmovzxwd_xmm_xmmm64 => |c, i| extend::<E, u64>(c, i, simd::pmovzxwd),
        Pmovzxwq_xmm_xmmm32 => |c, i| extend::<E, u32>(c, i, simd::pmovzxwq),
        Pmovzxdq_xmm_xmmm64 => |c, i| extend::<E, u64>(c, i, simd::pmovzxdq),
        Ptest_xmm_xmmm128 => ptest,
        Pmovmskb_r32_xmm | Pmovmskb_r64_xmm => |c, i| mask(c, i, 8),
        Movmskps_r32_xmm | Movmskps_r64_xmm => |c, i| mask(c, i, 32),
        Movmskpd_r32_xmm | Movmskpd_r64_xmm => |c, i| mask(c, i, 64),
        Crc32_r32_rm8 | Crc32_r64_rm8 => crc32::<E, u8>,
        Crc32_r32_rm16 => crc32::<E, u16>,
        Crc32_r32_rm32 => crc32::<E, u32>,
        Crc32_r64_rm64 => crc32::<E, u64>,
        Maskmovdqu_rDI_xmm_xmm => maskmovdqu,
    }
}
