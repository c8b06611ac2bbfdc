//! SSE float instructions, under the guest's MXCSR.
//!
//! Registers are `u128`; scalar forms keep the upper part of `dst`, as the instructions do.

// UNSAFETY: the guest's rounding and flags need MXCSR around each instruction, which no intrinsic
// promises.
#![allow(unsafe_code, reason = "MXCSR has to be the guest's for exactly one instruction")]

use std::arch::asm;
use std::arch::x86_64::__m128i;
use std::mem::transmute;

/// MXCSR: invalid operation.
pub const IE: u32 = 1 << 0;
/// MXCSR: denormal operand.
pub const DE: u32 = 1 << 1;
/// MXCSR: division by zero.
pub const ZE: u32 = 1 << 2;
/// MXCSR: overflow.
pub const OE: u32 = 1 << 3;
/// MXCSR: underflow.
pub const UE: u32 = 1 << 4;
/// MXCSR: inexact.
pub const PE: u32 = 1 << 5;
/// MXCSR: the six exceptions.
pub const EXCEPTIONS: u32 = 0x3f;
/// MXCSR: denormal operands are zeros.
pub const DAZ: u32 = 1 << 6;
/// MXCSR: where the masks begin.
pub const MASK_SHIFT: u32 = 7;
/// MXCSR: tiny results are flushed to zero, when underflow is masked.
pub const FTZ: u32 = 1 << 15;

const MASKS: u32 = EXCEPTIONS << MASK_SHIFT;

/// What an instruction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome<T = u128> {
    /// The result, when there is no trap.
    pub value: T,
    /// Exceptions raised, as in MXCSR.
    pub raised: u32,
    /// One of them is unmasked: #XM, and nothing is written but the flags.
    pub trap: bool,
}

/// Which lanes of a result an instruction computed, for those whose results can be tiny.
#[derive(Clone, Copy)]
enum Lanes {
    Ps,
    Ss,
    Pd,
    Sd,
    /// Nothing that can be tiny.
    None,
}

impl Lanes {
    /// A lane is a denormal number.
    fn any_denormal(self, value: u128) -> bool {
        let single = |i: u32| {
            let lane = (value >> (32 * i)) as u32;
            lane & 0x7f80_0000 == 0 && lane & 0x7f_ffff != 0
        };
        let double = |i: u32| {
            let lane = (value >> (64 * i)) as u64;
            lane & 0x7ff0 << 48 == 0 && lane << 12 != 0
        };
        match self {
            Self::Ps => (0..4).any(single),
            Self::Ss => single(0),
            Self::Pd => (0..2).any(double),
            Self::Sd => double(0),
            Self::None => false,
        }
    }
}

/// MXCSR for the instruction and after it.
#[repr(C)]
struct Csr {
    guest: u32,
    host: u32,
}

impl Csr {
    #[inline(always)]
    fn new(mxcsr: u32) -> Self {
        // Flushing to zero is for masked underflow only; here every exception is masked.
        let ftz = if mxcsr & UE << MASK_SHIFT == 0 { FTZ } else { 0 };
        Self { guest: (mxcsr | MASKS) & !(EXCEPTIONS | ftz), host: MASKS }
    }

    /// What the guest sees, from what happened with everything masked.
    #[inline(always)]
    fn outcome<T>(&self, mxcsr: u32, value: T, tiny: impl FnOnce() -> bool) -> Outcome<T> {
        let raised = self.guest & EXCEPTIONS;
        if mxcsr & MASKS == MASKS {
            return Outcome { value, raised, trap: false };
        }
        // Unmasked underflow is raised by exact tiny results too (SDM vol. 1, 4.9.1.5).
        let underflow = if mxcsr & UE << MASK_SHIFT == 0 && tiny() { UE } else { 0 };
        let raised = raised | underflow;
        let unmasked = raised & !(mxcsr >> MASK_SHIFT);
        // What is found before the computation keeps it from being done at all.
        let before = IE | DE | ZE;
        let raised = if unmasked & before != 0 { raised & before } else { raised };
        Outcome { value, raised, trap: unmasked != 0 }
    }
}

