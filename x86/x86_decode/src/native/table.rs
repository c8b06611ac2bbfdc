//! What is the same for all instructions of a [`Code`]: derived once from the decoder's own
//! descriptions, so that decoding looks up one row.

use std::sync::OnceLock;

use iced_x86::{
    Code, CodeSize, EncodingKind, Instruction, InstructionInfoFactory, MandatoryPrefix, Mnemonic,
    OpAccess, OpCodeOperandKind, OpKind, Register, RflagsBits,
};

use super::{Access, Class, Encoding, Features, File, flag};
use crate::decoder::operand_size;

mod class;

/// In a byte of accesses: the register is read.
pub(super) const READ: u8 = 1;
/// The register may be written.
pub(super) const WRITTEN: u8 = 2;

/// One row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) encoding: Encoding,
    pub(super) class: Class,
    pub(super) reg: Field,
    pub(super) rm: Field,
    pub(super) opcode: Field,
    pub(super) vvvv: Field,
    /// The ModRM byte or the absolute address makes a memory operand, unless mod is 3.
    pub(super) memory: bool,
    /// The memory operand's address comes with the opcode.
    pub(super) absolute: bool,
    pub(super) access: Access,
    pub(super) size_bytes: u16,
    pub(super) aligned: u8,
    pub(super) op_size: u8,
    pub(super) implicit_read: u16,
    pub(super) implicit_written: u16,
    pub(super) flags_read: u8,
    pub(super) flags_written: u8,
    /// The immediate is a count, of which zero leaves the flags alone.
    pub(super) counts: bool,
    /// With memory, a register adds to the address.
    pub(super) bit_string: bool,
    pub(super) rep_mandatory: bool,
    pub(super) conditional: bool,
    pub(super) vector: bool,
    pub(super) features: Features,
    /// What not every profile has.
    pub(super) needs: x86_state::CpuFeatures,
}

/// A field that may name a register.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub(super) file: File,
    pub(super) access: u8,
}

const ABSENT: Field = Field { file: File::None, access: 0 };

/// The rows, by code.
pub(super) fn rows() -> &'static [Row] {
    static ROWS: OnceLock<Vec<Row>> = OnceLock::new();
    ROWS.get_or_init(|| {
        let mut factory = InstructionInfoFactory::new();
        Code::values().map(|code| row(code, &mut factory)).collect()
    })
}

fn row(code: Code, factory: &mut InstructionInfoFactory) -> Row {
    let encoding = match code.encoding() {
        EncodingKind::Legacy => Encoding::Legacy,
        EncodingKind::VEX => Encoding::Vex,
        _ => Encoding::Other,
    };
    let features = class::features(code);
    let mut row = Row {
        encoding,
        class: Class::System,
        reg: ABSENT,
        rm: ABSENT,
        opcode: ABSENT,
        vvvv: ABSENT,
        memory: false,
        absolute: false,
        access: Access::None,
        size_bytes: 0,
        aligned: 1,
        op_size: 0,
        implicit_read: 0,
        implicit_written: 0,
        flags_read: 0,
        flags_written: 0,
        counts: false,
        bit_string: matches!(code.mnemonic(), Mnemonic::Btc | Mnemonic::Btr | Mnemonic::Bts)
            || code.mnemonic() == Mnemonic::Bt,
        rep_mandatory: false,
        conditional: class::has_condition(code.mnemonic()) || code.is_jcc_short_or_near(),
        vector: class::is_vector(code),
        features,
        needs: crate::supported::needs(code),
    };
    if encoding == Encoding::Other || code.op_code().op_count() > 4 {
        row.features |= Features::OTHER;
        return row;
    }
    row.class = class::class(code, features);
    let mandatory = code.op_code().mandatory_prefix();
    row.rep_mandatory = matches!(mandatory, MandatoryPrefix::PF3 | MandatoryPrefix::PF2);
    describe(&mut row, code, factory);
    row
}

fn describe(row: &mut Row, code: Code, factory: &mut InstructionInfoFactory) {
    let sample = sample(code);
    row.op_size = operand_size(&sample);
    let info = factory.info(&sample);
    for (i, kind) in (0..).zip(operand_kinds(code)) {
        row.operand(kind, info.op_access(i));
    }
    if row.memory {
        row.size_bytes = sample.memory_size().size() as u16;
        row.aligned = class::alignment(code, row.size_bytes);
    }
    for used in info.used_registers() {
        let (reg, access) = (used.register(), used.access());
        let number = reg.full_register().number();
        if !reg.is_gpr() || number >= SAMPLED {
            continue;
        }
        let access = register_access(access, reg.size());
        row.implicit_read |= u16::from(access & READ != 0) << number;
        row.implicit_written |= u16::from(access & WRITTEN != 0) << number;
    }
    if row.class == Class::String {
        (row.implicit_read, row.implicit_written) = class::string_registers(code.mnemonic());
    }
    row.flags_read = flags(sample.rflags_read());
    row.flags_written = flags(sample.rflags_modified());
    if operand_kinds(code).any(|kind| kind == OpCodeOperandKind::cl) {
        row.flags_written = 0;
    }
    row.counts = class::counts(code.mnemonic())
        && operand_kinds(code).any(|kind| kind == OpCodeOperandKind::imm8);
    if matches!(code.mnemonic(), Mnemonic::Rcl | Mnemonic::Rcr) {
        row.flags_read |= flag::CF;
        if row.counts && row.op_size <= 2 {
            // Nine times round a byte and its carry is where it was, flags and all.
            row.flags_written = 0;
        }
    }
}

