//! x87 instructions on values of 80 bits.
//!
//! A register is the low 80 bits of a `u128`: significand below, sign and exponent above. `a` is
//! ST(0), `b` the other operand. The stack is the caller's: no stack fault is seen here.

// UNSAFETY: the x87 has no intrinsics; assembly is the only way to it.
#![allow(unsafe_code, reason = "the host's x87 is reached by assembly only")]

use std::arch::asm;

/// FSW and FCW: invalid operation.
pub const IE: u16 = 1 << 0;
/// FSW and FCW: denormal operand.
pub const DE: u16 = 1 << 1;
/// FSW and FCW: division by zero.
pub const ZE: u16 = 1 << 2;
/// FSW and FCW: overflow.
pub const OE: u16 = 1 << 3;
/// FSW and FCW: underflow.
pub const UE: u16 = 1 << 4;
/// FSW and FCW: inexact.
pub const PE: u16 = 1 << 5;
/// The six exceptions.
pub const EXCEPTIONS: u16 = 0x3f;
/// FSW: stack fault.
pub const SF: u16 = 1 << 6;
/// FSW: an unmasked exception is pending.
pub const ES: u16 = 1 << 7;
/// FSW condition code.
pub const C0: u16 = 1 << 8;
/// FSW condition code: rounded up, or stack overflow.
pub const C1: u16 = 1 << 9;
/// FSW condition code: incomplete.
pub const C2: u16 = 1 << 10;
/// FSW condition code.
pub const C3: u16 = 1 << 14;
/// The condition codes.
pub const CONDITIONS: u16 = C0 | C1 | C2 | C3;
/// FSW: busy; a copy of ES.
pub const BUSY: u16 = 1 << 15;

/// The default NaN, result of masked invalid operations.
pub const INDEFINITE: u128 = 0xffff_c000_0000_0000_0000;

/// What an instruction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// The result: ST(0) afterwards, or what is stored, zero-extended.
    pub value: u128,
    /// ST(1) afterwards, of instructions with two results.
    pub second: u128,
    /// Exceptions raised and condition codes, as in FSW.
    pub status: u16,
    /// False when an unmasked exception kept the instruction from having a result: nothing is
    /// written, pushed or popped.
    pub done: bool,
}

/// In and out of the assembly.
#[repr(C, align(16))]
struct Frame {
    a: u128,
    b: u128,
    value: u128,
    second: u128,
    guest_cw: u16,
    host_cw: u16,
}

#[repr(C, align(16))]
struct FxArea([u8; 512]);

const HOST_CW: u16 = 0x37f;

impl Frame {
    #[inline(always)]
    fn new(cw: u16, a: u128, b: u128) -> Self {
        Self { a, b, value: 0, second: 0, guest_cw: cw, host_cw: HOST_CW }
    }
}

/// What kinds of result there are: they differ in which unmasked exceptions suppress them.
#[derive(Clone, Copy, PartialEq)]
enum To {
    /// Registers: written whatever happens after the computation (SDM vol. 1, 8.5.4 to 8.5.6).
    Registers,
    /// Memory: not written on overflow and underflow either.
    Memory,
    /// One more register: the host tells whether it pushed. (AMD's CPUs do even when an unmasked
    /// denormal was loaded.)
    Push,
}

impl FxArea {
    fn outcome(&self, frame: &Frame, to: To) -> Outcome {
        let register = |at: usize| {
            let mut bytes = [0; 16];
            bytes[..10].copy_from_slice(&self.0[at..at + 10]);
            u128::from_le_bytes(bytes)
        };
        let status = u16::from_le_bytes([self.0[2], self.0[3]]);
        let unmasked = status & !frame.guest_cw;
        let done = match to {
            To::Registers => unmasked & (IE | DE | ZE) == 0,
            To::Memory => unmasked & (IE | DE | ZE | OE | UE) == 0,
            To::Push => self.0[4] != 0,
        };
        let value = if to == To::Memory { frame.value } else { register(32) };
        let status = status & (EXCEPTIONS | CONDITIONS);
        Outcome { value, second: register(48), status, done }
    }
}

