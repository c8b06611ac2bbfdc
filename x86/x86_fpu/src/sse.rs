//! SSE float instructions, under the guest's MXCSR.
//!
//! Registers are `u128`; scalar forms keep the upper part of `dst`, as the instructions do.

// UNSAFETY: the guest's rounding and flags need MXCSR around each instruction, which no intrinsic
// promises.
#![allow(unsafe_code, reason = "MXCSR has to be the guest's for exactly one instruction")]

use std::arch::asm;
use std::arch::x86_64::__m128i;
use std::mem::transmute;

use crate::unbounded::{Lanes, after, after_addsub, after_horizontal, after_narrowing};
use crate::x87::{fadd, fdiv, fmul, fsub};

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

    /// What the guest sees, from what happened with everything masked. `unbounded` tells which of
    /// overflow, underflow and inexact are raised when one of the first two is unmasked.
    #[inline(always)]
    fn outcome<T>(&self, mxcsr: u32, value: T, unbounded: impl FnOnce(u32) -> u32) -> Outcome<T> {
        let raised = self.guest & EXCEPTIONS;
        if mxcsr & MASKS == MASKS {
            return Outcome { value, raised, trap: false };
        }
        unmasked(mxcsr, value, raised, unbounded)
    }
}

#[cold]
fn unmasked<T>(
    mxcsr: u32,
    value: T,
    raised: u32,
    unbounded: impl FnOnce(u32) -> u32,
) -> Outcome<T> {
    let masks = mxcsr >> MASK_SHIFT;
    // What is found before the computation keeps it from being done at all.
    let before = raised & (IE | DE | ZE);
    if before & !masks != 0 {
        return Outcome { value, raised: before, trap: true };
    }
    let after =
        if masks & (OE | UE) == OE | UE { raised & (OE | UE | PE) } else { unbounded(raised) };
    let raised = before | after;
    Outcome { value, raised, trap: raised & !masks != 0 }
}

macro_rules! vector {
    ($($unbounded:expr => $($name:ident)*;)*) => {$($(
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
            csr.outcome(mxcsr, value, |raised| $unbounded(mxcsr, dst, src, raised))
        }
    )*)*};
}

vector! {
    after(Lanes::PS, fadd) => addps;
    after(Lanes::PS, fsub) => subps;
    after(Lanes::PS, fmul) => mulps;
    after(Lanes::PS, fdiv) => divps;
    after(Lanes::PD, fadd) => addpd;
    after(Lanes::PD, fsub) => subpd;
    after(Lanes::PD, fmul) => mulpd;
    after(Lanes::PD, fdiv) => divpd;
    after(Lanes::SS, fadd) => addss;
    after(Lanes::SS, fsub) => subss;
    after(Lanes::SS, fmul) => mulss;
    after(Lanes::SS, fdiv) => divss;
    after(Lanes::SD, fadd) => addsd;
    after(Lanes::SD, fsub) => subsd;
    after(Lanes::SD, fmul) => mulsd;
    after(Lanes::SD, fdiv) => divsd;
    after_addsub(Lanes::PS) => addsubps;
    after_addsub(Lanes::PD) => addsubpd;
    after_horizontal(Lanes::PS, fadd) => haddps;
    after_horizontal(Lanes::PS, fsub) => hsubps;
    after_horizontal(Lanes::PD, fadd) => haddpd;
    after_horizontal(Lanes::PD, fsub) => hsubpd;
    after_narrowing(2) => cvtpd2ps;
    after_narrowing(1) => cvtsd2ss;
    |_, _, _, raised| raised & (OE | UE | PE) => minps minpd minss minsd maxps maxpd maxss maxsd sqrtps sqrtpd sqrtss sqrtsd
        cvtps2pd cvtss2sd cvtdq2ps cvtdq2pd cvtps2dq cvttps2dq cvtpd2dq cvttpd2dq
        rcpps rcpss rsqrtps rsqrtss;
}

macro_rules! immediate {
    ($($name:ident $mask:literal)*) => {$(
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
                csr.outcome(mxcsr, value, |raised| raised & (OE | UE | PE))
            }
            let with = match imm & $mask {
                0 => with::<0>, 1 => with::<1>, 2 => with::<2>, 3 => with::<3>,
                4 => with::<4>, 5 => with::<5>, 6 => with::<6>, 7 => with::<7>,
                8 => with::<8>, 9 => with::<9>, 10 => with::<10>, 11 => with::<11>,
                12 => with::<12>, 13 => with::<13>, 14 => with::<14>, _ => with::<15>,
            };
            with(mxcsr, dst, src)
        }
    )*};
}

immediate! {
    cmpps 7 cmppd 7 cmpss 7 cmpsd 7 roundps 15 roundpd 15 roundss 15 roundsd 15
}

macro_rules! all_lanes {
    ($($name:ident: $multiply:ident, $($add:ident),*;)*) => {$(
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
            if mxcsr & MASKS == MASKS {
                return csr.outcome(mxcsr, value, |raised| raised);
            }
            // A product, then sums of neighbours: each step can trap, and the next raises nothing then.
            let step = $multiply(mxcsr, dst, src);
            if step.trap {
                return step;
            }
            $(
                let sum = $add(mxcsr, step.value, step.value);
                let step = Outcome { raised: sum.raised | step.raised, ..sum };
                if step.trap {
                    return step;
                }
            )*
            Outcome { value, ..step }
        }
    )*};
}

all_lanes! { dpps: mulps, haddps, haddps; dppd: mulpd, haddpd; }

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
            csr.outcome(mxcsr, flags & 0x45, |raised| raised & PE)
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
            csr.outcome(mxcsr, value, |raised| raised & PE)
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
            csr.outcome(mxcsr, value, |raised| raised & PE)
        }
    )*};
}

from_integer! {
    cvtsi2ss u32, "cvtsi2ss {d}, {s:e}";
    cvtsi2ss_64 u64, "cvtsi2ss {d}, {s}";
    cvtsi2sd u32, "cvtsi2sd {d}, {s:e}";
    cvtsi2sd_64 u64, "cvtsi2sd {d}, {s}";
}
