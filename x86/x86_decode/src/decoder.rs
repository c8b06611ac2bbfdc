//! From bytes to [`Insn`].

use iced_x86::{DecoderError, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use x86_state::{CpuFeatures, SegReg};

use crate::insn::{GPR_NONE, GPR_RIP};
use crate::supported::{ends_block, is_supported};
use crate::{Insn, InsnFlags, OperandKind};

/// The longest instruction (SDM vol. 2A, 2.3.11); longer ones raise #GP.
pub const INSN_SIZE_MAX: usize = 15;

/// Hint NOPs (prefetches and ENDBR among them) are NOPs; without BMI and LZCNT, their prefixes on
/// BSF and BSR are ignored.
const OPTIONS: u32 = DecoderOptions::FORCE_RESERVED_NOP
    | DecoderOptions::NO_MPFX_0FBC
    | DecoderOptions::NO_MPFX_0FBD
    | DecoderOptions::NO_WBNOINVD;

/// Why there is no instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// Undefined, or not in the profiles: #UD. Takes this many bytes.
    Invalid(u8),
    /// Longer than [`INSN_SIZE_MAX`]: #GP.
    TooLong,
    /// The bytes end before the instruction does.
    Truncated,
}

/// Decodes the instructions of one block in turn.
pub struct Decoder<'a> {
    inner: iced_x86::Decoder<'a>,
    bytes: &'a [u8],
    code_bits: u32,
    features: CpuFeatures,
}

impl<'a> Decoder<'a> {
    /// For the bytes from the beginning of a block; `code_bits` is 16, 32 or 64.
    ///
    /// # Panics
    /// When `code_bits` is something else.
    pub fn new(code_bits: u32, bytes: &'a [u8]) -> Self {
        let inner = iced_x86::Decoder::with_ip(code_bits, bytes, 0, OPTIONS);
        Self { inner, bytes, code_bits, features: CpuFeatures::all() }
    }

    /// For a CPU that has these features only.
    #[must_use]
    pub fn with_features(self, features: CpuFeatures) -> Self {
        Self { features, ..self }
    }

    /// The next instruction.
    ///
    /// # Errors
    /// When there is none. What the caller does then is not to go on.
    pub fn next_insn(&mut self) -> Result<Insn, DecodeError> {
        let start = self.inner.position();
        let mut found = Instruction::default();
        self.inner.decode_out(&mut found);
        if found.is_invalid() {
            return Err(error(&self.inner, self.bytes, start));
        }
        if !is_supported(&found, self.features) {
            return Err(DecodeError::Invalid(found.len() as u8));
        }
        Ok(self.convert(&found, start))
    }

    fn convert(&self, found: &Instruction, start: usize) -> Insn {
        let mut insn = Insn::invalid(start as u16, found.len() as u8);
        insn.code = found.code();
        insn.flags = self.flags(found);
        let (op_prefix, addr_prefix) = self.prefixes(start);
        insn.op_prefix = op_prefix;
        insn.addr_size = match (self.code_bits, addr_prefix) {
            (64, false) => 8,
            (64, true) | (32, false) | (16, true) => 4,
            _ => 2,
        };
        for i in 0..found.op_count().min(3) {
            self.operand(&mut insn, found, i);
        }
        insn.op_size = operand_size(found);
        if found.mnemonic() == Mnemonic::Enter {
            insn.imm = u64::from(found.immediate16()) | u64::from(found.immediate8_2nd()) << 16;
        }
        insn
    }

    fn flags(&self, found: &Instruction) -> InsnFlags {
        let mut flags = InsnFlags::empty();
        flags.set(InsnFlags::LOCK, found.has_lock_prefix());
        flags.set(InsnFlags::REP, found.has_rep_prefix());
        flags.set(InsnFlags::REPNE, found.has_repne_prefix());
        flags.set(InsnFlags::ENDS_BLOCK, ends_block(found));
        flags.set(InsnFlags::CODE_64, self.code_bits == 64);
        flags
    }

    /// Whether there is an operand-size and an address-size prefix.
    fn prefixes(&self, start: usize) -> (bool, bool) {
        let (mut op, mut addr) = (false, false);
        for byte in &self.bytes[start..] {
            match byte {
                0x66 => op = true,
                0x67 => addr = true,
                0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0xf0 | 0xf2 | 0xf3 => {}
                0x40..=0x4f if self.code_bits == 64 => {}
                _ => break,
            }
        }
        (op, addr)
    }

