//! The CPU a VM is created with. What the profile does not name, the guest cannot reach: so it
//! can own no state nobody saves, and it can be moved to any engine whose `check` passes.

use crate::{
    CpuFeatures, VcpuId, XSAVE_HEADER_OFFSET, XSAVE_SSE, XSAVE_X87,
    bits::{Cr4, Efer},
    msr,
};

/// Who can run the VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProfileClass {
    /// Every engine.
    Portable,
    /// The engine, or the host, whose features it uses.
    Pinned,
}

/// One row of the CPUID table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuidLeaf {
    /// EAX on entry.
    pub leaf: u32,
    /// ECX on entry, where the leaf has sub-leaves.
    pub subleaf: Option<u32>,
    /// EAX, EBX, ECX, EDX on return.
    pub value: [u32; 4],
}

/// How vCPUs are laid out: one socket of `cores` single-threaded cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topology {
    /// Number of vCPUs, 1 to [`Topology::CORES_MAX`].
    pub cores: u32,
}

impl Topology {
    /// More would need APIC IDs that do not fit the xAPIC's 8 bits once IOAPICs are counted.
    pub const CORES_MAX: u32 = 32;
}

/// Why a profile cannot be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProfileError {
    /// `cores` is zero or more than [`Topology::CORES_MAX`].
    Cores(u32),
    /// The TSC rate cannot be told to a guest.
    TscRate(u32),
}

impl std::fmt::Display for ProfileError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cores(n) => {
                write!(f, "{n} CPUs asked for, but a VM has 1 to {}", Topology::CORES_MAX)
            }
            Self::TscRate(khz) => write!(f, "a TSC of {khz} kHz is not between 0.1 and 20 GHz"),
        }
    }
}

impl std::error::Error for ProfileError {}

/// A CPU model: CPUID table, MSRs, XSAVE components, TSC rate and address widths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuProfile {
    class: ProfileClass,
    topology: Topology,
    tsc_khz: u32,
    physical_bits: u8,
    xcr0_mask: u64,
    arch_capabilities: u64,
    features: CpuFeatures,
    /// Sorted by leaf and sub-leaf, without what differs between vCPUs.
    leaves: Vec<CpuidLeaf>,
}

/// Family 6, model 0x1a, stepping 3: the model the x86-64-v2 level is named after. Linux has no
/// quirks for it that matter under a hypervisor.
const SIGNATURE: u32 = 0x0001_06a3;
const BRAND: &[u8; 48] = b"Trine portable CPU (x86-64-v2)\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
const CRYSTAL_HZ: u32 = 1_000_000_000;
/// Linux multiplies the crystal's kHz and the numerator in 32 bits (`native_calibrate_tsc`).
const NUMERATOR_MAX: u64 = (u32::MAX / (CRYSTAL_HZ / 1000)) as u64;

/// RDCL_NO, SKIP_L1DFL_VMENTRY, SSB_NO, MDS_NO, PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO, FBSDP_NO,
/// PSDP_NO, GDS_NO, RFDS_NO and ITS_NO of IA32_ARCH_CAPABILITIES.
const IMMUNE: u64 = 1
    | 1 << 3
    | 1 << 4
    | 1 << 5
    | 1 << 6
    | 1 << 8
    | 1 << 13
    | 1 << 14
    | 1 << 15
    | 1 << 26
    | 1 << 27
    | 1 << 62;

impl CpuProfile {
    /// The profile every engine can run: x86-64-v2 with XSAVE, PCID, INVPCID, FSGSBASE, SMEP,
    /// SMAP, UMIP, x2APIC and TSC-deadline. `tsc_khz` is the hardware's where a hardware engine
    /// is to be possible, because not every KVM can scale.
    ///
    /// # Errors
    /// When the topology or the TSC rate is out of range.
    pub fn portable(topology: Topology, tsc_khz: u32) -> Result<Self, ProfileError> {
        if !(1..=Topology::CORES_MAX).contains(&topology.cores) {
            return Err(ProfileError::Cores(topology.cores));
        }
        if !(100_000..=20_000_000).contains(&tsc_khz) {
            return Err(ProfileError::TscRate(tsc_khz));
        }
        let physical_bits = 40;
        let mut profile = Self {
            class: ProfileClass::Portable,
            topology,
            tsc_khz,
            physical_bits,
            xcr0_mask: XSAVE_X87 | XSAVE_SSE,
            arch_capabilities: IMMUNE,
            features: CpuFeatures::all(),
            leaves: Vec::new(),
        };
        profile.leaves = portable_leaves(&profile);
        Ok(profile)
    }

