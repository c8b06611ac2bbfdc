//! What is written, against an independent decoder.

mod assembler;
mod reencode;

use iced_x86::{Decoder, DecoderOptions, Instruction};

/// The one instruction these bytes are.
fn decode(bits: u32, bytes: &[u8]) -> Instruction {
    let mut decoder = Decoder::with_ip(bits, bytes, 0, DecoderOptions::FORCE_RESERVED_NOP);
    let insn = decoder.decode();
    assert!(!insn.is_invalid(), "{bytes:02x?}");
    assert_eq!(decoder.position(), bytes.len(), "{bytes:02x?}");
    insn
}
