//! What the SDM leaves undefined.

use std::ops::Range;

use iced_x86::Code;
use x86_decode::{Insn, Mnemonic, OperandKind};
use x86_state::Gpr;
use x86_state::bits::Rflags;

use crate::State;

/// Flags that `insn` leaves undefined, when it starts from `before` (SDM vol. 1, appendix A, and
/// the instructions' pages).
fn undefined_flags(insn: &Insn, before: &State) -> u64 {
    use Mnemonic as M;
    let flags = match insn.mnemonic() {
        M::And | M::Or | M::Xor | M::Test => Rflags::AF,
        M::Mul | M::Imul => Rflags::SF | Rflags::ZF | Rflags::AF | Rflags::PF,
        M::Div | M::Idiv => Rflags::all(),
        M::Bsf | M::Bsr => Rflags::CF | Rflags::OF | Rflags::SF | Rflags::AF | Rflags::PF,
        M::Bt | M::Bts | M::Btr | M::Btc => Rflags::OF | Rflags::SF | Rflags::AF | Rflags::PF,
        M::Aaa | M::Aas => Rflags::OF | Rflags::SF | Rflags::ZF | Rflags::PF,
        M::Aad | M::Aam => Rflags::OF | Rflags::AF | Rflags::CF,
        M::Daa | M::Das => Rflags::OF,
        M::Shl | M::Sal | M::Shr | M::Sar | M::Shld | M::Shrd => shift(insn, before),
        M::Rol | M::Ror | M::Rcl | M::Rcr => match count(insn, before, 1) {
            0 | 1 => Rflags::empty(),
            _ => Rflags::OF,
        },
        _ => Rflags::empty(),
    };
    flags.bits()
}

fn count(insn: &Insn, before: &State, index: u32) -> u64 {
    let count = match insn.kind(index) {
        OperandKind::Imm => insn.imm,
        _ => before.gpr[Gpr::Rcx as usize],
    };
    count & if insn.op_size == 8 { 63 } else { 31 }
}

fn shift(insn: &Insn, before: &State) -> Rflags {
    let double = matches!(insn.mnemonic(), Mnemonic::Shld | Mnemonic::Shrd);
    let width = 8 * u64::from(insn.op_size);
    match count(insn, before, if double { 2 } else { 1 }) {
        0 => Rflags::empty(),
        1 => Rflags::AF,
        n if double && n > width => Rflags::all(),
        n if n >= width => Rflags::AF | Rflags::OF | Rflags::CF,
        _ => Rflags::AF | Rflags::OF,
    }
}

/// What does not count in a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undefined {
    /// Flags.
    pub flags: u64,
    /// Everything: the result itself.
    pub result: bool,
    /// Addresses of data.
    pub data: Range<u64>,
}

/// What `insn` leaves undefined by the SDM, or to the CPU's maker, when it starts from `before`.
/// `operand` is where its memory operand is.
pub fn undefined(insn: &Insn, before: &State, operand: Option<u64>) -> Undefined {
    let width = 8 * u64::from(insn.op_size);
    let result = match insn.mnemonic() {
        Mnemonic::Shld | Mnemonic::Shrd => count(insn, before, 2) > width,
        Mnemonic::Bswap => insn.op_size == 2,
        _ => false,
    };
    // Where the x87's last instruction and operand are: AMD keeps them with an exception only.
    let pointers = match insn.code {
        Code::Fnstenv_m14byte | Code::Fnsave_m94byte => 6..14,
        Code::Fnstenv_m28byte | Code::Fnsave_m108byte => 12..28,
        _ => 0..0,
    };
    let at = operand.unwrap_or(0);
    let data = at + pointers.start..at + pointers.end;
    Undefined { flags: undefined_flags(insn, before), result, data }
}
