//! The decoded form.

use bitflags::bitflags;
use iced_x86::{Code, Mnemonic};
use x86_state::SegReg;

/// As [`Insn::base`] or [`Insn::index`]: no register. Register files keep zero at this number.
pub const GPR_NONE: u8 = 16;
/// As [`Insn::base`]: the address (RIP) of the block's first instruction.
pub const GPR_RIP: u8 = 17;

/// What an operand is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum OperandKind {
    /// There is none.
    None = 0,
    /// A register: [`Insn::reg`].
    Reg = 1,
    /// Memory: the memory form, or what a string instruction implies.
    Mem = 2,
    /// A number: [`Insn::imm`].
    Imm = 3,
}

bitflags! {
    /// Facts about an instruction.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct InsnFlags: u8 {
        /// LOCK, or XCHG with memory.
        const LOCK = 1 << 0;
        /// REP or REPE, where it repeats.
        const REP = 1 << 1;
        /// REPNE, where it repeats.
        const REPNE = 1 << 2;
        /// Nothing may be decoded into the same block after it: it may jump, change how code is
        /// decoded or fetched, or make an event deliverable.
        const ENDS_BLOCK = 1 << 3;
        /// Decoded as 64-bit code.
        const CODE_64 = 1 << 4;
        /// An operand is memory.
        const MEM = 1 << 5;
    }
}

/// A decoded instruction.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Insn {
    /// The immediate, sign-extended as the instruction does and on to 64 bits. Near branches: the
    /// distance from the next instruction, sign-extended. Far branches: selector << 32 | offset.
    /// ENTER: nesting level << 16 | size. Memory operands of MOV with absolute address: see `disp`.
    pub imm: u64,
    /// Displacement, sign-extended; absolute address of MOV moffs. RIP-relative: from the
    /// beginning of the block.
    pub disp: u64,
    /// Opcode with operand forms.
    pub code: Code,
    /// Bytes from the beginning of the block.
    pub offset: u16,
    regs: [u8; 2],
    kinds: u8,
    /// Bytes.
    pub len: u8,
    /// Base register, [`GPR_NONE`] or [`GPR_RIP`].
    pub base: u8,
    /// Index register or [`GPR_NONE`].
    pub index: u8,
    /// log2 of what the index is multiplied with.
    pub scale: u8,
    /// Segment of the memory operand, defaults and overrides applied.
    pub seg: SegReg,
    /// Size in bytes of the first operand, 255 when it is larger. Near branches: of the
    /// instruction pointer. Without operands: what goes to or comes from the stack.
    pub op_size: u8,
    /// Address size in bytes.
    pub addr_size: u8,
    /// Facts.
    pub flags: InsnFlags,
    /// Operand-size prefix: for the few whose operands do not show it.
    pub op_prefix: bool,
}

impl Insn {
    /// An invalid one of this length.
    pub const fn invalid(offset: u16, len: u8) -> Self {
        Self {
            imm: 0,
            disp: 0,
            code: Code::INVALID,
            offset,
            regs: [0; 2],
            kinds: 0,
            len,
            base: GPR_NONE,
            index: GPR_NONE,
            scale: 0,
            seg: SegReg::Ds,
            op_size: 0,
            addr_size: 0,
            flags: InsnFlags::ENDS_BLOCK,
            op_prefix: false,
        }
    }

    pub(crate) fn set_operand(&mut self, index: u32, kind: OperandKind, reg: u8) {
        self.kinds |= (kind as u8) << (2 * index);
        let implicit = self.kind(0) != OperandKind::Reg;
        match self.regs.get_mut(index as usize) {
            Some(slot) => *slot = reg,
            // Of MASKMOVQ and MASKMOVDQU, whose first operand is implicit memory.
            None if implicit => self.regs[0] = reg,
            None => {}
        }
    }

    /// What operand `index` (0 to 2) is.
    pub const fn kind(&self, index: u32) -> OperandKind {
        match (self.kinds >> (2 * index)) & 3 {
            0 => OperandKind::None,
            1 => OperandKind::Reg,
            2 => OperandKind::Mem,
            _ => OperandKind::Imm,
        }
    }

    /// Register number of the first operand, when it is a register; else of the third. Numbers
    /// 0..=15 are encodings; AH, CH, DH and BH are 16..=19.
    #[inline(always)]
    pub const fn reg0(&self) -> u8 {
        self.regs[0]
    }

    /// Register number of the second operand, when it is a register.
    #[inline(always)]
    pub const fn reg1(&self) -> u8 {
        self.regs[1]
    }

    /// Register number of the first or second operand.
    #[inline(always)]
    pub const fn reg(&self, index: usize) -> u8 {
        self.regs[index]
    }

    /// Opcode without operand forms.
    pub fn mnemonic(&self) -> Mnemonic {
        self.code.mnemonic()
    }

    /// An operand is memory.
    #[inline(always)]
    pub const fn is_mem(&self) -> bool {
        self.flags.contains(InsnFlags::MEM)
    }

    /// A string instruction: MOVSD and CMPSD name SSE instructions too.
    pub fn is_string(&self) -> bool {
        self.code.is_string_instruction()
    }

    /// LOCK, or XCHG with memory.
    #[inline(always)]
    pub const fn locked(&self) -> bool {
        self.flags.contains(InsnFlags::LOCK)
    }

    /// Nothing follows it in a block.
    #[inline(always)]
    pub const fn ends_block(&self) -> bool {
        self.flags.contains(InsnFlags::ENDS_BLOCK)
    }

    /// Decoded as 64-bit code.
    #[inline(always)]
    pub const fn is_64(&self) -> bool {
        self.flags.contains(InsnFlags::CODE_64)
    }
}

const _: () = assert!(size_of::<Insn>() <= 40);