    /// The same without process-context identifiers (PCID, INVPCID): AMD's CPUs before Zen 3 have
    /// none, nor have older emulators of hardware virtualization.
    #[must_use]
    pub fn without_pcid(self) -> Self {
        self.without(CpuFeatures::PCID)
    }

    /// The same without some features, and what cannot be without those.
    #[must_use]
    pub fn without(mut self, features: CpuFeatures) -> Self {
        let gone = features.with_dependents();
        self.features -= gone;
        for row in gone.rows() {
            let leaf = self.leaves.iter_mut().find(|leaf| leaf.leaf == row.leaf);
            if let Some(leaf) = leaf {
                leaf.value[row.register] &= !row.bits;
            }
        }
        if gone.contains(CpuFeatures::XSAVE) {
            self.xcr0_mask = XSAVE_X87;
            self.leaves.iter_mut().filter(|row| row.leaf == 0xd).for_each(|row| row.value = [0; 4]);
        }
        self
    }

    /// Features, of those a profile may be without.
    pub fn features(&self) -> CpuFeatures {
        self.features
    }

    /// Portable or pinned.
    pub fn class(&self) -> ProfileClass {
        self.class
    }

    /// Layout of the vCPUs.
    pub fn topology(&self) -> Topology {
        self.topology
    }

    /// TSC rate in kHz.
    pub fn tsc_khz(&self) -> u32 {
        self.tsc_khz
    }

    /// Width of physical addresses, in bits.
    pub fn physical_bits(&self) -> u8 {
        self.physical_bits
    }

    /// XCR0 bits a guest may set.
    pub fn xcr0_mask(&self) -> u64 {
        self.xcr0_mask
    }

    /// Bytes of the standard-format XSAVE image with all components of the profile: x87 and SSE,
    /// which a CPU without XSAVE has too.
    pub fn xsave_size(&self) -> usize {
        XSAVE_HEADER_OFFSET + XSAVE_HEADER_SIZE
    }

    /// Family, model and stepping: CPUID.1:EAX, and EDX at reset.
    pub fn signature(&self) -> u32 {
        self.cpuid(1, 0, VcpuId(0))[0]
    }

    /// IA32_ARCH_CAPABILITIES.
    pub fn arch_capabilities(&self) -> u64 {
        self.arch_capabilities
    }

    /// CR4 bits a guest may set.
    pub fn cr4_mask(&self) -> u64 {
        use CpuFeatures as F;
        const OF_FEATURES: [(CpuFeatures, Cr4); 7] = [
            (F::PAE, Cr4::PAE),
            (F::PCID, Cr4::PCIDE),
            (F::UMIP, Cr4::UMIP),
            (F::FSGSBASE, Cr4::FSGSBASE),
            (F::XSAVE, Cr4::OSXSAVE),
            (F::SMEP, Cr4::SMEP),
            (F::SMAP, Cr4::SMAP),
        ];
        let always = Cr4::TSD
            | Cr4::DE
            | Cr4::PSE
            | Cr4::MCE
            | Cr4::PGE
            | Cr4::PCE
            | Cr4::OSFXSR
            | Cr4::OSXMMEXCPT;
        let has = |(feature, _): &&(CpuFeatures, Cr4)| self.features.contains(*feature);
        OF_FEATURES.iter().filter(has).fold(always, |mask, (_, bit)| mask | *bit).bits()
    }

    /// EFER bits a guest may set.
    pub fn efer_mask(&self) -> u64 {
        let has = |feature, bits| {
            if self.features.contains(feature) { bits } else { Efer::empty() }
        };
        let long = has(CpuFeatures::LM, Efer::SCE | Efer::LME | Efer::LMA);
        (long | has(CpuFeatures::NX, Efer::NXE)).bits()
    }

