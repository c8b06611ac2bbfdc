//! Shuffles, blends and what else an immediate arranges.

use x86_decode::Insn;
use x86_fpu::simd;

use super::integer::binary;
use super::table;
use crate::{Cpu, Env, Fault, Handler};

type Done = Result<(), Fault>;

/// The lanes of a vector.
fn words(value: u128) -> [u16; 8] {
    std::array::from_fn(|i| (value >> (16 * i)) as u16)
}

fn from_words(words: [u16; 8]) -> u128 {
    words.iter().rev().fold(0, |value, word| value << 16 | u128::from(*word))
}

fn dwords(value: u128) -> [u32; 4] {
    std::array::from_fn(|i| (value >> (32 * i)) as u32)
}

fn from_dwords(dwords: [u32; 4]) -> u128 {
    dwords.iter().rev().fold(0, |value, dword| value << 32 | u128::from(*dword))
}

/// The `i`th two bits of an immediate.
const fn pick(imm: u8, i: usize) -> usize {
    (imm >> (2 * i) & 3) as usize
}

fn pshufd(src: u128, imm: u8) -> u128 {
    let src = dwords(src);
    from_dwords(std::array::from_fn(|i| src[pick(imm, i)]))
}

/// PSHUFLW (`from` = 0) and PSHUFHW (`from` = 4).
fn pshufw(src: u128, imm: u8, from: usize) -> u128 {
    let src = words(src);
    let mut value = src;
    for i in 0..4 {
        value[from + i] = src[from + pick(imm, i)];
    }
    from_words(value)
}

fn shufps(dst: u128, src: u128, imm: u8) -> u128 {
    let (dst, src) = (dwords(dst), dwords(src));
    from_dwords([dst[pick(imm, 0)], dst[pick(imm, 1)], src[pick(imm, 2)], src[pick(imm, 3)]])
}

fn shufpd(dst: u128, src: u128, imm: u8) -> u128 {
    let half =
        |value: u128, bit: u8| value >> (64 * u32::from(imm >> bit & 1)) & u128::from(u64::MAX);
    half(dst, 0) | half(src, 1) << 64
}

/// Lanes of `bits` bits whose immediate bit is set come from `src`.
fn blend(dst: u128, src: u128, imm: u8, bits: u32) -> u128 {
    let lane = (1_u128 << bits) - 1;
    let mask = (0..(128 / bits).min(8))
        .filter(|i| imm >> i & 1 != 0)
        .fold(0, |mask, i| mask | lane << (bits * i));
    dst & !mask | src & mask
}

/// The 16 bytes of dst:src from this byte on.
fn palignr(dst: u128, src: u128, imm: u8) -> u128 {
    match u32::from(imm) {
        0 => src,
        n @ 1..16 => src >> (8 * n) | dst << (8 * (16 - n)),
        n => dst.checked_shr(8 * (n - 16)).unwrap_or(0),
    }
}

/// Eight sums of four absolute differences.
fn mpsadbw(dst: u128, src: u128, imm: u8) -> u128 {
    let (dst, src) = (dst.to_le_bytes(), src.to_le_bytes());
    let (from, against) = (usize::from(imm & 4), usize::from(imm & 3) * 4);
    from_words(std::array::from_fn(|i| {
        (0..4).map(|k| u16::from(dst[from + i + k].abs_diff(src[against + k]))).sum()
    }))
}

/// Variable blend: the mask is XMM0.
#[inline(always)]
fn by_xmm0<E: Env>(cpu: &mut Cpu<E>, insn: &Insn, op: impl Fn(u128, u128, u128) -> u128) -> Done {
    let mask = cpu.xmm(0);
    binary(cpu, insn, |dst, src| op(dst, src, mask))
}

pub(super) fn select<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    macro_rules! immediate {
        (|$dst:pat_param, $src:ident, $imm:ident| $value:expr) => {
            |c, i| {
                let $imm = i.imm as u8;
                binary(c, i, |$dst, $src| $value)
            }
        };
    }
    table! { insn;
        Pshufd_xmm_xmmm128_imm8 => immediate!(|_, src, imm| pshufd(src, imm)),
        Pshuflw_xmm_xmmm128_imm8 => immediate!(|_, src, imm| pshufw(src, imm, 0)),
        Pshufhw_xmm_xmmm128_imm8 => immediate!(|_, src, imm| pshufw(src, imm, 4)),
        Shufps_xmm_xmmm128_imm8 => immediate!(|dst, src, imm| shufps(dst, src, imm)),
        Shufpd_xmm_xmmm128_imm8 => immediate!(|dst, src, imm| shufpd(dst, src, imm)),
        Blendps_xmm_xmmm128_imm8 => immediate!(|dst, src, imm| blend(dst, src, imm, 32)),
        Blendpd_xmm_xmmm128_imm8 => immediate!(|dst, src, imm| blend(dst, src, imm, 64)),
        Pblendw_xmm_xmmm128_imm8 => immediate!(|dst, src, imm| blend(dst, src, imm, 16)),
        Palignr_xmm_xmmm128_imm8 => immediate!(|dst, src, imm| palignr(dst, src, imm)),
        Mpsadbw_xmm_xmmm128_imm8 => immediate!(|dst, src, imm| mpsadbw(dst, src, imm)),
        Unpcklps_xmm_xmmm128 => |c, i| binary(c, i, simd::punpckldq),
        Unpckhps_xmm_xmmm128 => |c, i| binary(c, i, simd::punpckhdq),
        Unpcklpd_xmm_xmmm128 => |c, i| binary(c, i, simd::punpcklqdq),
        Unpckhpd_xmm_xmmm128 => |c, i| binary(c, i, simd::punpckhqdq),
        Movsldup_xmm_xmmm128 => |c, i| binary(c, i, |_, src| pshufd(src, 0b10_10_00_00)),
        Movshdup_xmm_xmmm128 => |c, i| binary(c, i, |_, src| pshufd(src, 0b11_11_01_01)),
        Pblendvb_xmm_xmmm128 => |c, i| by_xmm0(c, i, simd::pblendvb),
        Blendvps_xmm_xmmm128 => |c, i| by_xmm0(c, i, simd::blendvps),
        Blendvpd_xmm_xmmm128 => |c, i| by_xmm0(c, i, simd::blendvpd),
    }
}
