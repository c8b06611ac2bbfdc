//! Instructions: tables of forms, and random instances of them.

mod encoded;
mod integer;
mod vector;

use x86_decode::{Decoder, GPR_NONE, GPR_RIP, Insn, Mnemonic, OperandKind};

pub use encoded::{Form, ModRm};
pub use integer::{CONDITIONAL, INTEGER, LEGACY, LONG, STRING};
pub use vector::vector_and_float;

use x86_state::SegReg;

use crate::{DATA, DATA_SIZE, GS_BASE, MIDDLE, Random};

/// One instruction, and what registers have to hold so that its operands are in the data.
#[derive(Debug, Clone)]
pub struct Instance {
    /// Encoded.
    pub bytes: Vec<u8>,
    /// Decoded.
    pub insn: Insn,
    /// Registers by encoding number, and their values.
    pub aims: Vec<(u8, u64)>,
    /// Where its memory operand is, when it can be told.
    pub operand: Option<u64>,
}

impl Instance {
    /// Of these bytes. `None` when the decoder does not know them, or their operands cannot be
    /// aimed at the data.
    fn new(mut bytes: Vec<u8>, code_bits: u32, random: &mut Random) -> Option<Self> {
        let insn = Decoder::new(code_bits, &bytes).next_insn().ok()?;
        bytes.truncate(usize::from(insn.len));
        let mut instance = Self { bytes, insn, aims: Vec::new(), operand: None };
        instance.aim(code_bits, random).then_some(instance)
    }

    /// False when it cannot.
    fn aim(&mut self, code_bits: u32, random: &mut Random) -> bool {
        let insn = self.insn;
        if insn.addr_size == 2 {
            return false;
        }
        if insn.mnemonic() == Mnemonic::Leave {
            self.aims.push((5, MIDDLE + 0x100));
        }
        if insn.is_mem() && implied(&insn) {
            self.aim_string(random);
            return true;
        }
        if is_bit_test(&insn)
            && insn.kind(0) == OperandKind::Mem
            && insn.kind(1) == OperandKind::Reg
        {
            if insn.base == insn.reg1() || insn.index == insn.reg1() {
                return false;
            }
            let offset = random.below(8192) as i64 - 4096;
            self.aims.push((insn.reg1() & 15, offset as u64));
        }
        if !insn.is_mem() || insn.mnemonic() == Mnemonic::Lea {
            return true;
        }
        if insn.base == GPR_NONE || insn.base == GPR_RIP || insn.base == insn.index {
            return false;
        }
        if insn.base == 4 && matches!(insn.mnemonic(), Mnemonic::Push | Mnemonic::Pop) {
            return false; // one register cannot aim at both operand and stack
        }
        let mut target = match random.below(24) {
            0 => DATA - 8 + random.below(16),
            1 => DATA + DATA_SIZE as u64 - 16 + random.below(20),
            2 => MIDDLE - 16 + random.below(16),
            3 if insn.addr_size == 8 => MIDDLE ^ 1 << (47 + random.below(16)),
            _ => MIDDLE + random.below(64),
        };
        if !random.one_in(4) {
            target &= !15;
        }
        self.operand = Some(target);
        if insn.seg == SegReg::Gs {
            target = target.wrapping_sub(GS_BASE);
        }
        if insn.index != GPR_NONE {
            let index = random.below(64);
            self.aims.push((insn.index, index));
            target = target.wrapping_sub(index << insn.scale);
        }
        let mut base = target.wrapping_sub(insn.disp);
        if insn.addr_size == 4 {
            base &= 0xffff_ffff;
            base |= if code_bits == 64 { random.number() << 32 } else { 0 };
        }
        self.aims.push((insn.base, base));
        true
    }

    /// String instructions: RSI, RDI, RBX and a short count.
    fn aim_string(&mut self, random: &mut Random) {
        for reg in [6, 7, 3] {
            self.aims.push((reg, MIDDLE + random.below(64)));
        }
        self.aims.push((1, random.below(40)));
    }
}

/// Its memory operands are at RSI, RDI or RBX.
pub(crate) fn implied(insn: &Insn) -> bool {
    insn.is_string()
        || matches!(insn.mnemonic(), Mnemonic::Xlatb | Mnemonic::Maskmovq | Mnemonic::Maskmovdqu)
}

fn is_bit_test(insn: &Insn) -> bool {
    matches!(insn.mnemonic(), Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc)
}