macro_rules! vector {
    ($($lanes:ident: $($name:ident)*;)*) => {$($(
        #[doc = concat!(stringify!($name), ".")]
        #[inline]
        pub fn $name(mxcsr: u32, dst: u128, src: u128) -> Outcome {
            let mut csr = Csr::new(mxcsr);
            // SAFETY: any bits are a valid vector. Only `csr` is touched in memory; all exceptions
            // are masked and MXCSR is put back.
            let value = unsafe {
                let mut value: __m128i = transmute(dst);
                asm!("ldmxcsr [{c}]", concat!(stringify!($name), " {d}, {s}"), "stmxcsr [{c}]",
                     "ldmxcsr [{c} + 4]",
                     c = in(reg) &mut csr, d = inout(xmm_reg) value,
                     s = in(xmm_reg) transmute::<u128, __m128i>(src),
                     options(nostack, preserves_flags));
                transmute::<__m128i, u128>(value)
            };
            csr.outcome(mxcsr, value, || Lanes::$lanes.any_denormal(value))
        }
    )*)*};
}

vector! {
    Ps: addps subps mulps divps addsubps haddps hsubps cvtpd2ps;
    Pd: addpd subpd mulpd divpd addsubpd haddpd hsubpd;
    Ss: addss subss mulss divss cvtsd2ss;
    Sd: addsd subsd mulsd divsd;
    None: minps minpd minss minsd maxps maxpd maxss maxsd sqrtps sqrtpd sqrtss sqrtsd
        cvtps2pd cvtss2sd cvtdq2ps cvtdq2pd cvtps2dq cvttps2dq cvtpd2dq cvttpd2dq
        rcpps rcpss rsqrtps rsqrtss;
}

macro_rules! immediate {
    ($($lanes:ident: $($name:ident $mask:literal)*;)*) => {$($(
        #[doc = concat!(stringify!($name), " with one of the immediates that differ.")]
        #[inline]
        pub fn $name(mxcsr: u32, dst: u128, src: u128, imm: u8) -> Outcome {
            fn with<const IMM: u8>(mxcsr: u32, dst: u128, src: u128) -> Outcome {
                let mut csr = Csr::new(mxcsr);
                // SAFETY: as for the other vector instructions.
                let value = unsafe {
                    let mut value: __m128i = transmute(dst);
                    asm!("ldmxcsr [{c}]", concat!(stringify!($name), " {d}, {s}, {i}"),
                         "stmxcsr [{c}]", "ldmxcsr [{c} + 4]",
                         c = in(reg) &mut csr, d = inout(xmm_reg) value,
                         s = in(xmm_reg) transmute::<u128, __m128i>(src), i = const IMM,
                         options(nostack, preserves_flags));
                    transmute::<__m128i, u128>(value)
                };
                csr.outcome(mxcsr, value, || Lanes::$lanes.any_denormal(value))
            }
            let with = match imm & $mask {
                0 => with::<0>, 1 => with::<1>, 2 => with::<2>, 3 => with::<3>,
                4 => with::<4>, 5 => with::<5>, 6 => with::<6>, 7 => with::<7>,
                8 => with::<8>, 9 => with::<9>, 10 => with::<10>, 11 => with::<11>,
                12 => with::<12>, 13 => with::<13>, 14 => with::<14>, _ => with::<15>,
            };
            with(mxcsr, dst, src)
        }
    )*)*};
}

immediate! {
    None: cmpps 7 cmppd 7 cmpss 7 cmpsd 7 roundps 15 roundpd 15 roundss 15 roundsd 15;
}

macro_rules! all_lanes {
    ($($lanes:ident: $name:ident;)*) => {$(
        /// The dot product of all lanes, in every lane. Callers zero the lanes that do not count,
        /// as the instruction does.
        #[inline]
        pub fn $name(mxcsr: u32, dst: u128, src: u128) -> Outcome {
            let mut csr = Csr::new(mxcsr);
            // SAFETY: as for the other vector instructions.
            let value = unsafe {
                let mut value: __m128i = transmute(dst);
                asm!("ldmxcsr [{c}]", concat!(stringify!($name), " {d}, {s}, 0xff"),
                     "stmxcsr [{c}]", "ldmxcsr [{c} + 4]",
                     c = in(reg) &mut csr, d = inout(xmm_reg) value,
                     s = in(xmm_reg) transmute::<u128, __m128i>(src),
                     options(nostack, preserves_flags));
                transmute::<__m128i, u128>(value)
            };
            csr.outcome(mxcsr, value, || Lanes::$lanes.any_denormal(value))
        }
    )*};
}

