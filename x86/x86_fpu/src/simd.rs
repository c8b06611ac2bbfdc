//! Integer vector instructions on registers of 128 bits: no control register, no exceptions.
//!
//! What takes an immediate, or is as short in Rust, is not here.

// UNSAFETY: the host's SSSE3 to SSE4.2 is reached by assembly, as the compiler's baseline is SSE2.
#![allow(unsafe_code, reason = "vector instructions beyond the compiler's baseline")]

use std::arch::asm;
use std::arch::x86_64::__m128i;
use std::mem::transmute;

macro_rules! binary {
    ($($name:ident)*) => {$(
        #[doc = concat!(stringify!($name), " of registers of 128 bits.")]
        #[inline]
        pub fn $name(dst: u128, src: u128) -> u128 {
            // SAFETY: any bits are a valid vector; the instruction reads and writes registers
            // only.
            unsafe {
                let mut value: __m128i = transmute(dst);
                asm!(concat!(stringify!($name), " {}, {}"), inout(xmm_reg) value,
                     in(xmm_reg) transmute::<u128, __m128i>(src),
                     options(pure, nomem, nostack, preserves_flags));
                transmute(value)
            }
        }
    )*};
}

macro_rules! unary {
    ($($name:ident)*) => {$(
        #[doc = concat!(stringify!($name), " of a register of 128 bits.")]
        #[inline]
        pub fn $name(src: u128) -> u128 {
            // SAFETY: as for the binary ones.
            unsafe {
                let value: __m128i;
                asm!(concat!(stringify!($name), " {}, {}"), out(xmm_reg) value,
                     in(xmm_reg) transmute::<u128, __m128i>(src),
                     options(pure, nomem, nostack, preserves_flags));
                transmute(value)
            }
        }
    )*};
}

macro_rules! blend {
    ($($name:ident)*) => {$(
        #[doc = concat!(stringify!($name), " with the mask of XMM0 in `mask`.")]
        #[inline]
        pub fn $name(dst: u128, src: u128, mask: u128) -> u128 {
            // SAFETY: as for the binary ones.
            unsafe {
                let mut value: __m128i = transmute(dst);
                asm!(concat!(stringify!($name), " {}, {}, xmm0"), inout(xmm_reg) value,
                     in(xmm_reg) transmute::<u128, __m128i>(src),
                     in("xmm0") transmute::<u128, __m128i>(mask),
                     options(pure, nomem, nostack, preserves_flags));
                transmute(value)
            }
        }
    )*};
}

binary! {
    paddb paddw paddd paddq paddsb paddsw paddusb paddusw
    psubb psubw psubd psubq psubsb psubsw psubusb psubusw
    pmullw pmulhw pmulhuw pmuludq pmaddwd pavgb pavgw psadbw
    pminub pminsw pmaxub pmaxsw
    pcmpeqb pcmpeqw pcmpeqd pcmpgtb pcmpgtw pcmpgtd
    psllw pslld psllq psrlw psrld psrlq psraw psrad
    packsswb packssdw packuswb
    punpcklbw punpcklwd punpckldq punpcklqdq punpckhbw punpckhwd punpckhdq punpckhqdq
    pshufb phaddw phaddd phaddsw phsubw phsubd phsubsw pmaddubsw pmulhrsw psignb psignw psignd
    pmuldq pmulld pminsb pminsd pminuw pminud pmaxsb pmaxsd pmaxuw pmaxud
    packusdw pcmpeqq pcmpgtq
}

unary! {
    pabsb pabsw pabsd phminposuw
    pmovsxbw pmovsxbd pmovsxbq pmovsxwd pmovsxwq pmovsxdq
    pmovzxbw pmovzxbd pmovzxbq pmovzxwd pmovzxwq pmovzxdq
}

blend! { pblendvb blendvps blendvpd }