    /// A guest may read or write this MSR (subject to the MSR's own rules). All others raise #GP.
    pub fn allows_msr(&self, number: u32) -> bool {
        use msr::*;
        let needs = match number {
            IA32_TSC_ADJUST => CpuFeatures::TSC_ADJUST,
            IA32_TSC_DEADLINE => CpuFeatures::TSC_DEADLINE,
            IA32_TSC_AUX => CpuFeatures::RDTSCP,
            IA32_SYSENTER_CS | IA32_SYSENTER_ESP | IA32_SYSENTER_EIP => CpuFeatures::SEP,
            IA32_STAR | IA32_LSTAR | IA32_CSTAR | IA32_FMASK => CpuFeatures::LM,
            IA32_FS_BASE | IA32_GS_BASE | IA32_KERNEL_GS_BASE => CpuFeatures::LM,
            _ => CpuFeatures::empty(),
        };
        if !self.features.contains(needs) {
            return false;
        }
        matches!(
            number,
            IA32_TSC
                | IA32_PLATFORM_ID
                | IA32_APIC_BASE
                | IA32_TSC_ADJUST | IA32_BIOS_SIGN_ID
                | IA32_ARCH_CAPABILITIES
                | IA32_MTRRCAP
                | IA32_SYSENTER_CS
                | IA32_SYSENTER_ESP
                | IA32_SYSENTER_EIP
                | IA32_MCG_CAP
                | IA32_MCG_STATUS
                | IA32_MISC_ENABLE
                | IA32_MTRR_PHYSBASE0..=0x20f
                | IA32_PAT
                | IA32_MTRR_DEF_TYPE
                | IA32_TSC_DEADLINE
                | X2APIC_FIRST..=X2APIC_LAST
                | IA32_EFER
                | IA32_STAR
                | IA32_LSTAR
                | IA32_CSTAR
                | IA32_FMASK
                | IA32_FS_BASE
                | IA32_GS_BASE
                | IA32_KERNEL_GS_BASE
                | IA32_TSC_AUX
        ) || IA32_MTRR_FIXED.contains(&number)
    }

    /// Every row of the table, as this vCPU sees it. The bits that follow other registers
    /// (OSXSAVE, and APIC when it is disabled) are left to the engine.
    pub fn leaves_for(&self, vcpu: VcpuId) -> impl Iterator<Item = CpuidLeaf> + '_ {
        self.leaves.iter().map(move |row| self.for_vcpu(*row, vcpu))
    }

    /// What CPUID returns, by the SDM's rules for leaves beyond the highest: those of the highest
    /// basic leaf.
    pub fn cpuid(&self, leaf: u32, subleaf: u32, vcpu: VcpuId) -> [u32; 4] {
        let basic_max = self.leaves[0].value[0];
        let in_range = match leaf >> 30 {
            0 => leaf <= basic_max,
            1 => leaf <= HYPERVISOR_LEAF,
            2 => leaf <= EXTENDED_MAX,
            _ => false,
        };
        let leaf = if in_range { leaf } else { basic_max };
        let row = self
            .leaves
            .iter()
            .find(|row| row.leaf == leaf && row.subleaf.is_none_or(|s| s == subleaf));
        match row {
            Some(row) => self.for_vcpu(*row, vcpu).value,
            // SDM: an invalid sub-leaf of leaf 0xb still returns the x2APIC ID and the sub-leaf.
            None if leaf == 0xb => [0, 0, subleaf & 0xff, vcpu.0],
            None => [0; 4],
        }
    }

    fn for_vcpu(&self, mut row: CpuidLeaf, vcpu: VcpuId) -> CpuidLeaf {
        match row.leaf {
            1 => row.value[1] |= vcpu.0 << 24,
            0xb => row.value[3] = vcpu.0,
            _ => {}
        }
        row
    }
}

/// Behind the image's legacy region.
const XSAVE_HEADER_SIZE: usize = 64;
const HYPERVISOR_LEAF: u32 = 0x4000_0000;
const EXTENDED_MAX: u32 = 0x8000_0008;
const BASIC_MAX: u32 = 0x16;

fn word(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |w, b| w << 8 | u32::from(*b))
}

