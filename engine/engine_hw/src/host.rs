//! What this host offers, and whether that is enough for a profile.

use std::io;
use std::sync::{LazyLock, Mutex, OnceLock, PoisonError};

use kvm_bindings::{
    CpuId, KVM_CAP_DISABLE_QUIRKS2, KVM_CAP_EXCEPTION_PAYLOAD, KVM_CAP_IOEVENTFD_ANY_LENGTH,
    KVM_CAP_SPLIT_IRQCHIP, KVM_CAP_VCPU_ATTRIBUTES, KVM_CAP_X2APIC_API, KVM_CAP_X86_USER_SPACE_MSR,
    KVM_MAX_CPUID_ENTRIES, KVM_MSR_EXIT_REASON_FILTER, KVM_X2APIC_API_USE_32BIT_IDS,
    KVM_X86_QUIRK_FIX_HYPERCALL_INSN, KVM_X86_QUIRK_LAPIC_MMIO_HOLE, KVM_X86_QUIRK_LINT0_REENABLED,
    KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT, KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS, kvm_enable_cap,
};
use kvm_ioctls::{Cap, Kvm, VmFd};
use x86_state::{CpuFeatures, CpuProfile, VcpuId};

use crate::raw;
use crate::routes::IOAPIC_INPUTS;

/// KVM_X2APIC_DISABLE_SUPPRESS_EOI_BROADCAST of newer kernels.
const NO_EOI_SUPPRESSION: u32 = 1 << 3;

/// Deviations from the architecture that the kernel keeps for old user space. Not switched off:
/// `CD_NW_CLEARED`, without which a guest runs uncached until it clears CR0.CD.
const QUIRKS: u32 = KVM_X86_QUIRK_LINT0_REENABLED
    | KVM_X86_QUIRK_LAPIC_MMIO_HOLE
    | KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT
    | KVM_X86_QUIRK_FIX_HYPERCALL_INSN
    | KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS;

/// Two hosts of one kind measure their TSCs apart by less.
const TSC_TOLERANCE_PPM: u64 = 250;

/// Capabilities without which there is no engine, and since when kernels have them.
const NEEDED: [(Cap, &str, &str); 9] = [
    (Cap::SplitIrqchip, "a local APIC without the other interrupt chips", "4.5"),
    (Cap::ImmediateExit, "immediate exits", "4.13"),
    (Cap::SignalMsi, "interrupt messages", "3.5"),
    (Cap::ReadonlyMem, "read-only memory", "3.7"),
    (Cap::X86UserSpaceMsr, "MSR accesses in user space", "5.10"),
    (Cap::X86MsrFilter, "MSR filters", "5.10"),
    (Cap::X2ApicApi, "x2APIC identifiers", "4.7"),
    (Cap::Xsave, "XSAVE images", "2.6.36"),
    (Cap::GetTscKhz, "the TSC's rate", "2.6.39"),
];

/// CPUID bits of a profile that need not be among those the kernel lists: (leaf, register).
fn served_without_listing(leaf: u32, register: usize) -> u32 {
    match (leaf, register) {
        // Invariant TSC: listed only where the CPU says so; the kernel knows better (it may have
        // been told, or have measured), and offers no TSC it found unstable.
        (0x8000_0007, 3) if tsc_is_stable() => 1 << 8,
        // x2APIC and TSC-deadline are the in-kernel APIC's; the hypervisor bit is ours; HTT only
        // says that the APIC-ID field counts.
        (1, 2) => 1 << 21 | 1 << 24 | 1 << 31,
        (1, 3) => 1 << 28,
        // ARCH_CAPABILITIES: we answer for the MSR.
        (7, 3) => 1 << 29,
        _ => 0,
    }
}

/// Asked once: later, the process may open nothing.
fn tsc_is_stable() -> bool {
    static STABLE: LazyLock<bool> = LazyLock::new(is_clock_source);
    *STABLE
}

fn is_clock_source() -> bool {
    let offered = "/sys/devices/system/clocksource/clocksource0/available_clocksource";
    let offered = std::fs::read_to_string(offered).unwrap_or_default();
    offered.split_whitespace().any(|source| source == "tsc")
}

