//! Random instances of instruction forms.

use x86_decode::{Decoder, GPR_NONE, GPR_RIP, Insn, Mnemonic, OperandKind};

use crate::{DATA, DATA_SIZE, Random, State};

/// What follows the opcode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModRm {
    /// Nothing.
    None,
    /// Any registers or memory.
    Any,
    /// The reg field is part of the opcode.
    Digit(u8),
    /// Registers only.
    Reg,
    /// Memory only.
    Mem,
    /// Memory only, the reg field being part of the opcode.
    MemDigit(u8),
}

/// How an instruction is encoded.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    /// A mandatory prefix.
    pub prefix: Option<u8>,
    /// Opcode bytes; with [`Form::low_register`], the low three bits of the last are random.
    pub opcode: &'static [u8],
    /// What follows.
    pub modrm: ModRm,
    /// Bytes of immediate; the decoder takes what it needs.
    pub immediate: u8,
    /// 0x66 may stand before it, and changes the operand size.
    pub op_size: bool,
    /// The opcode names a register.
    pub low_register: bool,
    /// Exists in 64-bit code.
    pub in_64: bool,
}

impl Form {
    /// An instruction with any ModRM and no immediate.
    pub const fn new(opcode: &'static [u8], modrm: ModRm) -> Self {
        Self {
            prefix: None,
            opcode,
            modrm,
            immediate: 0,
            op_size: true,
            low_register: false,
            in_64: true,
        }
    }

    /// With an immediate of up to so many bytes.
    pub const fn imm(mut self, bytes: u8) -> Self {
        self.immediate = bytes;
        self
    }

    /// With a mandatory prefix, and no operand-size prefix.
    pub const fn prefix(mut self, byte: u8) -> Self {
        self.prefix = Some(byte);
        self.op_size = false;
        self
    }

    /// Without an operand-size prefix.
    pub const fn one_size(mut self) -> Self {
        self.op_size = false;
        self
    }

    /// With a register in the opcode.
    pub const fn low_register(mut self) -> Self {
        self.low_register = true;
        self
    }

    /// In 32-bit code only.
    pub const fn legacy(mut self) -> Self {
        self.in_64 = false;
        self
    }
}

/// One instruction.
pub(crate) struct Instance {
    pub(crate) bytes: Vec<u8>,
    pub(crate) insn: Insn,
}

/// The middle of data: where memory operands are.
pub(crate) const MIDDLE: u64 = DATA + DATA_SIZE as u64 / 2;

/// An instance the decoder knows and whose memory operand can be aimed; `None` when chance made
/// another.
pub(crate) fn instance(form: &Form, code_bits: u32, random: &mut Random) -> Option<Instance> {
    let mut bytes = Vec::new();
    if form.op_size && random.one_in(4) {
        bytes.push(0x66);
    }
    if random.one_in(16) {
        bytes.push(0x67);
    }
    bytes.extend(form.prefix);
    let memory = !matches!(form.modrm, ModRm::None | ModRm::Reg);
    if memory && form.prefix.is_none() && random.one_in(8) {
        bytes.push(0xf0); // most cannot have it: then the decoder says no
    }
    if code_bits == 64 && !random.one_in(3) {
        bytes.push(0x40 | random.below(16) as u8);
    }
    bytes.extend(form.opcode);
    if form.low_register
        && let Some(last) = bytes.last_mut()
    {
        *last |= random.below(8) as u8;
    }
    push_modrm(form.modrm, code_bits, random, &mut bytes);
    for _ in 0..form.immediate {
        let byte = *random.pick(&[0, 1, 0x7f, 0x80, 0xff, random.0 as u8, (random.0 >> 8) as u8]);
        bytes.push(byte);
        random.number();
    }
    let insn = Decoder::new(code_bits, &bytes).next_insn().ok()?;
    bytes.truncate(usize::from(insn.len));
    Some(Instance { bytes, insn })
}

fn push_modrm(kind: ModRm, code_bits: u32, random: &mut Random, bytes: &mut Vec<u8>) {
    let (memory, reg) = match kind {
        ModRm::None => return,
        ModRm::Any => (random.one_in(2), random.below(8) as u8),
        ModRm::Digit(digit) => (random.one_in(2), digit),
        ModRm::Reg => (false, random.below(8) as u8),
        ModRm::Mem => (true, random.below(8) as u8),
        ModRm::MemDigit(digit) => (true, digit),
    };
    let mode = if memory { random.below(3) as u8 } else { 3 };
    let mut rm = random.below(8) as u8;
    if mode == 0 && rm == 5 {
        rm = 3; // no base: nothing to aim with
    }
    debug_assert!(code_bits >= 32);
    bytes.push(mode << 6 | reg << 3 | rm);
    if memory && rm == 4 {
        let mut sib = random.number() as u8;
        if mode == 0 && sib & 7 == 5 {
            sib ^= 1;
        }
        bytes.push(sib);
    }
    match mode {
        1 => bytes.push(random.number() as u8),
        2 => bytes.extend((random.number() as u32 & 0x8000_ffff).to_le_bytes()),
        _ => {}
    }
}

/// Sets registers so that memory operands are in the data. False when they cannot be.
pub(crate) fn aim(insn: &Insn, code_bits: u32, random: &mut Random, state: &mut State) -> bool {
    let narrow = |value: u64| if insn.addr_size == 4 { value & 0xffff_ffff } else { value };
    if insn.addr_size == 2 || insn.is_mem() && implied(insn) {
        return aim_string(insn, random, state);
    }
    if is_bit_test(insn) && insn.kind(0) == OperandKind::Mem && insn.kind(1) == OperandKind::Reg {
        if insn.base == insn.reg1() || insn.index == insn.reg1() {
            return false;
        }
        let offset = random.below(8192) as i64 - 4096;
        state.gpr[usize::from(insn.reg1() & 15)] = offset as u64;
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
    let mut target = MIDDLE + random.below(64);
    if random.one_in(2) {
        target &= !15;
    }
    if insn.index != GPR_NONE {
        let index = random.below(64);
        state.gpr[usize::from(insn.index)] = index;
        target -= index << insn.scale;
    }
    let base = narrow(target.wrapping_sub(insn.disp));
    let junk = if insn.addr_size == 4 && code_bits == 64 { random.number() << 32 } else { 0 };
    state.gpr[usize::from(insn.base)] = base | junk;
    true
}

fn implied(insn: &Insn) -> bool {
    insn.is_string()
        || insn.mnemonic() == Mnemonic::Xlatb
        || insn.mnemonic() == Mnemonic::Maskmovq
        || insn.mnemonic() == Mnemonic::Maskmovdqu
}

/// String instructions: RSI, RDI and a short count.
fn aim_string(insn: &Insn, random: &mut Random, state: &mut State) -> bool {
    if insn.addr_size == 2 {
        return false;
    }
    let mut near = |spread| MIDDLE + random.below(spread);
    state.gpr[6] = near(64);
    state.gpr[7] = near(64);
    state.gpr[3] = near(64);
    state.gpr[1] = random.below(40);
    true
}

fn is_bit_test(insn: &Insn) -> bool {
    matches!(insn.mnemonic(), Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc)
}
