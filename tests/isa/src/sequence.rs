//! Random sequences of instructions with branches.
//!
//! Sequences end: branches go forward, but for loops on a counter nothing else writes. Memory
//! operands are aimed by a MOV before the instruction; what leaves flags undefined is followed by
//! a comparison, so that every flag the next instruction sees is defined.

use std::fmt::Write;
use std::sync::OnceLock;

use iced_x86::{
    Code, Decoder, DecoderOptions, Instruction, InstructionInfoFactory, Mnemonic, OpAccess,
    Register,
};

use crate::forms::{CONDITIONAL, Form, INTEGER, Instance, LEGACY, LONG, STRING, vector_and_float};
use crate::{CODE, Case, MIDDLE, Random, State, forms, is_inside, undefined};

/// Instructions of a sequence, those that prepare others apart.
const LENGTH_MAX: u64 = 64;
/// How far a branch goes, in instructions.
const REACH_MAX: u64 = 12;
/// Rounds of a loop.
const ROUNDS_MAX: u64 = 6;
/// The register of 64-bit and of 32-bit code that counts rounds: R15 and EBP.
const COUNTERS: [u8; 2] = [15, 5];
const NOP: u8 = 0x90;

enum Part {
    /// An instruction.
    Plain(Vec<u8>),
    /// An instruction that goes to the part of this index, by a displacement of so many bytes.
    Branch { opcode: Vec<u8>, displacement: usize, target: usize },
    /// MOV of the address of a part into a register, and a jump there.
    Indirect { mov: u8, jump: [u8; 2], target: usize },
}

impl Part {
    fn size(&self) -> usize {
        match self {
            Self::Plain(bytes) => bytes.len(),
            Self::Branch { opcode, displacement, .. } => opcode.len() + displacement,
            Self::Indirect { jump, .. } => 1 + 4 + jump.len(),
        }
    }
}

/// A sequence.
pub struct Sequence {
    code_bits: u32,
    /// Encoded.
    parts: Vec<Vec<u8>>,
    rounds: u64,
}

impl Sequence {
    /// A random one.
    pub fn random(code_bits: u32, random: &mut Random) -> Self {
        let mut maker = Maker { code_bits, parts: Vec::new(), random };
        let length = 1 + maker.random.below(LENGTH_MAX);
        for _ in 0..length {
            match maker.random.below(24) {
                0..4 => maker.branch(),
                4 if code_bits == 64 => maker.neighbours(),
                _ => maker.instruction(),
            }
        }
        let parts = maker.encode();
        Self { code_bits, parts, rounds: random.below(ROUNDS_MAX) }
    }

    /// How many instructions.
    #[allow(clippy::len_without_is_empty, reason = "it never is")]
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// All of it.
    pub fn code(&self) -> Vec<u8> {
        self.parts.concat()
    }

    /// The same, with the counter of rounds.
    pub(crate) fn begin(&self, mut case: Case) -> Case {
        case.state.gpr[usize::from(counter(self.code_bits))] = self.rounds;
        case
    }

    /// So many instructions; INT3s for the rest, which branches may go to.
    pub fn beginning(&self, length: usize) -> Vec<u8> {
        self.parts[..length].concat()
    }

    /// In words.
    pub fn listing(&self, length: usize) -> String {
        let code = self.beginning(length);
        let mut text = String::from("\n");
        let decoder = Decoder::with_ip(self.code_bits, &code, CODE, DecoderOptions::NONE);
        for insn in decoder {
            let _ = writeln!(text, "    {:x} {:?}: {}", insn.ip(), insn.code(), show(&insn));
        }
        text
    }
}

fn show(insn: &Instruction) -> String {
    let mut text = String::new();
    iced_x86::FastFormatter::new().format(insn, &mut text);
    text
}

const fn counter(code_bits: u32) -> u8 {
    COUNTERS[if code_bits == 64 { 0 } else { 1 }]
}

struct Maker<'a> {
    code_bits: u32,
    parts: Vec<Part>,
    random: &'a mut Random,
}

