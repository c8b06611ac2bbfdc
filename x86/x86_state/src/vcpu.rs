//! Everything a vCPU is between two instructions.

use crate::{
    ApicState, CpuProfile, DescriptorTable, Exception, SegReg, Segment, VcpuId, Vector, XsaveImage,
    bits, msr,
};

/// A general register's encoding number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "the variants are the registers' names")]
pub enum Gpr {
    Rax = 0,
    Rcx = 1,
    Rdx = 2,
    Rbx = 3,
    Rsp = 4,
    Rbp = 5,
    Rsi = 6,
    Rdi = 7,
    R8 = 8,
    R9 = 9,
    R10 = 10,
    R11 = 11,
    R12 = 12,
    R13 = 13,
    R14 = 14,
    R15 = 15,
}

/// General registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Regs {
    /// By encoding number, see [`Gpr`].
    pub gpr: [u64; 16],
    /// Of the next instruction.
    pub rip: u64,
    /// Bit 1 is set.
    pub rflags: u64,
}

/// Debug registers. `dr6` and `dr7` as read by the guest, with their fixed bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DebugRegs {
    /// DR0 to DR3.
    pub address: [u64; 4],
    /// DR6.
    pub dr6: u64,
    /// DR7.
    pub dr7: u64,
}

/// Memory type ranges. Storage only: every engine's guest memory is write-back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MtrrState {
    /// IA32_MTRR_DEF_TYPE.
    pub def_type: u64,
    /// In the order of [`msr::IA32_MTRR_FIXED`].
    pub fixed: [u64; 11],
    /// Base and mask pairs.
    pub variable: [(u64, u64); 8],
}

/// The MSRs a guest of any profile can own, by name. FS, GS and EFER are elsewhere in
/// [`VcpuState`]; the TSC and its deadline are offsets to the machine clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "named as the SDM does; see `msr`")]
pub struct Msrs {
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub fmask: u64,
    pub kernel_gs_base: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub tsc_aux: u64,
    pub tsc_adjust: u64,
    pub pat: u64,
    pub misc_enable: u64,
    pub mtrr: MtrrState,
}

/// What the CPU does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// Executes.
    Running,
    /// Waits in HLT.
    Halted,
    /// Waits for a start-up message.
    WaitForSipi,
}

/// Why maskable interrupts wait for one instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InterruptShadow {
    /// They do not.
    None,
    /// After STI.
    Sti,
    /// After MOV SS or POP SS; debug traps wait too.
    MovSs,
}

/// An exception that is due but whose delivery has not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raised {
    /// Which.
    pub exception: Exception,
    /// Its error code, where it has one.
    pub error_code: Option<u32>,
    /// What delivery will put into CR2 (#PF) or OR into DR6 (#DB); `None` when already there.
    pub payload: Option<u64>,
}

/// An event whose delivery began and was interrupted (by a page fault in the engine's own
/// mapping, say), and must be finished before the next instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InDelivery {
    /// An external interrupt, already acknowledged.
    Interrupt(Vector),
    /// The non-maskable interrupt.
    Nmi,
    /// An exception.
    Exception {
        /// Its vector.
        vector: Vector,
        /// Its error code, where it has one.
        error_code: Option<u32>,
    },
    /// INT n, INT3, INTO or INT1.
    Software {
        /// Its vector.
        vector: Vector,
        /// Bytes of the instruction.
        length: u8,
    },
}

/// One virtual CPU at an instruction boundary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VcpuState {
    /// General registers.
    pub regs: Regs,
    /// By encoding number, see [`SegReg`].
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
    /// x87, SSE and further components.
    pub xsave: XsaveImage,
    /// Model-specific registers.
    pub msrs: Msrs,
    /// Guest TSC at machine clock zero: TSC = `tsc_offset` + clock in ns × profile TSC kHz / 10⁶
    /// (wrapping).
    pub tsc_offset: u64,
    /// The local APIC. CR8 is the high nibble of its task-priority register.
    pub apic: ApicState,
    /// Running, halted or waiting.
    pub activity: Activity,
    /// Interrupts wait for one instruction.
    pub shadow: InterruptShadow,
    /// Between the delivery of an NMI and IRET.
    pub nmi_masked: bool,
    /// An NMI has arrived and was not delivered.
    pub nmi_pending: bool,
    /// Start-up vector of a SIPI that arrived while waiting and was not yet acted on.
    pub sipi_pending: Option<Vector>,
    /// An exception not yet begun.
    pub raised: Option<Raised>,
    /// An event whose delivery has begun.
    pub in_delivery: Option<InDelivery>,
}

impl VcpuState {
    /// After power-up (SDM vol. 3A, table 10-1): the first vCPU runs from the reset vector, the
    /// others wait for a start-up message.
    pub fn at_reset(profile: &CpuProfile, id: VcpuId) -> Self {
        let bsp = id.0 == 0;
        let data = Segment::real(0);
        let mut segments = [data; 6];
        segments[SegReg::Cs as usize] =
            Segment { base: 0xffff_0000, limit: 0xffff, selector: 0xf000, attr: 0x9b };
        let mut gpr = [0; 16];
        gpr[Gpr::Rdx as usize] = u64::from(profile.signature());
        Self {
            regs: Regs { gpr, rip: 0xfff0, rflags: bits::Rflags::FIXED.bits() },
            segments,
            ldtr: Segment { base: 0, limit: 0xffff, selector: 0, attr: 0x82 },
            tr: Segment { base: 0, limit: 0xffff, selector: 0, attr: 0x8b },
            gdtr: DescriptorTable { base: 0, limit: 0xffff },
            idtr: DescriptorTable { base: 0, limit: 0xffff },
            cr0: (bits::Cr0::CD | bits::Cr0::NW | bits::Cr0::ET).bits(),
            cr2: 0,
            cr3: 0,
            cr4: 0,
            efer: 0,
            xcr0: crate::XSAVE_X87,
            xss: 0,
            debug: DebugRegs { address: [0; 4], dr6: bits::DR6_RESET, dr7: bits::DR7_RESET },
            xsave: XsaveImage::initial(profile.xsave_size()),
            msrs: Msrs {
                pat: bits::PAT_RESET,
                misc_enable: msr::MISC_ENABLE_RESET,
                ..Msrs::default()
            },
            tsc_offset: 0,
            apic: ApicState::at_reset(id.0, bsp),
            activity: if bsp { Activity::Running } else { Activity::WaitForSipi },
            shadow: InterruptShadow::None,
            nmi_masked: false,
            nmi_pending: false,
            sipi_pending: None,
            raised: None,
            in_delivery: None,
        }
    }

    /// The general register.
    pub fn gpr(&self, reg: Gpr) -> u64 {
        self.regs.gpr[reg as usize]
    }

    /// The segment register.
    pub fn segment(&self, reg: SegReg) -> &Segment {
        &self.segments[reg as usize]
    }

    /// Current privilege level: the DPL of SS, which real and virtual-8086 mode keep in step.
    pub fn cpl(&self) -> u8 {
        self.segment(SegReg::Ss).dpl()
    }
}