/// One instruction: what to push before it and what to take off after it.
macro_rules! instruction {
    ($($(#[$doc:meta])* $name:ident($($arg:ident),*) -> $to:ident:
       [$($push:literal),*] $op:expr, [$($take:literal),*];)*) => {$(
        $(#[$doc])*
        #[inline]
        pub fn $name(fcw: u16, $($arg: u128),*) -> Outcome {
            #[cold]
            fn unmasked(frame: &mut Frame) -> Outcome {
                let mut area = FxArea([0; 512]);
                // SAFETY: reads and writes `frame` and `area` only, the latter 512 bytes at 16.
                // From the first arithmetic instruction on, only those run that do not wait for
                // the x87, so a pending exception is never taken; FNINIT forgets it and leaves
                // stack and control word as the ABI wants them.
                unsafe {
                    asm!(
                        "fnclex", "fldcw [{p} + 64]", $($push,)* $op, "fxsave64 [{x}]", "fninit",
                        p = in(reg) frame, x = in(reg) &mut area, options(nostack),
                        out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                        out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
                    );
                }
                area.outcome(frame, To::$to)
            }
            let mut frame = Frame::new(fcw | EXCEPTIONS, instruction!(@a $($arg)*),
                                       instruction!(@b $($arg)*));
            let status: u16;
            // SAFETY: reads and writes `frame` only; all exceptions are masked; as many values
            // are taken off the stack as were put on, and the control word is put back.
            unsafe {
                asm!(
                    "fnclex", "fldcw [{p} + 64]", $($push,)* $op, "fnstsw ax", $($take,)*
                    "fldcw [{p} + 66]",
                    p = in(reg) &mut frame, out("ax") status, options(nostack),
                    out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                    out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
                );
            }
            // An unmasked underflow is raised by exact tiny results too, which a masked one is
            // not: only exact results that are not tiny may stay on the short way.
            if fcw & EXCEPTIONS != EXCEPTIONS && (status & !fcw & EXCEPTIONS != 0 || fcw & UE == 0)
            {
                frame.guest_cw = fcw;
                return unmasked(&mut frame);
            }
            let status = status & (EXCEPTIONS | CONDITIONS);
            Outcome { value: frame.value, second: frame.second, status, done: true }
        }
    )*};
    (@a) => { 0 };
    (@a $a:ident $($b:ident)?) => { $a };
    (@b $($a:ident)?) => { 0 };
    (@b $a:ident $b:ident) => { $b };
}

/// FADD and its like, for operands in registers and in memory.
macro_rules! arithmetic {
    ($($name:ident $m32:ident $m64:ident $op:literal $doc:literal;)*) => {$(
        instruction! {
            #[doc = concat!($doc, " with a register.")]
            $name(a, b) -> Registers: ["fld tbyte ptr [{p} + 16]", "fld tbyte ptr [{p}]"]
                concat!($op, " st, st(1)"), ["fstp tbyte ptr [{p} + 32]", "fstp st(0)"];
            #[doc = concat!($doc, " with a float of 32 bits.")]
            $m32(a, b) -> Registers: ["fld tbyte ptr [{p}]"]
                concat!($op, " dword ptr [{p} + 16]"), ["fstp tbyte ptr [{p} + 32]"];
            #[doc = concat!($doc, " with a float of 64 bits.")]
            $m64(a, b) -> Registers: ["fld tbyte ptr [{p}]"]
                concat!($op, " qword ptr [{p} + 16]"), ["fstp tbyte ptr [{p} + 32]"];
        }
    )*};
}

arithmetic! {
    fadd fadd_m32 fadd_m64 "fadd" "ST(0) + `b`,";
    fmul fmul_m32 fmul_m64 "fmul" "ST(0) × `b`,";
    fsub fsub_m32 fsub_m64 "fsub" "ST(0) − `b`,";
    fsubr fsubr_m32 fsubr_m64 "fsubr" "`b` − ST(0),";
    fdiv fdiv_m32 fdiv_m64 "fdiv" "ST(0) ÷ `b`,";
    fdivr fdivr_m32 fdivr_m64 "fdivr" "`b` ÷ ST(0),";
}

/// Compares leave everything on the stack; only the status counts.
macro_rules! compare {
    ($($name:ident [$($load:literal),*] $op:literal [$($drop:literal),*] $doc:literal;)*) => {
        instruction! {$(
            #[doc = $doc]
            $name(a, b) -> Registers:
                [$($load,)* "fld tbyte ptr [{p}]"] $op, [$($drop,)* "fstp st(0)"];
        )*}
    };
}

compare! {
    fcom ["fld tbyte ptr [{p} + 16]"] "fcom st(1)" ["fstp st(0)"] "Compares; NaNs are invalid.";
    fucom ["fld tbyte ptr [{p} + 16]"] "fucom st(1)" ["fstp st(0)"]
        "Compares; only signalling NaNs are invalid.";
    fcom_m32 [] "fcom dword ptr [{p} + 16]" [] "Compares with a float of 32 bits.";
    fcom_m64 [] "fcom qword ptr [{p} + 16]" [] "Compares with a float of 64 bits.";
    ftst [] "ftst" [] "Compares with zero; `b` is not looked at.";
}

/// From ST(0) alone, or ST(0) and ST(1), to ST(0).
macro_rules! function {
    (unary { $($u:ident $u_doc:literal;)* } keep { $($k:ident $k_doc:literal;)* }
     pop { $($p:ident $p_doc:literal;)* } push { $($s:ident $s_doc:literal;)* }
     constant { $($c:ident $c_doc:literal;)* }) => {
        instruction! {
            $(#[doc = $u_doc] $u(a) -> Registers:
                ["fld tbyte ptr [{p}]"] stringify!($u), ["fstp tbyte ptr [{p} + 32]"];)*
            $(#[doc = $k_doc] $k(a, b) -> Registers:
                ["fld tbyte ptr [{p} + 16]", "fld tbyte ptr [{p}]"] stringify!($k),
                ["fstp tbyte ptr [{p} + 32]", "fstp st(0)"];)*
            $(#[doc = $p_doc] $p(a, b) -> Registers:
                ["fld tbyte ptr [{p} + 16]", "fld tbyte ptr [{p}]"] stringify!($p),
                ["fstp tbyte ptr [{p} + 32]"];)*
            $(#[doc = $s_doc] $s(a) -> Registers:
                ["fld tbyte ptr [{p}]"] stringify!($s),
                ["fstp tbyte ptr [{p} + 32]", "fstp tbyte ptr [{p} + 48]"];)*
            $(#[doc = $c_doc] $c() -> Registers:
                [] stringify!($c), ["fstp tbyte ptr [{p} + 32]"];)*
        }
    };
}

function! {
    unary {
        fsqrt "Square root.";
        frndint "Rounds to an integer.";
        f2xm1 "2ˣ − 1.";
    }
    keep {
        fprem "Partial remainder, truncating.";
        fprem1 "Partial remainder, IEEE 754.";
        fscale "Adds ST(1) to the exponent.";
    }
    pop {
        fpatan "Arc tangent of ST(1) ÷ ST(0); pops.";
        fyl2x "ST(1) × log₂ ST(0); pops.";
        fyl2xp1 "ST(1) × log₂ (ST(0) + 1); pops.";
    }
    push {
        fxtract "Splits into significand (ST(0)) and exponent (ST(1)).";
    }
    constant {
        fld1 "1.";
        fldl2t "log₂ 10.";
        fldl2e "log₂ e.";
        fldpi "π.";
        fldlg2 "log₁₀ 2.";
        fldln2 "ln 2.";
        fldz "0.";
    }
}

/// Between registers and memory.
macro_rules! convert {
    (load { $($l:ident $l_op:literal $l_doc:literal;)* }
     store { $($s:ident $s_op:literal $s_take:literal $s_doc:literal;)* }) => {
        instruction! {
            $(#[doc = $l_doc] $l(a) -> Push:
                [] concat!($l_op, " [{p}]"), ["fstp tbyte ptr [{p} + 32]"];)*
            $(#[doc = $s_doc] $s(a) -> Memory:
                ["fld tbyte ptr [{p}]"] concat!($s_op, " [{p} + 32]"), [$s_take];)*
        }
    };
}

convert! {
    load {
        fld_m32 "fld dword ptr" "Loads a float of 32 bits.";
        fld_m64 "fld qword ptr" "Loads a float of 64 bits.";
        fild_m64 "fild qword ptr" "Loads an integer of 64 bits.";
        fbld "fbld tbyte ptr" "Loads 18 packed decimal digits.";
    }
    store {
        fst_m32 "fst dword ptr" "fstp st(0)" "Stores a float of 32 bits.";
        fst_m64 "fst qword ptr" "fstp st(0)" "Stores a float of 64 bits.";
        fist_m16 "fist word ptr" "fstp st(0)" "Stores an integer of 16 bits.";
        fist_m32 "fist dword ptr" "fstp st(0)" "Stores an integer of 32 bits.";
        fist_m64 "fistp qword ptr" "fnop" "Stores an integer of 64 bits.";
        fisttp_m16 "fisttp word ptr" "fnop" "Stores an integer of 16 bits, truncating.";
        fisttp_m32 "fisttp dword ptr" "fnop" "Stores an integer of 32 bits, truncating.";
        fisttp_m64 "fisttp qword ptr" "fnop" "Stores an integer of 64 bits, truncating.";
        fbstp "fbstp tbyte ptr" "fnop" "Stores 18 packed decimal digits.";
    }
}

/// The argument is a number of 2⁶³ or more, which trigonometric functions leave alone.
const fn out_of_range(a: u128) -> bool {
    let exponent = (a >> 64) as u16 & 0x7fff;
    let normal = a >> 63 & 1 != 0;
    normal && exponent != 0x7fff && exponent >= 0x3fff + 63
}

macro_rules! trigonometric {
    ($($name:ident $in_range:ident $doc:literal [$($take:literal),*];)*) => {$(
        instruction! {
            #[doc = concat!($doc, " Of a number below 2⁶³.")]
            $in_range(a) -> Registers:
                ["fld tbyte ptr [{p}]"] stringify!($name), [$($take),*];
        }

        #[doc = concat!($doc, " C2 when the argument is out of range: nothing else happens then.")]
        #[inline]
        pub fn $name(fcw: u16, a: u128) -> Outcome {
            if out_of_range(a) {
                return Outcome { value: a, second: 0, status: C2, done: true };
            }
            $in_range(fcw, a)
        }
    )*};
}

trigonometric! {
    fsin fsin_in_range "Sine." ["fstp tbyte ptr [{p} + 32]"];
    fcos fcos_in_range "Cosine." ["fstp tbyte ptr [{p} + 32]"];
    fsincos fsincos_in_range "Cosine (ST(0)) and sine (ST(1))."
        ["fstp tbyte ptr [{p} + 32]", "fstp tbyte ptr [{p} + 48]"];
    fptan fptan_in_range "One (ST(0)) and tangent (ST(1))."
        ["fstp tbyte ptr [{p} + 32]", "fstp tbyte ptr [{p} + 48]"];
}