/// The kernel's interface, opened. What it answers is asked for once: a profile is compared when
/// an engine is chosen and when it is made, and the list of CPU features takes the kernel as long
/// as making a VM.
pub(crate) struct Host {
    kvm: Kvm,
    /// A VM made to ask the kernel something, for whoever needs one next.
    spare: Mutex<Option<VmFd>>,
    capabilities: OnceLock<Result<(), String>>,
    cpuid: OnceLock<Result<CpuId, String>>,
    tsc_khz: OnceLock<Result<u32, String>>,
}

impl Host {
    /// Opens it.
    ///
    /// # Errors
    /// What is missing, and what to do.
    pub(crate) fn open() -> Result<Self, String> {
        let kvm = Kvm::new().map_err(|e| match e.errno() {
            libc::ENOENT => "there is no /dev/kvm: load the kernel module kvm-amd or kvm-intel, \
                             and enable virtualization in the firmware or the outer hypervisor"
                .to_owned(),
            libc::EACCES | libc::EPERM => {
                "/dev/kvm may not be opened: add the user to the group that owns it (kvm)"
                    .to_owned()
            }
            _ => format!("/dev/kvm cannot be opened: {}", io::Error::from(e)),
        })?;
        Ok(Self {
            kvm,
            spare: Mutex::default(),
            capabilities: OnceLock::new(),
            cpuid: OnceLock::new(),
            tsc_khz: OnceLock::new(),
        })
    }

