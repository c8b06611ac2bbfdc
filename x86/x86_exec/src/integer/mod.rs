//! Integer instructions.

mod alu;
mod bcd;
mod bits;
mod exchange;
mod misc;
mod mov;
mod muldiv;
mod shift;

pub(crate) use alu::{Binary, Cmp, Test};
use x86_decode::Insn;

use crate::{Env, Handler, Word};

/// The handler for the size of an operand.
macro_rules! sized {
    ($size:expr, $handler:ident $(, $more:ty)*) => {
        match $size {
            1 => $handler::<E, u8 $(, $more)*> as $crate::Handler<E>,
            2 => $handler::<E, u16 $(, $more)*>,
            4 => $handler::<E, u32 $(, $more)*>,
            _ => $handler::<E, u64 $(, $more)*>,
        }
    };
}

/// The same, where there is no form for bytes.
macro_rules! sized_wide {
    ($size:expr, $handler:ident $(, $more:ty)*) => {
        match $size {
            2 => $handler::<E, u16 $(, $more)*> as $crate::Handler<E>,
            4 => $handler::<E, u32 $(, $more)*>,
            _ => $handler::<E, u64 $(, $more)*>,
        }
    };
}

/// A handler for each condition code.
macro_rules! by_condition {
    ($code:expr, $handler:ident $(, $type:ty)*) => {
        match $code & 15 {
            0 => $handler::<E $(, $type)*, 0> as $crate::Handler<E>,
            1 => $handler::<E $(, $type)*, 1>,
            2 => $handler::<E $(, $type)*, 2>,
            3 => $handler::<E $(, $type)*, 3>,
            4 => $handler::<E $(, $type)*, 4>,
            5 => $handler::<E $(, $type)*, 5>,
            6 => $handler::<E $(, $type)*, 6>,
            7 => $handler::<E $(, $type)*, 7>,
            8 => $handler::<E $(, $type)*, 8>,
            9 => $handler::<E $(, $type)*, 9>,
            10 => $handler::<E $(, $type)*, 10>,
            11 => $handler::<E $(, $type)*, 11>,
            12 => $handler::<E $(, $type)*, 12>,
            13 => $handler::<E $(, $type)*, 13>,
            14 => $handler::<E $(, $type)*, 14>,
            _ => $handler::<E $(, $type)*, 15>,
        }
    };
}
pub(crate) use {by_condition, sized, sized_wide};

/// Bits of an operand.
pub(crate) const fn width<T: Word>() -> u32 {
    8 * T::SIZE as u32
}

/// The sign bit.
#[inline(always)]
pub(crate) fn top<T: Word>(value: T) -> bool {
    value.to_u64() >> (width::<T>() - 1) != 0
}

/// The function that does `insn`, when it is of this family.
pub(crate) fn select<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    alu::select(insn)
        .or_else(|| mov::select(insn))
        .or_else(|| shift::select(insn))
        .or_else(|| muldiv::select(insn))
        .or_else(|| bits::select(insn))
        .or_else(|| exchange::select(insn))
        .or_else(|| bcd::select(insn))
        .or_else(|| misc::select(insn))
}
