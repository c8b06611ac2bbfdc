//! The local APIC as part of the vCPU's state.

/// The APIC's version register in every profile: six LVT entries, no EOI-broadcast suppression.
/// It is what KVM's APIC reports, and the least flexible engine decides.
pub const APIC_VERSION: u32 = 0x0005_0014;

/// One cycle of the APIC's timer before its divider, in nanoseconds. KVM's default.
pub const APIC_BUS_CYCLE_NS: u64 = 1;

/// Where the APIC's timer stands.
///
/// The count registers alone do not say when it fires, because time goes on between two reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ApicTimer {
    /// One-shot or periodic: nanoseconds of machine clock until it fires next; `None` when
    /// stopped.
    pub remaining_ns: Option<u64>,
    /// TSC-deadline mode: the IA32_TSC_DEADLINE register, in guest TSC units; 0 when disarmed.
    pub tsc_deadline: u64,
}

/// A local APIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApicState {
    /// IA32_APIC_BASE: base address, BSP, enable and x2APIC bits.
    pub base: u64,
    /// The register page: register at offset `o` in `regs[o / 16]`, as a guest would read it in
    /// xAPIC mode, except that in x2APIC mode the ID register holds the 32-bit ID and ICR2
    /// (0x310) the upper half of the 64-bit ICR. The current-count register (0x390) is zero: it
    /// follows from `timer`.
    pub regs: [u32; 64],
    /// The timer's phase.
    pub timer: ApicTimer,
}

impl ApicState {
    /// IA32_APIC_BASE at reset, without the BSP bit.
    pub const BASE_RESET: u64 = 0xfee0_0900 & !0x100;
    /// BSP bit of IA32_APIC_BASE.
    pub const BASE_BSP: u64 = 1 << 8;
    /// x2APIC enable bit of IA32_APIC_BASE.
    pub const BASE_X2APIC: u64 = 1 << 10;
    /// Global enable bit of IA32_APIC_BASE.
    pub const BASE_ENABLE: u64 = 1 << 11;

    /// After power-up of the CPU with this APIC ID (SDM vol. 3A, 11.4.7.1).
    pub fn at_reset(id: u32, bsp: bool) -> Self {
        let mut regs = [0; 64];
        regs[0x02] = id << 24;
        regs[0x03] = APIC_VERSION;
        regs[0x0e] = 0xffff_ffff; // DFR
        regs[0x0f] = 0xff; // SVR
        for lvt in [0x32, 0x33, 0x34, 0x35, 0x36, 0x37] {
            regs[lvt] = 1 << 16; // masked
        }
        let base = Self::BASE_RESET | if bsp { Self::BASE_BSP } else { 0 };
        Self { base, regs, timer: ApicTimer::default() }
    }
}
