//! Numbers of the model-specific registers the profiles name (SDM vol. 4, table 2-2).

/// Time-stamp counter.
pub const IA32_TSC: u32 = 0x10;
/// Which of a family's platforms this is, read-only: zero. UEFI firmware reads it on every Intel CPU.
pub const IA32_PLATFORM_ID: u32 = 0x17;
/// Local APIC base, enable and x2APIC bits.
pub const IA32_APIC_BASE: u32 = 0x1b;
/// Feature control; locked and empty in every profile.
pub const IA32_FEATURE_CONTROL: u32 = 0x3a;
/// Added to the TSC.
pub const IA32_TSC_ADJUST: u32 = 0x3b;
/// Microcode revision (read-only to us; writes are ignored as Intel's CPUs do with zero).
pub const IA32_BIOS_SIGN_ID: u32 = 0x8b;
/// Immunities against speculation attacks, read-only.
pub const IA32_ARCH_CAPABILITIES: u32 = 0x10a;
/// Number and kinds of MTRRs, read-only.
pub const IA32_MTRRCAP: u32 = 0xfe;
/// CS for SYSENTER.
pub const IA32_SYSENTER_CS: u32 = 0x174;
/// Stack for SYSENTER.
pub const IA32_SYSENTER_ESP: u32 = 0x175;
/// Entry of SYSENTER.
pub const IA32_SYSENTER_EIP: u32 = 0x176;
/// What machine-check hardware there is, read-only.
pub const IA32_MCG_CAP: u32 = 0x179;
/// Whether a machine check is being handled. None ever comes: it is zero, and writes are ignored.
pub const IA32_MCG_STATUS: u32 = 0x17a;
/// Miscellaneous enables.
pub const IA32_MISC_ENABLE: u32 = 0x1a0;
/// First variable-range MTRR base; masks follow each base.
pub const IA32_MTRR_PHYSBASE0: u32 = 0x200;
/// Fixed-range MTRR numbers, in the order of [`crate::MtrrState::fixed`].
pub const IA32_MTRR_FIXED: [u32; 11] =
    [0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f];
/// Page attribute table.
pub const IA32_PAT: u32 = 0x277;
/// Default memory type.
pub const IA32_MTRR_DEF_TYPE: u32 = 0x2ff;
/// APIC timer deadline in TSC units.
pub const IA32_TSC_DEADLINE: u32 = 0x6e0;
/// First x2APIC register; the register at APIC offset `o` is `0x800 + o / 16`.
pub const X2APIC_FIRST: u32 = 0x800;
/// Last x2APIC register.
pub const X2APIC_LAST: u32 = 0x8ff;
/// Supervisor state components for XSAVES.
pub const IA32_XSS: u32 = 0xda0;
/// Extended features.
pub const IA32_EFER: u32 = 0xc000_0080;
/// SYSCALL selectors.
pub const IA32_STAR: u32 = 0xc000_0081;
/// SYSCALL entry, 64-bit.
pub const IA32_LSTAR: u32 = 0xc000_0082;
/// SYSCALL entry, compatibility mode (AMD); storage only here.
pub const IA32_CSTAR: u32 = 0xc000_0083;
/// SYSCALL flag mask.
pub const IA32_FMASK: u32 = 0xc000_0084;
/// FS base.
pub const IA32_FS_BASE: u32 = 0xc000_0100;
/// GS base.
pub const IA32_GS_BASE: u32 = 0xc000_0101;
/// The base SWAPGS exchanges with GS.
pub const IA32_KERNEL_GS_BASE: u32 = 0xc000_0102;
/// RDTSCP's and RDPID's auxiliary value.
pub const IA32_TSC_AUX: u32 = 0xc000_0103;

/// Microcode revision every profile reports.
pub const MICROCODE_REVISION: u64 = 0x1d << 32;
/// IA32_MTRRCAP of every profile: eight variable ranges, fixed ranges, write-combining.
pub const MTRRCAP: u64 = 0x508;
/// IA32_MCG_CAP of every profile: no bank that could report an error.
pub const MCG_CAP: u64 = 0;
/// IA32_MISC_ENABLE at reset: fast strings.
pub const MISC_ENABLE_RESET: u64 = 1;
