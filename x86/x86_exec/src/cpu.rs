//! The CPU: registers, and what is derived from them.

use x86_mmu::Mmu;
use x86_state::bits::{self, Cr0, Efer, Rflags};
use x86_state::msr::MISC_ENABLE_RESET;
use x86_state::{
    Activity, DebugRegs, DescriptorTable, Exception, InDelivery, InterruptShadow, Msrs, Raised,
    SegReg, Segment,
};

use crate::blocks::Blocks;
use crate::fault::FaultInfo;
use crate::flags::ARITHMETIC;
use crate::memory::SegmentWindow;
use crate::single::Singles;
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

impl Default for Fpu {
    /// After FNINIT, all registers zero.
    fn default() -> Self {
        Self {
            st: [0; 8],
            fcw: bits::FCW_INIT,
            fsw: 0,
            top: 0,
            in_use: 0,
            fop: 0,
            fip: 0,
            fdp: 0,
            xmm: [0; 16],
            mxcsr: bits::MXCSR_RESET,
        }
    }
}

/// Bounds the time a string instruction keeps interrupts waiting.
pub(crate) const ITERATIONS_MAX: u64 = 1 << 16;

/// One CPU in its environment.
pub struct Cpu<E: Env> {
    /// General registers by encoding number, and what addresses are formed of besides: zero at
    /// [`GPR_NONE`](x86_decode::GPR_NONE), and at [`GPR_RIP`](x86_decode::GPR_RIP) the RIP of the
    /// running block. A power of two, so that a masked number needs no check.
    pub gpr: [u64; 32],
    /// Between instructions, the next one's address. While one that ends a block runs, too, and it
    /// may change it; while any other runs, of no meaning: see [`Cpu::this_rip`].
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
    /// Set by a store into decoded code: the running block ends after this instruction.
    pub code_written: bool,
    /// To be set by a string instruction that has iterations left: it is begun again, after a look
    /// at events. It does not count as retired.
    pub again: bool,
    /// How many iterations a string instruction may make at once.
    pub iterations_max: u64,
    /// Data and I/O breakpoints met by this instruction, as bits of DR6.
    pub debug_hits: u64,
    /// Of a state that was loaded: an exception to be delivered first.
    pub(crate) raised: Option<Raised>,
    /// Of a state that was loaded: an event whose delivery is to be finished first.
    pub(crate) in_delivery: Option<InDelivery>,
    /// Derived by [`Cpu::update_access`]: what each segment allows without further look.
    pub(crate) windows: [SegmentWindow; 6],
    /// Derived: data breakpoints that are enabled, as bits.
    pub(crate) data_breakpoints: u8,
    /// Derived: misaligned operands raise #AC.
    pub(crate) alignment_checked: bool,
    /// Instructions retired since the CPU was made. Exact while an instruction that ends a block
    /// runs; others see the count at the beginning of theirs.
    pub retired: u64,
    /// Why the last instruction did not happen, when it did not.
    pub fault: FaultInfo,
    /// Decoded code.
    pub(crate) blocks: Blocks<E>,
    /// Instructions that were stepped.
    pub(crate) singles: Singles<E>,
    /// What is around.
    pub env: E,
}

impl<E: Env> Cpu<E> {
    /// With all registers as after power-up, except that it runs from 0:0.
    pub fn new(env: E) -> Self {
        let table = DescriptorTable { base: 0, limit: 0xffff };
        let system = |attr| Segment { base: 0, limit: 0xffff, selector: 0, attr };
        let mut cpu = Self {
            gpr: [0; 32],
            rip: 0,
            flags: Flags::default(),
            system_flags: Rflags::FIXED.bits(),
            segments: [Segment::real(0); 6],
            ldtr: system(0x82),
            tr: system(0x8b),
            gdtr: table,
            idtr: table,
            cr0: (Cr0::CD | Cr0::NW | Cr0::ET).bits(),
            cr2: 0,
            cr3: 0,
            cr4: 0,
            efer: 0,
            xcr0: x86_state::XSAVE_X87,
            xss: 0,
            debug: DebugRegs { address: [0; 4], dr6: bits::DR6_RESET, dr7: bits::DR7_RESET },
            msrs: Msrs { pat: bits::PAT_RESET, misc_enable: MISC_ENABLE_RESET, ..Msrs::default() },
            fpu: Fpu::default(),
            activity: Activity::Running,
            shadow: InterruptShadow::None,
            nmi_masked: false,
            mmu: Mmu::default(),
            mode: Mode::Real,
            cpl: 0,
            check_events: false,
            code_written: false,
            again: false,
            iterations_max: ITERATIONS_MAX,
            debug_hits: 0,
            raised: None,
            in_delivery: None,
            windows: [SegmentWindow::default(); 6],
            data_breakpoints: 0,
            alignment_checked: false,
            retired: 0,
            fault: FaultInfo { exception: Exception::Ud, error_code: 0, payload: 0 },
            blocks: Blocks::default(),
            singles: Singles::default(),
            env,
        };
        cpu.update_mode();
        cpu.update_paging();
        cpu
    }

    /// Derives mode and privilege level anew, after CS, SS, CR0, EFER or RFLAGS.VM changed.
    pub fn update_mode(&mut self) {
        let cs = &self.segments[SegReg::Cs as usize];
        let (big, cs_rpl) = (cs.has(Segment::DB), cs.selector as u8 & 3);
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
            _ => {
                let ss = &self.segments[SegReg::Ss as usize];
                // A null SS, which 64-bit code may have, has no DPL; its CS does.
                if ss.has(Segment::UNUSABLE) { cs_rpl } else { ss.dpl() }
            }
        };
        self.update_access();
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