impl Row {
    fn operand(&mut self, kind: OpCodeOperandKind, access: OpAccess) {
        use OpCodeOperandKind as K;
        let field = |file, size| Field { file, access: register_access(access, size) };
        match kind {
            K::r8_or_mem => self.rm = field(File::Gpr8, 1),
            K::r16_or_mem | K::r16_rm => self.rm = field(File::Gpr, 2),
            K::r32_or_mem | K::r32_or_mem_mpx | K::r64_or_mem | K::r64_or_mem_mpx => {
                self.rm = field(File::Gpr, 4);
            }
            K::r32_rm | K::r64_rm => self.rm = field(File::Gpr, 4),
            K::mm_or_mem | K::mm_rm => self.rm = field(File::Mmx, 8),
            K::xmm_or_mem | K::ymm_or_mem | K::xmm_rm | K::ymm_rm => {
                self.rm = field(File::Vector, 16);
            }
            K::r8_reg => self.reg = field(File::Gpr8, 1),
            K::r16_reg | K::r16_reg_mem => self.reg = field(File::Gpr, 2),
            K::r32_reg | K::r32_reg_mem | K::r64_reg | K::r64_reg_mem => {
                self.reg = field(File::Gpr, 4);
            }
            K::mm_reg => self.reg = field(File::Mmx, 8),
            K::xmm_reg | K::ymm_reg => self.reg = field(File::Vector, 16),
            K::seg_reg => self.reg = field(File::Segment, 2),
            K::cr_reg => self.reg = field(File::Control, 8),
            K::dr_reg => self.reg = field(File::Debug, 8),
            K::r8_opcode => self.opcode = field(File::Gpr8, 1),
            K::r16_opcode => self.opcode = field(File::Gpr, 2),
            K::r32_opcode | K::r64_opcode => self.opcode = field(File::Gpr, 4),
            K::r32_vvvv | K::r64_vvvv => self.vvvv = field(File::Gpr, 4),
            K::xmm_vvvv | K::ymm_vvvv => self.vvvv = field(File::Vector, 16),
            K::mem_offs => self.absolute = true,
            _ => {}
        }
        if is_memory(kind) {
            self.memory = true;
            self.access = memory_access(access);
        }
    }
}

fn operand_kinds(code: Code) -> impl Iterator<Item = OpCodeOperandKind> {
    let info = code.op_code();
    (0..info.op_count()).map(|i| info.op_kind(i))
}

fn is_memory(kind: OpCodeOperandKind) -> bool {
    use OpCodeOperandKind as K;
    matches!(
        kind,
        K::mem_offs
            | K::mem
            | K::mem_mpx
            | K::mem_mib
            | K::mem_vsib32x
            | K::mem_vsib64x
            | K::mem_vsib32y
            | K::mem_vsib64y
            | K::sibmem
            | K::r8_or_mem
            | K::r16_or_mem
            | K::r32_or_mem
            | K::r32_or_mem_mpx
            | K::r64_or_mem
            | K::r64_or_mem_mpx
            | K::mm_or_mem
            | K::xmm_or_mem
            | K::ymm_or_mem
            | K::k_or_mem
            | K::bnd_or_mem_mpx
    )
}

fn memory_access(access: OpAccess) -> Access {
    match access {
        OpAccess::None | OpAccess::NoMemAccess => Access::None,
        OpAccess::Read | OpAccess::CondRead => Access::Read,
        OpAccess::Write | OpAccess::CondWrite => Access::Write,
        OpAccess::ReadWrite | OpAccess::ReadCondWrite => Access::ReadWrite,
    }
}

/// What is written in part or perhaps is also read: the rest must be there.
fn register_access(access: OpAccess, size: usize) -> u8 {
    match access {
        OpAccess::None | OpAccess::NoMemAccess => 0,
        OpAccess::Read | OpAccess::CondRead => READ,
        OpAccess::Write if size > 2 => WRITTEN,
        _ => READ | WRITTEN,
    }
}

fn flags(bits: u32) -> u8 {
    [
        (RflagsBits::CF, flag::CF),
        (RflagsBits::PF, flag::PF),
        (RflagsBits::AF, flag::AF),
        (RflagsBits::ZF, flag::ZF),
        (RflagsBits::SF, flag::SF),
        (RflagsBits::OF, flag::OF),
    ]
    .iter()
    .filter(|(bit, _)| bits & bit != 0)
    .fold(0, |mask, (_, flag)| mask | flag)
}

/// From this register on, the operands of a [`sample`]: no instruction implies them.
const SAMPLED: usize = 12;