    /// A VM without anything.
    pub(crate) fn vm(&self) -> io::Result<VmFd> {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).take();
        spare.map_or_else(|| self.new_vm(), Ok)
    }

    /// Another VM than the one that was made to ask the kernel something.
    pub(crate) fn new_vm(&self) -> io::Result<VmFd> {
        Ok(self.kvm.create_vm()?)
    }

    /// The rate of the host's TSC, in kHz, as the kernel counts it.
    ///
    /// # Errors
    /// Why it is unknown.
    pub(crate) fn tsc_khz(&self) -> Result<u32, String> {
        let ask = || self.ask_tsc_khz().map_err(|e| format!("the TSC's rate is unknown: {e}"));
        self.tsc_khz.get_or_init(ask).clone()
    }

    fn ask_tsc_khz(&self) -> io::Result<u32> {
        let vm = self.vm()?;
        if let Ok(khz) = raw::vm_tsc_khz(&vm) {
            *self.spare.lock().unwrap_or_else(PoisonError::into_inner) = Some(vm);
            return Ok(khz);
        }
        // Before Linux 5.18 only a vCPU knows.
        Ok(vm.create_vcpu(0)?.get_tsc_khz()?)
    }

    /// Whether the kernel has what the engine needs.
    ///
    /// # Errors
    /// What is missing, and what to do.
    pub(crate) fn check_capabilities(&self) -> Result<(), String> {
        self.capabilities.get_or_init(|| self.ask_capabilities()).clone()
    }

    fn ask_capabilities(&self) -> Result<(), String> {
        for (capability, what, since) in NEEDED {
            if !self.kvm.check_extension(capability) {
                return Err(format!("the host's KVM lacks {what}: Linux {since} or newer has it"));
            }
        }
        let raw = [
            (KVM_CAP_EXCEPTION_PAYLOAD, "exception payloads", "4.20"),
            (KVM_CAP_IOEVENTFD_ANY_LENGTH, "doorbells of any width", "4.4"),
            (KVM_CAP_VCPU_ATTRIBUTES, "offsets of a vCPU's TSC", "5.16"),
        ];
        for (capability, what, since) in raw {
            if self.kvm.check_extension_raw(capability.into()) <= 0 {
                return Err(format!("the host's KVM lacks {what}: Linux {since} or newer has it"));
            }
        }
        Ok(())
    }

    /// The CPU features that guests can have, as the kernel lists them.
    ///
    /// # Errors
    /// When it lists none.
    pub(crate) fn cpuid(&self) -> Result<&CpuId, String> {
        let ask = || {
            let listed = self.kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES);
            listed.map_err(|e| format!("the host's KVM does not list CPU features: {e}"))
        };
        self.cpuid.get_or_init(ask).as_ref().map_err(String::clone)
    }

    /// The features of the profile that guests cannot have.
    ///
    /// # Errors
    /// What is missing that every profile has.
    pub(crate) fn check_cpuid(&self, profile: &CpuProfile) -> Result<CpuFeatures, String> {
        let supported = self.cpuid()?;
        let find = |leaf, subleaf| {
            let entry =
                supported.as_slice().iter().find(|e| e.function == leaf && e.index == subleaf);
            entry.map_or([0; 4], |e| [e.eax, e.ebx, e.ecx, e.edx])
        };
        let (mut without, mut lacks) = (CpuFeatures::empty(), Vec::new());
        for (leaf, registers) in [(1, 2..4), (7, 1..4), (0x8000_0001, 2..4), (0x8000_0007, 3..4)] {
            let (wanted, have) = (profile.cpuid(leaf, 0, VcpuId(0)), find(leaf, 0));
            for i in registers {
                let missing = wanted[i] & !have[i] & !served_without_listing(leaf, i);
                let (features, missing) = CpuFeatures::told_by(leaf, i, missing);
                without |= features;
                if missing != 0 {
                    let register = ["EAX", "EBX", "ECX", "EDX"][i];
                    lacks.push(format!("CPUID {leaf:#x} {register} {missing:#x}"));
                }
            }
        }
        if !lacks.is_empty() {
            return Err(format!(
                "this host's CPU or KVM lacks features that every CPU profile has ({})",
                lacks.join(", ")
            ));
        }
        let missing = profile.xcr0_mask() & !u64::from(find(0xd, 0)[0]);
        let has_xsave = (profile.features() - without).contains(CpuFeatures::XSAVE);
        if missing != 0 && has_xsave {
            return Err(format!("this host's KVM lacks XSAVE components {missing:#x}"));
        }
        let bits = find(0x8000_0008, 0)[0] as u8;
        if bits < profile.physical_bits() {
            let wanted = profile.physical_bits();
            return Err(format!("guests have {bits}-bit physical addresses here, not {wanted}"));
        }
        Ok(without)
    }

    /// Whether the TSC runs at the profile's rate. It is never scaled: some hosts cannot, and
    /// software engines run at any rate.
    ///
    /// # Errors
    /// The two rates.
    pub(crate) fn check_tsc(&self, profile: &CpuProfile) -> Result<(), String> {
        let have = self.tsc_khz()?;
        let wanted = profile.tsc_khz();
        let off = u64::from(have.abs_diff(wanted)) * 1_000_000 / u64::from(have.max(1));
        if off > TSC_TOLERANCE_PPM {
            return Err(format!(
                "the TSC runs at {have} kHz here and at {wanted} kHz in the CPU profile"
            ));
        }
        Ok(())
    }

    /// Switches on what the engine needs, before there are vCPUs.
    pub(crate) fn configure(&self, vm: &VmFd) -> io::Result<()> {
        let enable = |cap, arg: u32| {
            let mut request = kvm_enable_cap { cap, ..Default::default() };
            request.args[0] = arg.into();
            vm.enable_cap(&request).map_err(io::Error::from)
        };
        enable(KVM_CAP_SPLIT_IRQCHIP, IOAPIC_INPUTS)?;
        let x2apic = raw::capability(vm, KVM_CAP_X2APIC_API) & NO_EOI_SUPPRESSION;
        enable(KVM_CAP_X2APIC_API, KVM_X2APIC_API_USE_32BIT_IDS | x2apic)?;
        enable(KVM_CAP_EXCEPTION_PAYLOAD, 1)?;
        enable(KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_FILTER)?;
        let quirks = raw::capability(vm, KVM_CAP_DISABLE_QUIRKS2) & QUIRKS;
        if quirks != 0 { enable(KVM_CAP_DISABLE_QUIRKS2, quirks) } else { Ok(()) }
    }
}
