//! Bits of the control, debug and flag registers, under the names of the Intel SDM.

use bitflags::bitflags;

bitflags! {
    /// RFLAGS (SDM vol. 1, 3.4.3). Bit 1 always reads as one.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Rflags: u64 {
        /// Carry.
        const CF = 1 << 0;
        /// Reserved, always one.
        const FIXED = 1 << 1;
        /// Parity of the low byte.
        const PF = 1 << 2;
        /// Carry out of bit 3.
        const AF = 1 << 4;
        /// Zero.
        const ZF = 1 << 6;
        /// Sign.
        const SF = 1 << 7;
        /// Trap: single step.
        const TF = 1 << 8;
        /// Interrupts enabled.
        const IF = 1 << 9;
        /// String direction.
        const DF = 1 << 10;
        /// Overflow.
        const OF = 1 << 11;
        /// I/O privilege level, both bits.
        const IOPL = 3 << 12;
        /// Nested task.
        const NT = 1 << 14;
        /// Resume: instruction breakpoints off for one instruction.
        const RF = 1 << 16;
        /// Virtual-8086 mode.
        const VM = 1 << 17;
        /// Alignment check, and SMAP override.
        const AC = 1 << 18;
        /// Virtual interrupt flag.
        const VIF = 1 << 19;
        /// Virtual interrupt pending.
        const VIP = 1 << 20;
        /// CPUID is there.
        const ID = 1 << 21;
    }

    /// CR0 (SDM vol. 3A, 2.5).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Cr0: u64 {
        /// Protection enable.
        const PE = 1 << 0;
        /// Monitor coprocessor.
        const MP = 1 << 1;
        /// Emulation: no x87.
        const EM = 1 << 2;
        /// Task switched.
        const TS = 1 << 3;
        /// Extension type, always one.
        const ET = 1 << 4;
        /// Native x87 error reporting.
        const NE = 1 << 5;
        /// Supervisor writes obey read-only pages.
        const WP = 1 << 16;
        /// Alignment mask.
        const AM = 1 << 18;
        /// Not write-through.
        const NW = 1 << 29;
        /// Cache disable.
        const CD = 1 << 30;
        /// Paging.
        const PG = 1 << 31;
    }

    /// CR4 (SDM vol. 3A, 2.5).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Cr4: u64 {
        /// Virtual-8086 extensions.
        const VME = 1 << 0;
        /// Protected-mode virtual interrupts.
        const PVI = 1 << 1;
        /// RDTSC only at ring 0.
        const TSD = 1 << 2;
        /// Debugging extensions.
        const DE = 1 << 3;
        /// 4 MiB pages in 32-bit paging.
        const PSE = 1 << 4;
        /// Physical address extension.
        const PAE = 1 << 5;
        /// Machine check.
        const MCE = 1 << 6;
        /// Global pages.
        const PGE = 1 << 7;
        /// RDPMC at any ring.
        const PCE = 1 << 8;
        /// FXSAVE and SSE.
        const OSFXSR = 1 << 9;
        /// SIMD exceptions.
        const OSXMMEXCPT = 1 << 10;
        /// SGDT, SIDT, SLDT, SMSW, STR only at ring 0.
        const UMIP = 1 << 11;
        /// 57-bit linear addresses.
        const LA57 = 1 << 12;
        /// VMX.
        const VMXE = 1 << 13;
        /// SMX.
        const SMXE = 1 << 14;
        /// RDFSBASE and friends.
        const FSGSBASE = 1 << 16;
        /// Process-context identifiers.
        const PCIDE = 1 << 17;
        /// XSAVE.
        const OSXSAVE = 1 << 18;
        /// Supervisor may not execute user pages.
        const SMEP = 1 << 20;
        /// Supervisor may not access user pages.
        const SMAP = 1 << 21;
        /// Protection keys.
        const PKE = 1 << 22;
    }

    /// IA32_EFER (SDM vol. 3A, 2.2.1).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Efer: u64 {
        /// SYSCALL.
        const SCE = 1 << 0;
        /// Long mode enabled.
        const LME = 1 << 8;
        /// Long mode active.
        const LMA = 1 << 10;
        /// No-execute pages.
        const NXE = 1 << 11;
    }

    /// DR6 (SDM vol. 3B, 18.2.3), without the bits that always read as one.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Dr6: u64 {
        /// Breakpoint 0 met.
        const B0 = 1 << 0;
        /// Breakpoint 1 met.
        const B1 = 1 << 1;
        /// Breakpoint 2 met.
        const B2 = 1 << 2;
        /// Breakpoint 3 met.
        const B3 = 1 << 3;
        /// Debug register accessed with DR7.GD.
        const BD = 1 << 13;
        /// Single step.
        const BS = 1 << 14;
        /// Task switch with T set.
        const BT = 1 << 15;
    }
}

/// DR6 at reset: the reserved bits read as one.
pub const DR6_RESET: u64 = 0xffff_0ff0;
/// DR7 at reset: bit 10 reads as one.
pub const DR7_RESET: u64 = 0x400;
/// MXCSR at reset: all exceptions masked.
pub const MXCSR_RESET: u32 = 0x1f80;
/// MXCSR bits that may be set.
pub const MXCSR_MASK: u32 = 0xffff;
/// x87 control word after FNINIT. Power-up is 0x40, but every engine starts from FNINIT's value.
pub const FCW_INIT: u16 = 0x37f;
/// IA32_PAT at reset (SDM vol. 3A, table 11-12).
pub const PAT_RESET: u64 = 0x0007_0406_0007_0406;
