//! What the SDM leaves undefined.

use x86_decode::{Insn, Mnemonic, OperandKind};
use x86_state::Gpr;
use x86_state::bits::Rflags;

use crate::State;

/// Flags that `insn` leaves undefined, when it starts from `before` (SDM vol. 1, appendix A, and
/// the instructions' pages).
pub fn undefined_flags(insn: &Insn, before: &State) -> u64 {
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

/// The result itself is undefined, not only flags.
pub(crate) fn undefined_result(insn: &Insn, before: &State) -> bool {
    let width = 8 * u64::from(insn.op_size);
    match insn.mnemonic() {
        Mnemonic::Shld | Mnemonic::Shrd => count(insn, before, 2) > width,
        Mnemonic::Bswap => insn.op_size == 2,
        _ => false,
    }
}
