//! An instruction taken apart so that it can be encoded again, with other registers and another
//! memory operand: what a translator to the same architecture needs.
//!
//! Unlike [`Insn`](crate::Insn), a [`Native`] keeps the encoding: prefixes, opcode, ModRM and
//! immediate, and which of their fields name registers of which file. It also says what the
//! instruction does to the general registers and the arithmetic flags, by encoding number and by
//! mask.

mod decoder;
mod table;
#[cfg(test)]
mod tests;

use bitflags::bitflags;
use iced_x86::Code;
use x86_state::SegReg;

pub use decoder::NativeDecoder;

/// How an instruction is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Prefixes, REX, opcode.
    Legacy,
    /// VEX, in two or three bytes: [`Native::vex`].
    Vex,
    /// EVEX, XOP, 3DNow!: always [`Class::System`].
    Other,
}

/// Which registers a field of the encoding names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum File {
    /// The field is not there, or means nothing.
    None,
    /// Part of the opcode.
    Extension,
    /// General registers of 8 bits.
    Gpr8,
    /// General registers of 16, 32 or 64 bits.
    Gpr,
    /// XMM or YMM.
    Vector,
    /// MMX.
    Mmx,
    /// Segment registers.
    Segment,
    /// Control registers.
    Control,
    /// Debug registers.
    Debug,
}

impl File {
    /// General registers.
    #[inline(always)]
    pub const fn is_gpr(self) -> bool {
        matches!(self, Self::Gpr8 | Self::Gpr)
    }
}

/// What a memory operand is accessed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Not at all: LEA, hints.
    None,
    /// Read, perhaps only sometimes.
    Read,
    /// Written, perhaps only sometimes.
    Write,
    /// Read, then written.
    ReadWrite,
}

/// A memory operand of a ModRM byte, or the absolute address of a MOV.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NativeMem {
    /// Base register.
    pub base: Option<u8>,
    /// Index register.
    pub index: Option<u8>,
    /// log2 of what the index is multiplied with.
    pub scale: u8,
    /// Displacement, sign-extended.
    pub disp: i32,
    /// `disp` counts from the end of the instruction; there is no base and no index.
    pub rip_relative: bool,
    /// Address size in bytes.
    pub addr_size: u8,
    /// Segment, defaults and prefixes applied.
    pub seg: SegReg,
    /// How many bytes are accessed.
    pub size_bytes: u16,
    /// What for.
    pub access: Access,
    /// Alignment the instruction itself demands: 16 or 32, else 1.
    pub aligned: u8,
}

/// What a translator does with an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Computes with registers, immediates and at most its one memory operand, which is
    /// [`Native::mem`]; does nothing else, needs no privilege, and means the same on the host.
    Copy,
    /// PUSH of anything but a segment register.
    Push,
    /// POP of anything but a segment register.
    Pop,
    /// Near CALL of a distance.
    Call,
    /// Near CALL of a register or memory.
    CallIndirect,
    /// Near RET.
    Ret,
    /// Near JMP of a distance.
    Jump,
    /// Near JMP to a register or memory.
    JumpIndirect,
    /// Jcc: [`Native::condition`].
    JumpIf,
    /// LOOPcc, JrCXZ.
    Loop,
    /// LEAVE.
    Leave,
    /// PUSHF.
    PushFlags,
    /// POPF.
    PopFlags,
    /// MOVS, CMPS, STOS, LODS, SCAS.
    String,
    /// Nothing; hints. PAUSE too.
    Nop,
    /// Everything else that is defined.
    System,
}

bitflags! {
    /// What an instruction needs that the portable profile does not have.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct Features: u16 {
        /// AVX.
        const AVX = 1 << 0;
        /// AVX2.
        const AVX2 = 1 << 1;
        /// FMA3.
        const FMA = 1 << 2;
        /// BMI1.
        const BMI1 = 1 << 3;
        /// BMI2.
        const BMI2 = 1 << 4;
        /// LZCNT.
        const LZCNT = 1 << 5;
        /// AES; with AVX its VEX forms.
        const AES = 1 << 6;
        /// PCLMULQDQ; with AVX its VEX form.
        const PCLMULQDQ = 1 << 7;
        /// SHA.
        const SHA = 1 << 8;
        /// F16C.
        const F16C = 1 << 9;
        /// ADX.
        const ADX = 1 << 10;
        /// MOVBE.
        const MOVBE = 1 << 11;
        /// Anything else.
        const OTHER = 1 << 15;
    }
}

/// Arithmetic flags, as in [`Native::flags_read`].
pub mod flag {
    /// Carry.
    pub const CF: u8 = 1;
    /// Parity.
    pub const PF: u8 = 2;
    /// Auxiliary carry.
    pub const AF: u8 = 4;
    /// Zero.
    pub const ZF: u8 = 8;
    /// Sign.
    pub const SF: u8 = 16;
    /// Overflow.
    pub const OF: u8 = 32;
    /// All of them.
    pub const ALL: u8 = 63;
}

