//! Instructions to bytes: 64-bit host code, written by an [`Assembler`] or rewritten from guest
//! code by [`reencode`].
//!
//! [`reencode`] takes an instruction apart by [`x86_decode::native`] and encodes it again with its
//! general registers renamed and its memory operand replaced. Both write what they are asked to
//! and nothing else: no temporaries, no choice of instructions, no optimisation.
//!
//! What this crate may not know: what the code is for, where it will be, what the host's CPU has.
//!
//! Invariants: nothing a guest's instruction holds makes this crate panic; what cannot be encoded
//! is [`Unencodable`], and then nothing was written.
//!
//! Follows the Intel SDM, volume 2, chapter 2 and appendix B.

mod assembler;
mod label;
mod operand;
mod reencode;

pub use assembler::{Alu, Assembler, Cond, Shift};
pub use label::{Label, OutOfRange};
pub use operand::{Mem, Reg, Segment};
pub use reencode::{Substitution, Unencodable, reencode};

#[cfg(test)]
mod tests;
