//! MMX and SSE to SSE4.2.
//!
//! What a vector becomes is worked out by [`x86_fpu`] or, where an immediate decides, here; what
//! is checked first, where operands come from and where exceptions go is [`operand`]'s.
//!
//! Faults have the order of SDM vol. 2A, tables 2-21 ff.: #UD, #NM, #MF (MMX), memory, #XM.

mod compare_string;
mod convert;
mod float;
mod insert;
mod integer;
mod mmx;
mod moves;
mod operand;
mod shuffle;
mod state;

use x86_decode::Insn;

use crate::{Env, Handler};

/// `Some` handler of an instruction's code.
macro_rules! table {
    ($insn:ident; $($($code:ident)|+ => $handler:expr,)*) => {
        match $insn.code {
            $($(x86_decode::Code::$code)|+ => Some($handler),)*
            _ => None,
        }
    };
}
use table;

/// The function that does `insn`, when it is of this family.
pub(crate) fn select<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    moves::select(insn)
        .or_else(|| float::select(insn))
        .or_else(|| convert::select(insn))
        .or_else(|| integer::select(insn))
        .or_else(|| shuffle::select(insn))
        .or_else(|| insert::select(insn))
        .or_else(|| mmx::select(insn))
        .or_else(|| state::select(insn))
        .or_else(|| compare_string::select(insn))
}
