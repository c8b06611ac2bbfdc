//! Bytes to instruction: the only crate that names a decoder.
//!
//! A [`Decoder`] turns the bytes of a basic block into [`Insn`]s: 32 bytes each, with operands as
//! register numbers, sign-extended numbers and a memory form, ready to be executed any number of
//! times. What the profiles do not have (VEX, EVEX, 3DNow!, BMI, ...) is [`DecodeError::Invalid`],
//! as are a LOCK where none is allowed and every encoding the SDM reserves.
//!
//! An [`Insn`] does not know where it is in memory, only how far from its block's beginning, so
//! that one decoded block serves all linear addresses its page is mapped at.
//!
//! [`native`] has another decoder and another form, for encoding instructions again; it decodes
//! what the host may have and the portable profile does not, too.
//!
//! What this crate may not know: registers' contents, memory, what instructions do.
//!
//! Follows the Intel SDM, volume 2, chapters 2 and 3.

mod decoder;
mod insn;
pub mod native;
mod supported;

pub use decoder::{DecodeError, Decoder, INSN_SIZE_MAX};
pub use iced_x86::{Code, Mnemonic};
pub use insn::{GPR_NONE, GPR_RIP, Insn, InsnFlags, OperandKind};

#[cfg(test)]
mod tests;
