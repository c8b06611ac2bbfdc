//! Hardware virtualization: guest code on the real CPU in guest mode, through KVM.
//!
//! The kernel has the CPUs and their local APICs (the "split" irqchip); PIC, IOAPIC, PIT and all
//! other devices are the board's. What a profile does not name the guest cannot reach: CPUID
//! shows the profile's table only, MSRs are filtered, XCR0 is bounded by CPUID.
//!
//! *Invariants*:
//! - This is the only crate that may name KVM, and no other can tell that it is there.
//! - [`engine::Vcpu::run`] returns only after the kernel has finished every access it handed out.
//! - An acknowledged PIC interrupt is always in the vCPU's state: it is put there as an event in
//!   delivery, not by KVM_INTERRUPT, whose vector no later read would show.
//!
//! *Known deviations*: a SHUTDOWN on SVM leaves the state of INIT, not of the fault; VMCALL of the
//! host's vendor answers −1000 instead of #UD; the initial count of an APIC timer that stood when
//! it was loaded reads as zero.
//!
//! Follows Linux, Documentation/virt/kvm/api.rst.

mod complex;
mod gate;
mod held_back;
mod host;
mod kick;
mod msr;
mod probe;
mod raw;
mod routes;
mod run;
mod slots;
mod state;
mod time;
mod vcpu;

pub use probe::Probe;

use std::io;
use std::sync::{Arc, OnceLock};

use engine::{Built, Engine, EngineError, EngineKind, Parts, Unsupported, Vcpu};
use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};
use x86_state::{CpuFeatures, CpuModel, CpuProfile, VcpuId};

use complex::Complex;
use host::Host;
use vcpu::HwVcpu;

/// The engine `hw`.
#[derive(Default)]
pub struct HwEngine {
    host: OnceLock<Result<Host, String>>,
    probe: OnceLock<Probe>,
    any_cpuid: bool,
}

fn host_error<E: Into<io::Error>>(operation: &'static str) -> impl FnOnce(E) -> EngineError {
    move |source| EngineError::Host { operation, source: source.into() }
}

fn unsupported(reason: String) -> Unsupported {
    Unsupported { engine: EngineKind::Hw, reason, remedy: "choose another engine".to_owned() }
}

impl HwEngine {
    /// The engine; nothing is opened yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// An engine that runs profiles whose CPU features the host lacks. For tests whose guests use
    /// none of those, on hosts with half a KVM.
    pub fn for_any_cpuid() -> Self {
        Self { any_cpuid: true, ..Self::default() }
    }

    /// The rate of this host's TSC, in kHz: that of every profile that is to run here. What
    /// [`Engine::check`] compares is asked for as well, since whoever needs the rate has a
    /// profile to make.
    ///
    /// # Errors
    /// When there is no KVM.
    pub fn tsc_khz(&self) -> Result<u32, Unsupported> {
        let host = self.host()?;
        // Why there is none, `check` tells.
        let _ = host.cpuid();
        host.tsc_khz().map_err(unsupported)
    }

    /// How fast this host's KVM is: measured once, which takes milliseconds.
    pub fn probe(&self) -> &Probe {
        let measure = || self.host().map_or_else(|e| Probe::Absent(e.reason), probe::probe);
        self.probe.get_or_init(measure)
    }

    fn host(&self) -> Result<&Host, Unsupported> {
        let host = self.host.get_or_init(Host::open);
        host.as_ref().map_err(|reason| unsupported(reason.clone()))
    }
}

/// The refusal of a profile with features that guests cannot have here.
fn too_few_features(without: CpuFeatures, profile: &CpuProfile) -> Unsupported {
    let model = CpuModel { without: without | (CpuFeatures::all() - profile.features()) };
    let number = without.bits().count_ones();
    Unsupported {
        engine: EngineKind::Hw,
        reason: format!("this host's CPU or KVM lacks {number} features of the CPU profile"),
        remedy: format!("choose another engine, or do without them: --cpu {model}"),
    }
}

impl Engine for HwEngine {
    fn kind(&self) -> EngineKind {
        EngineKind::Hw
    }

    fn check(&self, profile: &CpuProfile) -> Result<(), Unsupported> {
        let host = self.host()?;
        host.check_capabilities().map_err(unsupported)?;
        if !self.any_cpuid {
            let without = host.check_cpuid(profile).map_err(unsupported)?;
            if !without.is_empty() {
                return Err(too_few_features(without, profile));
            }
        }
        host.check_tsc(profile).map_err(unsupported)
    }

    fn build(&self, profile: &CpuProfile, parts: &Parts) -> Result<Built, EngineError> {
        self.check(profile)?;
        let host = self.host()?;
        let vm = host.vm().map_err(host_error("make a VM"))?;
        host.configure(&vm).map_err(host_error("set up a VM"))?;
        msr::set_filter(&vm, profile).map_err(host_error("filter MSRs"))?;
        let complex = Arc::new(Complex::new(vm, profile, parts));
        let mut vcpus: Vec<Box<dyn Vcpu>> = Vec::new();
        let mut kickers = Vec::new();
        for id in (0..profile.topology().cores).map(VcpuId) {
            let fd = complex.vm.create_vcpu(id.0.into()).map_err(host_error("make a vCPU"))?;
            if id == VcpuId(0) {
                complex.map_held_back(&fd).map_err(host_error("map a VM's ring of writes"))?;
            }
            fd.set_cpuid2(&cpuid(profile, id)).map_err(host_error("set a vCPU's CPUID"))?;
            let vcpu = HwVcpu::new(fd, id, complex.clone()).map_err(host_error("map a vCPU"))?;
            kickers.push(vcpu.kicker());
            vcpus.push(Box::new(vcpu));
        }
        complex.set_kickers(kickers.into());
        Ok(Built { complex, vcpus })
    }
}

fn cpuid(profile: &CpuProfile, id: VcpuId) -> CpuId {
    let rows = profile.leaves_for(id).map(|row| kvm_cpuid_entry2 {
        function: row.leaf,
        index: row.subleaf.unwrap_or(0),
        flags: row.subleaf.map_or(0, |_| KVM_CPUID_FLAG_SIGNIFCANT_INDEX),
        eax: row.value[0],
        ebx: row.value[1],
        ecx: row.value[2],
        edx: row.value[3],
        padding: [0; 3],
    });
    let rows: Vec<_> = rows.collect();
    #[allow(clippy::expect_used, reason = "a profile has a few dozen rows")]
    CpuId::from_entries(&rows).expect("the kernel takes 256 rows")
}