all_lanes! { Ps: dpps; Pd: dppd; }

macro_rules! compare {
    ($($name:ident)*) => {$(
        #[doc = concat!(stringify!($name), ": RFLAGS' ZF, PF and CF.")]
        #[inline]
        pub fn $name(mxcsr: u32, a: u128, b: u128) -> Outcome<u64> {
            let mut csr = Csr::new(mxcsr);
            let flags: u64;
            // SAFETY: as for the vector instructions; the stack is used as the ABI allows.
            unsafe {
                asm!("ldmxcsr [{c}]", concat!(stringify!($name), " {a}, {b}"), "stmxcsr [{c}]",
                     "ldmxcsr [{c} + 4]", "pushfq", "pop {f}",
                     c = in(reg) &mut csr, f = out(reg) flags,
                     a = in(xmm_reg) transmute::<u128, __m128i>(a),
                     b = in(xmm_reg) transmute::<u128, __m128i>(b));
            }
            csr.outcome(mxcsr, flags & 0x45, || false)
        }
    )*};
}

compare! { comiss comisd ucomiss ucomisd }

macro_rules! to_integer {
    ($($name:ident $wide:ident $op:literal;)*) => {
        $(to_integer!(@ $name u32, concat!($op, " {r:e}, {s}"));
          to_integer!(@ $wide u64, concat!($op, " {r}, {s}"));)*
    };
    (@ $name:ident $type:ty, $op:expr) => {
        #[doc = concat!(stringify!($name), " to ", stringify!($type), ".")]
        #[inline]
        pub fn $name(mxcsr: u32, src: u128) -> Outcome<$type> {
            let mut csr = Csr::new(mxcsr);
            let value: $type;
            // SAFETY: as for the vector instructions.
            unsafe {
                asm!("ldmxcsr [{c}]", $op, "stmxcsr [{c}]", "ldmxcsr [{c} + 4]",
                     c = in(reg) &mut csr, r = out(reg) value,
                     s = in(xmm_reg) transmute::<u128, __m128i>(src),
                     options(nostack, preserves_flags));
            }
            csr.outcome(mxcsr, value, || false)
        }
    };
}

to_integer! {
    cvtss2si cvtss2si_64 "cvtss2si";
    cvtsd2si cvtsd2si_64 "cvtsd2si";
    cvttss2si cvttss2si_64 "cvttss2si";
    cvttsd2si cvttsd2si_64 "cvttsd2si";
}

macro_rules! from_integer {
    ($($name:ident $type:ty, $op:literal;)*) => {$(
        #[doc = concat!(stringify!($name), " from ", stringify!($type), ".")]
        #[inline]
        pub fn $name(mxcsr: u32, dst: u128, src: $type) -> Outcome {
            let mut csr = Csr::new(mxcsr);
            // SAFETY: as for the vector instructions.
            let value = unsafe {
                let mut value: __m128i = transmute(dst);
                asm!("ldmxcsr [{c}]", $op, "stmxcsr [{c}]", "ldmxcsr [{c} + 4]",
                     c = in(reg) &mut csr, d = inout(xmm_reg) value, s = in(reg) src,
                     options(nostack, preserves_flags));
                transmute::<__m128i, u128>(value)
            };
            csr.outcome(mxcsr, value, || false)
        }
    )*};
}

from_integer! {
    cvtsi2ss u32, "cvtsi2ss {d}, {s:e}";
    cvtsi2ss_64 u64, "cvtsi2ss {d}, {s}";
    cvtsi2sd u32, "cvtsi2sd {d}, {s:e}";
    cvtsi2sd_64 u64, "cvtsi2sd {d}, {s}";
}