/// An instruction of the code, memory where it may be and no two registers the same, so that what
/// else it uses is implied.
fn sample(code: Code) -> Instruction {
    let mut insn = Instruction::default();
    insn.set_code(code);
    let is_64 = code.op_code().mode64();
    insn.set_code_size(if is_64 { CodeSize::Code64 } else { CodeSize::Code32 });
    for (i, kind) in (0..).zip(operand_kinds(code)) {
        let (kind, reg) = sample_operand(kind, i);
        insn.set_op_kind(i, kind);
        match (kind, reg) {
            (OpKind::Register, Some(reg)) => insn.set_op_register(i, reg),
            (OpKind::Memory, Some(base)) => insn.set_memory_base(base),
            (OpKind::Immediate8, _) => insn.set_immediate8(1),
            (OpKind::Immediate16, _) => insn.set_immediate16(1),
            (OpKind::Immediate32, _) => insn.set_immediate32(1),
            (OpKind::Immediate64, _) => insn.set_immediate64(1),
            (OpKind::Immediate8to16, _) => insn.set_immediate8to16(1),
            (OpKind::Immediate8to32, _) => insn.set_immediate8to32(1),
            (OpKind::Immediate8to64, _) => insn.set_immediate8to64(1),
            (OpKind::Immediate32to64, _) => insn.set_immediate32to64(1),
            _ => {}
        }
    }
    insn
}

fn sample_operand(kind: OpCodeOperandKind, i: u32) -> (OpKind, Option<Register>) {
    use OpCodeOperandKind as K;
    let register = |first: Register| (OpKind::Register, Some(first + i));
    let fixed = |reg: Register| (OpKind::Register, Some(reg));
    match kind {
        _ if is_memory(kind) => (OpKind::Memory, None),
        K::seg_rBX_al => (OpKind::Memory, Some(Register::RBX)),
        K::r8_reg | K::r8_opcode => register(Register::R12L),
        K::r16_reg | K::r16_reg_mem | K::r16_rm | K::r16_opcode => register(Register::R12W),
        K::r32_reg | K::r32_reg_mem | K::r32_rm | K::r32_opcode | K::r32_vvvv => {
            register(Register::R12D)
        }
        K::r64_reg | K::r64_reg_mem | K::r64_rm | K::r64_opcode | K::r64_vvvv => {
            register(Register::R12)
        }
        K::mm_reg | K::mm_rm => register(Register::MM0),
        K::xmm_reg | K::xmm_rm | K::xmm_vvvv | K::xmm_is4 => register(Register::XMM1),
        K::ymm_reg | K::ymm_rm | K::ymm_vvvv | K::ymm_is4 => register(Register::YMM1),
        K::seg_reg => fixed(Register::DS),
        K::cr_reg => fixed(Register::CR0),
        K::dr_reg => fixed(Register::DR0),
        K::tr_reg => fixed(Register::TR3),
        K::k_reg | K::k_rm | K::k_vvvv | K::kp1_reg => register(Register::K1),
        K::bnd_reg => fixed(Register::BND0),
        K::tmm_reg | K::tmm_rm | K::tmm_vvvv => register(Register::TMM0),
        K::es => fixed(Register::ES),
        K::cs => fixed(Register::CS),
        K::ss => fixed(Register::SS),
        K::ds => fixed(Register::DS),
        K::fs => fixed(Register::FS),
        K::gs => fixed(Register::GS),
        K::al => fixed(Register::AL),
        K::cl => fixed(Register::CL),
        K::ax => fixed(Register::AX),
        K::dx => fixed(Register::DX),
        K::eax => fixed(Register::EAX),
        K::rax => fixed(Register::RAX),
        K::st0 => fixed(Register::ST0),
        K::sti_opcode => fixed(Register::ST1),
        _ => (sample_kind(kind), None),
    }
}

fn sample_kind(kind: OpCodeOperandKind) -> OpKind {
    use OpCodeOperandKind as K;
    match kind {
        K::farbr2_2 => OpKind::FarBranch16,
        K::farbr4_2 => OpKind::FarBranch32,
        K::imm8sex16 => OpKind::Immediate8to16,
        K::imm8sex32 => OpKind::Immediate8to32,
        K::imm8sex64 => OpKind::Immediate8to64,
        K::imm16 => OpKind::Immediate16,
        K::imm32 => OpKind::Immediate32,
        K::imm32sex64 => OpKind::Immediate32to64,
        K::imm64 => OpKind::Immediate64,
        K::seg_rSI => OpKind::MemorySegRSI,
        K::es_rDI => OpKind::MemoryESRDI,
        K::seg_rDI => OpKind::MemorySegRDI,
        K::br16_1 | K::br16_2 | K::xbegin_2 | K::brdisp_2 => OpKind::NearBranch16,
        K::br32_1 | K::br32_4 | K::xbegin_4 | K::brdisp_4 => OpKind::NearBranch32,
        K::br64_1 | K::br64_4 => OpKind::NearBranch64,
        _ => OpKind::Immediate8,
    }
}
