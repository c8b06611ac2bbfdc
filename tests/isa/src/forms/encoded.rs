//! Forms by their opcode bytes.

use super::Instance;
use crate::Random;

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

impl Form {
    /// A random instance; `None` when chance made what does not exist or cannot be aimed.
    pub fn instance(&self, code_bits: u32, random: &mut Random) -> Option<Instance> {
        let mut bytes = Vec::new();
        if self.op_size && random.one_in(4) {
            bytes.push(0x66);
        }
        if random.one_in(16) {
            bytes.push(0x67);
        }
        if code_bits == 64 && random.one_in(16) {
            bytes.push(0x65);
        }
        bytes.extend(self.prefix);
        let memory = !matches!(self.modrm, ModRm::None | ModRm::Reg);
        if memory && self.prefix.is_none() && random.one_in(8) {
            bytes.push(0xf0); // most cannot have it: then the decoder says no
        }
        if code_bits == 64 && !random.one_in(3) {
            bytes.push(0x40 | random.below(16) as u8);
        }
        bytes.extend(self.opcode);
        if self.low_register
            && let Some(last) = bytes.last_mut()
        {
            *last |= random.below(8) as u8;
        }
        push_modrm(self.modrm, code_bits, random, &mut bytes);
        for _ in 0..self.immediate {
            let some = random.number();
            bytes.push(*random.pick(&[0, 1, 0x7f, 0x80, 0xff, some as u8, (some >> 8) as u8]));
        }
        Instance::new(bytes, code_bits, random)
    }
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
