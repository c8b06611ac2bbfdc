//! x87, MMX and SSE instructions by their encoding.

use iced_x86::{
    Code, CpuidFeature, Encoder, EncodingKind, Instruction, MemoryOperand, OpCodeOperandKind as K,
    OpKind, Register,
};

use super::Instance;
use crate::Random;

/// The x87, MMX and SSE encodings the portable profile has and a user program may run anywhere.
pub fn vector_and_float() -> Vec<Code> {
    use CpuidFeature as F;
    let has = |feature: &F| {
        matches!(
            feature,
            F::FPU
                | F::FPU287
                | F::FPU387
                | F::MMX
                | F::SSE
                | F::SSE2
                | F::SSE3
                | F::SSSE3
                | F::SSE4_1
                | F::SSE4_2
        )
    };
    Code::values()
        .filter(|code| code.encoding() == EncodingKind::Legacy)
        .filter(|code| code.cpuid_features().iter().any(has))
        .filter(|code| {
            code.cpuid_features().iter().all(|f| has(f) || matches!(f, F::CMOV | F::X64))
        })
        .filter(|code| code.op_code().mode64() && code.op_code().is_instruction())
        .filter(|code| !code.op_code().fwait())
        .collect()
}

impl Instance {
    /// One of this encoding, in 64-bit code. `None` when it has an operand of a kind not known
    /// here.
    pub fn of(code: Code, random: &mut Random) -> Option<Self> {
        Self::new(encode(code, random)?, 64, random)
    }
}

/// Memory operands are at RBX + a multiple of 16.
fn encode(code: Code, random: &mut Random) -> Option<Vec<u8>> {
    let mut insn = Instruction::default();
    insn.set_code(code);
    let memory = random.one_in(2);
    let info = code.op_code();
    for (i, kind) in info.op_kinds().iter().enumerate() {
        let i = i as u32;
        let mut reg = |base: Register, count: u64| {
            let number = base as u32 + random.below(count) as u32;
            Register::values().nth(number as usize)
        };
        let register = match kind {
            K::xmm_reg | K::xmm_rm => reg(Register::XMM0, 16)?,
            K::mm_reg | K::mm_rm => reg(Register::MM0, 8)?,
            // Not RSP and RBX: the first is the host's stack pointer, the second the base.
            K::r32_reg | K::r32_rm => reg(Register::R8D, 8)?,
            K::r64_reg | K::r64_rm => reg(Register::R8, 8)?,
            K::sti_opcode => reg(Register::ST0, 8)?,
            K::st0 => Register::ST0,
            K::ax => Register::AX,
            K::xmm_or_mem if !memory => reg(Register::XMM0, 16)?,
            K::mm_or_mem if !memory => reg(Register::MM0, 8)?,
            K::r32_or_mem if !memory => reg(Register::R8D, 8)?,
            K::r64_or_mem if !memory => reg(Register::R8, 8)?,
            K::r16_or_mem if !memory => reg(Register::R8W, 8)?,
            K::r8_or_mem if !memory => reg(Register::R8L, 8)?,
            K::xmm_or_mem
            | K::mm_or_mem
            | K::r32_or_mem
            | K::r64_or_mem
            | K::r16_or_mem
            | K::r8_or_mem
            | K::mem => {
                let displacement = 16 * random.below(16) as i64 - 128;
                let operand = MemoryOperand::with_base_displ(Register::RBX, displacement);
                insn.set_op_kind(i, OpKind::Memory);
                insn.set_memory_base(operand.base);
                insn.set_memory_displacement64(displacement as u64);
                insn.set_memory_displ_size(1);
                continue;
            }
            K::seg_rDI => {
                insn.set_op_kind(i, OpKind::MemorySegRDI);
                continue;
            }
            K::imm8 => {
                insn.set_op_kind(i, OpKind::Immediate8);
                insn.set_immediate8(random.number() as u8);
                continue;
            }
            _ => return None,
        };
        insn.set_op_kind(i, OpKind::Register);
        insn.set_op_register(i, register);
    }
    let mut encoder = Encoder::new(64);
    encoder.encode(&insn, crate::CODE).ok()?;
    Some(encoder.take_buffer())
}