impl Maker<'_> {
    fn plain(&mut self, bytes: &[u8]) {
        self.parts.push(Part::Plain(bytes.to_vec()));
    }

    /// MOV of a number into a register.
    fn set(&self, reg: u8, value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        if self.code_bits == 64 {
            bytes.push(0x48 | reg >> 3);
        }
        bytes.push(0xb8 | reg & 7);
        bytes.extend(&value.to_le_bytes()[..self.code_bits as usize / 8]);
        bytes
    }

    fn instruction(&mut self) {
        let Some(found) = (0..100).find_map(|_| self.candidate()) else { return };
        let mut bytes = Vec::new();
        for (reg, value) in &found.aims {
            bytes.extend(self.set(*reg, *value));
        }
        // No branch goes between here: with two operands that both fault, the order is the CPU's
        // own; and AMD's CPUs enter MMX state by a MASKMOVQ that faults.
        if !forms::implied(&found.insn) {
            self.parts.push(Part::Plain(std::mem::take(&mut bytes)));
        }
        bytes.extend(&found.bytes);
        if leaves_undefined_flags(&found) {
            bytes.extend([0x3c, self.random.number() as u8]); // CMP AL, number
        }
        self.parts.push(Part::Plain(bytes));
    }

    /// Accesses at small distances from the same registers, about the border of the two pages, and
    /// what comes between them.
    fn neighbours(&mut self) {
        let mut pick = |other: Option<u8>| loop {
            let reg = self.random.below(15) as u8;
            if reg != 4 && other != Some(reg) {
                return reg;
            }
        };
        let base = pick(None);
        let index = pick(Some(base));
        let scale = self.random.below(4) as u8;
        let indexed = self.random.one_in(3);
        let count = if indexed { self.random.below(16) } else { 0 };
        let start = MIDDLE - 0x90 + self.random.below(0x100);
        let aims = [(base, start.wrapping_sub(count << scale)), (index, count)];
        for (reg, value) in &aims[..1 + usize::from(indexed)] {
            let mov = self.set(*reg, *value);
            self.plain(&mov);
        }
        let sib = if indexed { scale << 6 | (index & 7) << 3 } else { 4 << 3 } | base & 7;
        let extension = if indexed { index >> 3 << 1 } else { 0 } | base >> 3;
        for _ in 0..2 + self.random.below(6) {
            let reg = loop {
                let reg = self.random.below(15) as u8;
                if reg != 4 && aims.iter().all(|(aimed, _)| *aimed != reg) {
                    break reg;
                }
            };
            match self.random.below(8) {
                0 if self.random.one_in(2) => self.branch(),
                0 => self.plain(&[0x49, 0xff, 0xc0 | reg & 1 | 2]), // INC R10 or R11
                1 => {
                    // LEA of another register and 1.
                    let other = self.random.below(8) as u8;
                    self.plain(&[
                        0x48 | reg >> 3 << 2,
                        0x8d,
                        0x44 | (reg & 7) << 3,
                        0x20 | other,
                        1,
                    ]);
                }
                _ => {
                    let rex = 0x40 | (self.random.below(2) as u8) << 3 | reg >> 3 << 2 | extension;
                    let opcode =
                        *self.random.pick(&[0x8a_u8, 0x8b, 0x8b, 0x88, 0x89, 0x01, 0x03, 0x3b]);
                    let disp = self.random.below(0x60) as u8;
                    self.plain(&[rex, opcode, 0x44 | (reg & 7) << 3, sib, disp]);
                }
            }
        }
    }

    fn candidate(&mut self) -> Option<Instance> {
        let tables: &[&[Form]] = match self.code_bits {
            64 => &[INTEGER, INTEGER, INTEGER, CONDITIONAL, LONG, STRING],
            _ => &[INTEGER, INTEGER, INTEGER, CONDITIONAL, LEGACY, STRING],
        };
        let choice = self.random.below(tables.len() as u64 + 2) as usize;
        let found = match tables.get(choice) {
            Some(forms) => {
                let mut form = *self.random.pick(forms);
                if choice == 5 && self.random.one_in(2) {
                    form = form.prefix(*self.random.pick(&[0xf2, 0xf3]));
                }
                form.instance(self.code_bits, self.random)?
            }
            None if self.code_bits == 64 => {
                Instance::of(*self.random.pick(vectors()), self.random)?
            }
            None => return None,
        };
        (self.is_rare_enough(&found) && self.keeps_order(&found)).then_some(found)
    }

    /// What mostly raises an exception ends too many sequences.
    fn is_rare_enough(&mut self, found: &Instance) -> bool {
        match found.insn.mnemonic() {
            _ if !found.operand.is_none_or(is_inside) => self.random.one_in(16),
            Mnemonic::Div | Mnemonic::Idiv | Mnemonic::Ud2 | Mnemonic::Aam => {
                self.random.one_in(16)
            }
            _ => true,
        }
    }

    /// It leaves the stack pointer and the counter alone, and its result is defined.
    fn keeps_order(&self, found: &Instance) -> bool {
        let counter = counter(self.code_bits);
        if found.aims.iter().any(|(reg, _)| *reg == 4 || *reg == counter) {
            return false;
        }
        // Counts are what chance makes of them by then.
        let rcx = |rcx| {
            let mut state = State::default();
            state.gpr[1] = rcx;
            undefined(&found.insn, &state, found.operand)
        };
        if (0..64).map(rcx).any(|u| u.result || !u.data.is_empty()) {
            return false;
        }
        let insn = Decoder::new(self.code_bits, &found.bytes, DecoderOptions::NONE).decode();
        let moves_stack = insn.is_stack_instruction()
            && insn.op0_register().full_register() != Register::RSP
            && !matches!(insn.mnemonic(), Mnemonic::Leave | Mnemonic::Popa | Mnemonic::Popad);
        let kept = [(4, Register::RSP), (counter, full(counter))];
        let mut factory = InstructionInfoFactory::new();
        let info = factory.info(&insn);
        info.used_registers().iter().all(|used| {
            let reads = matches!(used.access(), OpAccess::Read | OpAccess::CondRead);
            let register = used.register().full_register();
            let keeps = kept.iter().all(|(_, kept)| *kept != register);
            reads || keeps || (moves_stack && register == Register::RSP)
        })
    }

    /// A part some way ahead.
    fn ahead(&mut self) -> usize {
        self.parts.len() + 2 + self.random.below(REACH_MAX) as usize
    }

    fn branch(&mut self) {
        let condition = self.random.below(16) as u8;
        let target = self.ahead();
        let branch = |opcode: &[u8], displacement, target| Part::Branch {
            opcode: opcode.to_vec(),
            displacement,
            target,
        };
        match self.random.below(9) {
            0 | 1 => self.parts.push(branch(&[0x0f, 0x80 | condition], 4, target)),
            2 => self.parts.push(branch(&[0x70 | condition], 1, target)),
            3 => self.parts.push(branch(&[0xe9], 4, target)),
            4 => self.parts.push(branch(&[0xe8], 4, target)), // CALL; the return address is data
            5 => {
                // LOOPNE, LOOPE, LOOP, JRCXZ
                self.parts.push(branch(&[0xe0 | self.random.below(4) as u8], 1, target));
            }
            6 => self.subroutine(),
            7 => self.indirect(target),
            _ => self.back(),
        }
    }

    /// DEC of the counter; JG to a part before.
    fn back(&mut self) {
        let target = self.parts.len().saturating_sub(1 + self.random.below(REACH_MAX) as usize);
        let dec: &[u8] = if self.code_bits == 64 { &[0x49, 0xff, 0xcf] } else { &[0x4d] };
        let opcode = [dec, &[0x0f, 0x8f]].concat();
        self.parts.push(Part::Branch { opcode, displacement: 4, target });
    }

    /// CALL over a JMP; an instruction; RET to the JMP, which goes behind it.
    fn subroutine(&mut self) {
        let at = self.parts.len();
        self.parts.push(Part::Branch { opcode: vec![0xe8], displacement: 4, target: at + 2 });
        self.plain(&[NOP]); // becomes the JMP
        self.instruction();
        match self.random.below(3) {
            0 => self.plain(&[0xc2, 0, 0]),
            _ => self.plain(&[0xc3]),
        }
        let target = self.parts.len();
        self.parts[at + 1] = Part::Branch { opcode: vec![0xe9], displacement: 4, target };
    }

    /// JMP or CALL of an address in a register.
    fn indirect(&mut self, target: usize) {
        let reg = *self.random.pick(&[0_u8, 1, 2, 3, 6, 7]);
        let jump = *self.random.pick(&[0xe0, 0xd0]);
        self.parts.push(Part::Indirect { mov: 0xb8 | reg, jump: [0xff, jump | reg], target });
    }

    fn encode(self) -> Vec<Vec<u8>> {
        let mut starts = vec![0];
        for part in &self.parts {
            starts.push(starts[starts.len() - 1] + part.size());
        }
        let end = starts.len() - 1;
        let encode = |(i, part): (usize, Part)| {
            let size = part.size();
            match part {
                Part::Plain(bytes) => bytes,
                Part::Branch { mut opcode, displacement, target } => {
                    let distance = starts[target.min(end)] as i64 - starts[i + 1] as i64;
                    if displacement == 1 && i8::try_from(distance).is_err() {
                        return vec![NOP; size];
                    }
                    opcode.extend(&distance.to_le_bytes()[..displacement]);
                    opcode
                }
                Part::Indirect { mov, jump, target } => {
                    let address = (CODE + starts[target.min(end)] as u64) as u32;
                    [&[mov], &address.to_le_bytes()[..], &jump].concat()
                }
            }
        };
        self.parts.into_iter().enumerate().map(encode).collect()
    }
}

fn full(number: u8) -> Register {
    if number == 15 { Register::R15 } else { Register::RBP }
}

fn leaves_undefined_flags(found: &Instance) -> bool {
    let with = |rcx| {
        let mut state = State::default();
        state.gpr[1] = rcx;
        undefined(&found.insn, &state, found.operand).flags != 0
    };
    (0..64).any(with)
}

/// All encodings but those whose result depends on the CPU's maker.
fn vectors() -> &'static [Code] {
    static ALL: OnceLock<Vec<Code>> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut all = vector_and_float();
        all.retain(|code| *code != Code::Ldmxcsr_m32);
        all
    })
}