fn set(bits: &[u32]) -> u32 {
    bits.iter().fold(0, |w, b| w | 1 << b)
}

/// The fraction nearest to `tsc_khz / crystal kHz` whose numerator Linux can multiply.
fn tsc_ratio(tsc_khz: u32) -> (u32, u32) {
    let (tsc, crystal) = (u64::from(tsc_khz), u64::from(CRYSTAL_HZ / 1000));
    let candidates = (1..=NUMERATOR_MAX).map(|n| (n, (n * crystal + tsc / 2) / tsc));
    let error = |(n, d): (u64, u64)| (n * crystal).abs_diff(tsc * d) as f64 / d as f64;
    let best = candidates.filter(|c| c.1 > 0).min_by(|a, b| error(*a).total_cmp(&error(*b)));
    best.map_or((1, 1), |(n, d)| (n as u32, d as u32))
}

fn portable_leaves(profile: &CpuProfile) -> Vec<CpuidLeaf> {
    let cores = profile.topology.cores;
    let id_bits = u32::BITS - (cores - 1).leading_zeros();
    let cores_pow2 = 1u32 << id_bits;
    let row = |leaf, value| CpuidLeaf { leaf, subleaf: None, value };
    let sub = |leaf, subleaf, value| CpuidLeaf { leaf, subleaf: Some(subleaf), value };
    // Leaf 4, SDM vol. 2A: type, level, self-initialising; sharing; ways, line size; sets.
    let cache = |kind: u32, level: u32, shared: u32, ways: u32, sets: u32| {
        let eax = kind | level << 5 | 1 << 8 | (shared - 1) << 14 | (cores_pow2 - 1) << 26;
        [eax, (ways - 1) << 22 | 63, sets - 1, 0]
    };
    let (numerator, denominator) = tsc_ratio(profile.tsc_khz);
    let mhz = profile.tsc_khz / 1000;
    let htt = if cores > 1 { 1 << 28 } else { 0 };
    vec![
        row(0, [BASIC_MAX, word(b"Genu"), word(b"ntel"), word(b"ineI")]),
        row(
            1,
            [
                SIGNATURE,
                8 << 8 | cores_pow2 << 16,
                // SSE3 SSSE3 CX16 PCID SSE4.1 SSE4.2 x2APIC POPCNT TSC-deadline XSAVE RDRAND
                // hypervisor
                set(&[0, 9, 13, 17, 19, 20, 21, 23, 24, 26, 30, 31]),
                // FPU DE PSE TSC MSR PAE MCE CX8 APIC SEP MTRR PGE MCA CMOV PAT PSE36 CLFSH MMX
                // FXSR SSE SSE2
                htt | set(&[
                    0, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 19, 23, 24, 25, 26,
                ]),
            ],
        ),
        row(2, [0x00fe_ff01, 0, 0, 0]),
        sub(4, 0, cache(1, 1, 1, 8, 64)),
        sub(4, 1, cache(2, 1, 1, 8, 64)),
        sub(4, 2, cache(3, 2, 1, 8, 1024)),
        sub(4, 3, cache(3, 3, cores_pow2, 16, 8192)),
        row(6, [1 << 2, 0, 0, 0]), // ARAT
        // FSGSBASE TSC_ADJUST SMEP INVPCID SMAP; UMIP; ARCH_CAPABILITIES
        sub(7, 0, [0, set(&[0, 1, 7, 10, 20]), set(&[2]), set(&[29])]),
        sub(0xb, 0, [0, 1, 1 << 8, 0]),
        sub(0xb, 1, [id_bits, cores, 2 << 8 | 1, 0]),
        sub(0xd, 0, [3, 576, 576, 0]),
        row(0x15, [denominator, numerator, CRYSTAL_HZ, 0]),
        row(0x16, [mhz, mhz, 100, 0]),
        row(HYPERVISOR_LEAF, [HYPERVISOR_LEAF, word(b"Trin"), word(b"eTri"), word(b"neVM")]),
        row(0x8000_0000, [EXTENDED_MAX, 0, 0, 0]),
        // LAHF; SYSCALL NX 1GB RDTSCP LM
        row(0x8000_0001, [0, 0, 1, set(&[11, 20, 26, 27, 29])]),
        row(0x8000_0002, brand(0)),
        row(0x8000_0003, brand(1)),
        row(0x8000_0004, brand(2)),
        row(0x8000_0006, [0, 0, 512 << 16 | 6 << 12 | 64, 0]),
        row(0x8000_0007, [0, 0, 0, 1 << 8]), // invariant TSC
        row(EXTENDED_MAX, [u32::from(profile.physical_bits) | 48 << 8, 0, 0, 0]),
    ]
}

