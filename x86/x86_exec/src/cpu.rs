//! The CPU: registers, and what is derived from them.

use x86_mmu::Mmu;
use x86_state::bits::{Cr0, Efer, Rflags};
use x86_state::{
    Activity, DebugRegs, DescriptorTable, Exception, InterruptShadow, Msrs, SegReg, Segment,
};

use crate::fault::FaultInfo;
use crate::flags::ARITHMETIC;
use crate::{Env, Flags};

/// How code is decoded and addresses are formed. Derived from CR0, EFER, RFLAGS.VM and CS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Real-address mode.
    Real,
    /// Virtual-8086 mode.
    Virtual8086,
    /// Protected mode outside of long mode, 16-bit code segment.
    Protected16,
    /// Protected mode outside of long mode, 32-bit code segment.
    Protected32,
    /// Long mode, 16-bit compatibility code segment.
    Compat16,
    /// Long mode, 32-bit compatibility code segment.
    Compat32,
    /// Long mode, 64-bit code segment.
    Long64,
}

impl Mode {
    /// 64-bit code.
    pub const fn is_64(self) -> bool {
        matches!(self, Self::Long64)
    }

    /// IA32_EFER.LMA is set.
    pub const fn is_long(self) -> bool {
        matches!(self, Self::Long64 | Self::Compat16 | Self::Compat32)
    }

    /// Default operand and address size in bits: 16, 32 or 64.
    pub const fn code_bits(self) -> u32 {
        match self {
            Self::Real | Self::Virtual8086 | Self::Protected16 | Self::Compat16 => 16,
            Self::Protected32 | Self::Compat32 => 32,
            Self::Long64 => 64,
        }
    }

    /// Segment registers are loaded from descriptors.
    pub const fn is_protected(self) -> bool {
        !matches!(self, Self::Real | Self::Virtual8086)
    }
}

/// x87, MMX and SSE registers.
///
/// x87 registers are by *physical* number (`st[(top + i) & 7]` is ST(i)), 80 bits in the low ten
/// bytes; MMX registers are their low 64 bits.
#[derive(Debug, Clone, Copy)]
pub struct Fpu {
    /// Physical registers: significand in bits 0..=63, sign and exponent in bits 64..=79.
    pub st: [u128; 8],
    /// Control word.
    pub fcw: u16,
    /// Status word, without TOP (bits 11..=13 are zero here).
    pub fsw: u16,
    /// TOP, 0 to 7.
    pub top: u8,
    /// By physical number: a set bit is a register in use (the abridged tag word of FXSAVE).
    pub in_use: u8,
    /// Last opcode, 11 bits.
    pub fop: u16,
    /// Last instruction pointer.
    pub fip: u64,
    /// Last data pointer.
    pub fdp: u64,
    /// XMM registers.
    pub xmm: [u128; 16],
    /// SSE control and status.
    pub mxcsr: u32,
}

/// One CPU in its environment.
pub struct Cpu<E: Env> {
    /// General registers by encoding number.
    pub gpr: [u64; 16],
    /// While an instruction that may change it runs: the address of the next one. See `run`.
    pub rip: u64,
    /// CF, PF, AF, ZF, SF, OF.
    pub flags: Flags,
    /// The other bits of RFLAGS, the fixed bit 1 included.
    pub system_flags: u64,
    /// Segment registers by encoding number.
    pub segments: [Segment; 6],
    /// Local descriptor table.
    pub ldtr: Segment,
    /// Task register.
    pub tr: Segment,
    /// Global descriptor table.
    pub gdtr: DescriptorTable,
    /// Interrupt descriptor table.
    pub idtr: DescriptorTable,
    /// CR0.
    pub cr0: u64,
    /// CR2.
    pub cr2: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// IA32_EFER.
    pub efer: u64,
    /// XCR0.
    pub xcr0: u64,
    /// IA32_XSS.
    pub xss: u64,
    /// Debug registers.
    pub debug: DebugRegs,
    /// Model-specific registers.
    pub msrs: Msrs,
    /// x87, MMX, SSE.
    pub fpu: Fpu,
    /// Running, halted, or waiting for a start-up message.
    pub activity: Activity,
    /// Interrupts wait for one instruction.
    pub shadow: InterruptShadow,
    /// Between the delivery of an NMI and IRET.
    pub nmi_masked: bool,
    /// Address translation: TLB and walker.
    pub mmu: Mmu,
    /// Derived: see [`Mode`]. Kept by [`Cpu::update_mode`].
    pub mode: Mode,
    /// Derived: current privilege level.
    pub cpl: u8,
    /// Set by whatever may make an event deliverable (STI, POPF, IRET, MOV CR8, end of a shadow):
    /// the loop clears it, and returns to its caller when [`Env::event_waiting`].
    pub check_events: bool,
    /// Instructions retired since the CPU was made.
    pub retired: u64,
    /// Why the last instruction did not happen, when it did not.
    pub fault: FaultInfo,
    /// What is around.
    pub env: E,
}

impl<E: Env> Cpu<E> {
    /// Derives mode and privilege level anew, after CS, SS, CR0, EFER or RFLAGS.VM changed.
    pub fn update_mode(&mut self) {
        let cs = &self.segments[SegReg::Cs as usize];
        let big = cs.has(Segment::DB);
        self.mode = if self.cr0 & Cr0::PE.bits() == 0 {
            Mode::Real
        } else if self.system_flags & Rflags::VM.bits() != 0 {
            Mode::Virtual8086
        } else if self.efer & Efer::LMA.bits() != 0 {
            match (cs.has(Segment::L), big) {
                (true, _) => Mode::Long64,
                (false, true) => Mode::Compat32,
                (false, false) => Mode::Compat16,
            }
        } else if big {
            Mode::Protected32
        } else {
            Mode::Protected16
        };
        self.cpl = match self.mode {
            Mode::Real => 0,
            Mode::Virtual8086 => 3,
            _ => self.segments[SegReg::Ss as usize].dpl(),
        };
    }

    /// RFLAGS.
    pub fn rflags(&self) -> u64 {
        self.flags.bits() | self.system_flags
    }

    /// Sets all of RFLAGS. The caller has checked privileges, and calls [`Cpu::update_mode`] when
    /// VM changes.
    pub fn set_rflags(&mut self, value: u64) {
        self.flags = Flags::from_bits(value);
        self.system_flags = (value & !ARITHMETIC) | Rflags::FIXED.bits();
    }

    /// A system flag is set.
    pub fn system_flag(&self, flag: Rflags) -> bool {
        self.system_flags & flag.bits() != 0
    }

    /// The segment register.
    pub fn segment(&self, reg: SegReg) -> &Segment {
        &self.segments[reg as usize]
    }

    /// #NM or #UD when SSE may not be used now (SDM vol. 3A, chapter 14: CR0.EM, CR4.OSFXSR,
    /// CR0.TS).
    ///
    /// # Errors
    /// The exception.
    pub fn check_sse(&mut self) -> Result<(), crate::Fault> {
        use x86_state::bits::Cr4;
        if self.cr0 & Cr0::EM.bits() != 0 || self.cr4 & Cr4::OSFXSR.bits() == 0 {
            return Err(self.ud());
        }
        if self.cr0 & Cr0::TS.bits() != 0 {
            return Err(self.raise(Exception::Nm));
        }
        Ok(())
    }
}