/// An instruction with its encoding. Register numbers are those of encodings, 0 to 15.
#[derive(Debug, Clone, Copy)]
pub struct Native {
    /// Opcode with operand forms.
    pub code: Code,
    /// From the first byte given to the decoder.
    pub offset: u16,
    /// Bytes.
    pub len: u8,
    /// The bytes: the first `len` count.
    pub bytes: [u8; 15],
    /// How it is encoded.
    pub encoding: Encoding,
    /// There is an operand-size prefix.
    pub op66: bool,
    /// There is an address-size prefix.
    pub addr67: bool,
    /// The last of F2 and F3, or 0.
    pub rep: u8,
    /// `rep` is part of the opcode; else it repeats a string instruction or means nothing.
    pub rep_mandatory: bool,
    /// There is a LOCK prefix.
    pub lock: bool,
    /// Segment prefix; those 64-bit code ignores are not told.
    pub seg: Option<SegReg>,
    /// The REX prefix, or 0.
    pub rex: u8,
    /// Second and third byte of the VEX prefix in its three-byte form, of VEX encodings.
    pub vex: [u8; 2],
    /// Where the opcode begins in `bytes`, escapes included.
    pub opcode_at: u8,
    /// Bytes of opcode, escapes included.
    pub opcode_len: u8,
    /// The ModRM byte.
    pub modrm: Option<u8>,
    /// Where the immediate begins in `bytes`.
    pub imm_at: u8,
    /// Bytes of immediate.
    pub imm_len: u8,
    /// What ModRM.reg names.
    pub reg_field: File,
    /// What ModRM.rm names when ModRM.mod is 3.
    pub rm_field: File,
    /// What the low three bits of the opcode name.
    pub opcode_reg: File,
    /// What VEX.vvvv names.
    pub vvvv: File,
    /// Size in bytes of the first operand; of the instruction pointer for near branches; of what
    /// goes to or comes from the stack for what has no operands.
    pub op_size: u8,
    /// Address size in bytes.
    pub addr_size: u8,
    /// The memory operand.
    pub mem: Option<NativeMem>,
    /// Immediate, sign-extended but for RET's. Near branches: the distance from the end.
    pub imm: i64,
    /// General registers read, address registers and those merged into among them.
    pub gpr_read: u16,
    /// General registers that may be written.
    pub gpr_written: u16,
    /// Those of either that no field names: they cannot be renamed.
    pub gpr_implicit: u16,
    /// Bit i: a field names the high byte of register i (AH, CH, DH, BH).
    pub high_byte: u8,
    /// Arithmetic flags it may read: see [`flag`].
    pub flags_read: u8,
    /// Arithmetic flags that are certainly overwritten, with a result or with anything.
    pub flags_written: u8,
    /// What to do with it.
    pub class: Class,
    /// Condition code of Jcc, SETcc and CMOVcc; else 0.
    pub condition: u8,
    /// Uses x87, MMX, SSE or AVX state.
    pub vector: bool,
    /// What it needs beyond the portable profile.
    pub features: Features,
}

impl Native {
    /// The opcode without escapes.
    #[inline(always)]
    pub fn opcode(&self) -> u8 {
        self.bytes[usize::from(self.opcode_at + self.opcode_len - 1)]
    }

    /// The portable profile has it.
    #[inline(always)]
    pub const fn is_portable(&self) -> bool {
        self.features.is_empty()
    }

    /// The register ModRM.reg names, extended by its prefix.
    #[inline(always)]
    pub fn reg(&self) -> u8 {
        let low = self.modrm.unwrap_or(0) >> 3 & 7;
        let extended = match self.encoding {
            Encoding::Vex => self.vex[0] & 0x80 == 0,
            _ => self.rex & 4 != 0,
        };
        low | u8::from(extended) << 3
    }

    /// The register ModRM.rm names when there is no memory operand, extended by its prefix.
    #[inline(always)]
    pub fn rm(&self) -> u8 {
        self.modrm.unwrap_or(0) & 7 | self.extension_b()
    }

    /// The register the opcode names, extended by its prefix.
    #[inline(always)]
    pub fn opcode_register(&self) -> u8 {
        self.opcode() & 7 | self.extension_b()
    }

    fn extension_b(&self) -> u8 {
        let extended = match self.encoding {
            Encoding::Vex => self.vex[0] & 0x20 == 0,
            _ => self.rex & 1 != 0,
        };
        u8::from(extended) << 3
    }

    /// The register VEX.vvvv names.
    #[inline(always)]
    pub fn vvvv(&self) -> u8 {
        !self.vex[1] >> 3 & 15
    }
}