fn brand(part: usize) -> [u32; 4] {
    std::array::from_fn(|i| word(&BRAND[part * 16 + i * 4..][..4]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(cores: u32) -> CpuProfile {
        CpuProfile::portable(Topology { cores }, 2_449_998).unwrap()
    }

    #[test]
    fn tsc_ratio_is_within_two_millionths_and_fits_linux() {
        for khz in [100_000, 999_999, 1_996_214, 2_449_998, 2_949_121, 4_000_000] {
            let (n, d) = tsc_ratio(khz);
            assert!(u64::from(n) <= NUMERATOR_MAX && d > 0, "{khz}: {n}/{d}");
            let told = 1e6 * f64::from(n) / f64::from(d);
            let error = (told - f64::from(khz)).abs() / f64::from(khz);
            assert!(error < 2e-6, "{khz} is told as {told}");
        }
    }

    #[test]
    fn without_pcid_neither_cpuid_nor_cr4_has_it() {
        let p = profile(1).without_pcid();
        assert_eq!(p.cpuid(1, 0, VcpuId(0))[2] & 1 << 17, 0);
        assert_eq!(p.cpuid(7, 0, VcpuId(0))[1] & 1 << 10, 0);
        assert_eq!(p.cr4_mask() & Cr4::PCIDE.bits(), 0);
        assert_ne!(profile(1).cr4_mask() & Cr4::PCIDE.bits(), 0);
    }

    #[test]
    fn without_pae_there_is_no_64_bit_mode_and_nothing_of_it() {
        let p = profile(1).without(CpuFeatures::PAE);
        assert_eq!(p.cpuid(1, 0, VcpuId(0))[3] & 1 << 6, 0);
        assert_eq!(p.cpuid(0x8000_0001, 0, VcpuId(0))[3], 1 << 27);
        assert_eq!((p.efer_mask(), p.cr4_mask() & Cr4::PAE.bits()), (0, 0));
        assert!(!p.allows_msr(msr::IA32_LSTAR) && p.allows_msr(msr::IA32_TSC_AUX));
    }

    #[test]
    fn without_xsave_the_state_is_as_large_but_not_told() {
        let p = profile(1).without(CpuFeatures::XSAVE);
        assert_eq!((p.xsave_size(), p.cpuid(0xd, 0, VcpuId(0))), (576, [0; 4]));
        assert_eq!(p.cr4_mask() & Cr4::OSXSAVE.bits(), 0);
    }

    #[test]
    fn zero_and_too_many_cores_are_refused() {
        for cores in [0, 33, u32::MAX] {
            assert_eq!(
                CpuProfile::portable(Topology { cores }, 2_000_000),
                Err(ProfileError::Cores(cores))
            );
        }
    }

    #[test]
    fn leaves_beyond_the_highest_answer_as_the_highest_basic_one() {
        let p = profile(1);
        assert_eq!(p.cpuid(0x17, 0, VcpuId(0)), p.cpuid(0x16, 0, VcpuId(0)));
        assert_eq!(p.cpuid(0x8000_0009, 0, VcpuId(0)), p.cpuid(0x16, 0, VcpuId(0)));
    }

    #[test]
    fn each_vcpu_has_its_own_apic_id() {
        let p = profile(3);
        assert_eq!(p.cpuid(1, 0, VcpuId(2))[1] >> 24, 2);
        assert_eq!(p.cpuid(0xb, 1, VcpuId(2)), [2, 3, 2 << 8 | 1, 2]);
        assert_eq!(p.cpuid(0xb, 5, VcpuId(2)), [0, 0, 5, 2]);
    }

    #[test]
    fn the_image_holds_x87_and_sse() {
        assert_eq!(profile(1).xsave_size(), 576);
    }
}