    fn operand(&self, insn: &mut Insn, found: &Instruction, index: u32) {
        let kind = match found.op_kind(index) {
            OpKind::Register => {
                let reg = register_number(found.op_register(index));
                return insn.set_operand(index, OperandKind::Reg, reg);
            }
            OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => {
                let next = insn.offset as u64 + u64::from(insn.len);
                let distance = found.near_branch_target().wrapping_sub(next);
                insn.imm = match found.op_kind(index) {
                    OpKind::NearBranch16 => distance as i16 as u64,
                    OpKind::NearBranch32 => distance as i32 as u64,
                    _ => distance,
                };
                OperandKind::Imm
            }
            OpKind::FarBranch16 | OpKind::FarBranch32 => {
                let offset = match found.op_kind(index) {
                    OpKind::FarBranch16 => u64::from(found.far_branch16()),
                    _ => u64::from(found.far_branch32()),
                };
                insn.imm = u64::from(found.far_branch_selector()) << 32 | offset;
                OperandKind::Imm
            }
            OpKind::Memory => {
                self.memory(insn, found);
                OperandKind::Mem
            }
            OpKind::MemorySegSI
            | OpKind::MemorySegESI
            | OpKind::MemorySegRSI
            | OpKind::MemorySegDI
            | OpKind::MemorySegEDI
            | OpKind::MemorySegRDI => {
                insn.seg = segment(found.memory_segment());
                insn.flags |= InsnFlags::MEM;
                OperandKind::Mem
            }
            OpKind::MemoryESDI | OpKind::MemoryESEDI | OpKind::MemoryESRDI => {
                insn.flags |= InsnFlags::MEM;
                OperandKind::Mem
            }
            _ => {
                insn.imm = found.immediate(index);
                OperandKind::Imm
            }
        };
        insn.set_operand(index, kind, 0);
    }

    fn memory(&self, insn: &mut Insn, found: &Instruction) {
        insn.flags |= InsnFlags::MEM;
        insn.seg = segment(found.memory_segment());
        insn.base = match found.memory_base() {
            Register::None => GPR_NONE,
            Register::RIP | Register::EIP => GPR_RIP,
            base => register_number(base),
        };
        if found.memory_index() != Register::None {
            insn.index = register_number(found.memory_index());
            insn.scale = found.memory_index_scale().trailing_zeros() as u8;
        }
        // Of a RIP-relative operand, iced gives the target of an instruction decoded at 0.
        insn.disp = match found.memory_base() {
            Register::EIP => found.memory_displacement32() as i32 as u64,
            _ => found.memory_displacement64(),
        };
        if insn.addr_size == 2 {
            insn.disp = insn.disp as i16 as u64;
        } else if insn.addr_size == 4 {
            insn.disp = insn.disp as i32 as u64;
        }
    }
}

/// Why there is no instruction at `start`.
pub(crate) fn error(inner: &iced_x86::Decoder<'_>, bytes: &[u8], start: usize) -> DecodeError {
    let left = bytes.len() - start;
    let used = inner.position() - start;
    match inner.last_error() {
        DecoderError::NoMoreBytes if left < INSN_SIZE_MAX => DecodeError::Truncated,
        // What is invalid after fifteen bytes is so for want of a sixteenth.
        _ if used >= INSN_SIZE_MAX => DecodeError::TooLong,
        _ => DecodeError::Invalid(used as u8),
    }
}

pub(crate) fn segment(reg: Register) -> SegReg {
    match reg {
        Register::ES => SegReg::Es,
        Register::CS => SegReg::Cs,
        Register::SS => SegReg::Ss,
        Register::FS => SegReg::Fs,
        Register::GS => SegReg::Gs,
        _ => SegReg::Ds,
    }
}

fn register_number(reg: Register) -> u8 {
    let number = reg.number() as u8;
    if !reg.is_gpr8() {
        return number;
    }
    // iced counts AL CL DL BL AH CH DH BH SPL BPL SIL DIL R8L...
    match number {
        0..=3 => number,
        4..=7 => number + 12,
        _ => number - 4,
    }
}

pub(crate) fn operand_size(found: &Instruction) -> u8 {
    let bytes = match found.op0_kind() {
        _ if found.op_count() == 0 => found.stack_pointer_increment().unsigned_abs() as usize,
        OpKind::Register if found.op0_register().is_segment_register() => {
            match found.stack_pointer_increment() {
                0 => 2,
                n => n.unsigned_abs() as usize,
            }
        }
        OpKind::Register => found.op0_register().size(),
        OpKind::NearBranch16
        | OpKind::FarBranch16
        | OpKind::Immediate16
        | OpKind::Immediate8to16 => 2,
        OpKind::NearBranch32
        | OpKind::FarBranch32
        | OpKind::Immediate32
        | OpKind::Immediate8to32 => 4,
        OpKind::NearBranch64
        | OpKind::Immediate64
        | OpKind::Immediate8to64
        | OpKind::Immediate32to64 => 8,
        OpKind::Immediate8 | OpKind::Immediate8_2nd => 1,
        _ => found.memory_size().size(),
    };
    bytes.min(255) as u8
}
