//! Full virtualization: unmodified guests at speed without VT-x or SVM.
//!
//! Guest code is translated to host code of the same architecture, which runs in this process;
//! whatever is not translated is interpreted ([`x86_exec`]) at exact state. The parts:
//!
//! | module | is |
//! | --- | --- |
//! | `translate` | from guest instructions to host instructions, one *unit* at a time |
//! | `cache`, `code`, `huge` | what has been translated, and the memory it is in |
//! | `views`, `resident`, `stores` | how translated code finds guest memory |
//! | `context`, `entry`, `fault` | how it is entered and left, and where registers are |
//! | `transition` | privilege levels it changes by itself |
//! | `vcpu`, `complex`, `timer`, `tsc` | the loop of a vCPU, and what vCPUs share |
//! | `exits` | why translated code was left |
//! | `check` | translated code beside the interpreter, for tests |
//!
//! What this crate may not know: devices, other engines.
//!
//! *Invariants*: translated code reads and writes guest memory, its context, and nothing else.
//! Every store to a page with translated code retires what it changes before that runs again in
//! the order the architecture promises. The interpreter can take over at any instruction.
//!
//! Unsafe code is in `entry`, `fault`, `views`, `code`, `huge` and `tsc`, each of which says why.

mod cache;
mod check;
mod code;
mod complex;
mod context;
mod entry;
mod exits;
mod fault;
mod huge;
mod resident;
mod stores;
mod timer;
mod transition;
mod translate;
mod tsc;
mod vcpu;
mod views;

use std::sync::Arc;

use engine::{Built, CpuComplex, Engine, EngineError, EngineKind, Parts, Unsupported, Vcpu};
use engine_soft::{Complex, SoftVcpu};
use machine_clock::TimeSource;
use x86_state::{CpuProfile, VcpuId};

use crate::cache::Cache;
use crate::check::Check;
pub use crate::check::{Checked, Difference, Divergence, Tell};
pub use crate::code::CODE_SIZE;
use crate::complex::{FullComplex, Peer};
use crate::vcpu::FullVcpu;
use crate::views::Views;

/// The engine.
#[derive(Debug, Default, Clone, Copy)]
pub struct FullEngine;

/// What is missing of what translated code uses on every host.
fn missing() -> Option<&'static str> {
    if !std::arch::is_x86_feature_detected!("bmi2") {
        return Some("the host's CPU has no PEXT (BMI2)");
    }
    // AT_HWCAP2, bit 1: the kernel lets user code write segment bases (Linux 5.9).
    if rustix::param::linux_hwcap().1 & 2 == 0 {
        return Some(
            "the host's kernel does not let programs use WRFSBASE (Linux 5.9 and CPUs \
            since 2012 and 2017 do)",
        );
    }
    None
}

impl Engine for FullEngine {
    fn kind(&self) -> EngineKind {
        EngineKind::Full
    }

    fn check(&self, _profile: &CpuProfile) -> Result<(), Unsupported> {
        // A process that is caged later cannot ask the host then.
        tsc::is_steady();
        match missing() {
            Some(reason) => Err(Unsupported {
                engine: EngineKind::Full,
                reason: reason.to_owned(),
                remedy: "use --engine emu".to_owned(),
            }),
            None => Ok(()),
        }
    }

    fn build(&self, profile: &CpuProfile, parts: &Parts) -> Result<Built, EngineError> {
        self.check(profile)?;
        build(profile, parts, None)
    }
}

/// The engine, with all that translated code does done again by the interpreter: see `check`. For
/// tests; machines of more than one vCPU are not checked.
#[derive(Clone)]
pub struct CheckedEngine {
    /// Every unit by itself, so that a mistake is found where it is made. Without, translated
    /// code runs as it does in the engine.
    pub by_unit: bool,
    /// What has been checked.
    pub checked: Arc<Checked>,
    /// Told of each divergence. The copy then takes over what translated code did.
    pub tell: Tell,
    /// Bytes of memory for translated code, about.
    pub code_bytes: usize,
}

impl Engine for CheckedEngine {
    fn kind(&self) -> EngineKind {
        EngineKind::Full
    }

    fn check(&self, profile: &CpuProfile) -> Result<(), Unsupported> {
        FullEngine.check(profile)
    }

    fn build(&self, profile: &CpuProfile, parts: &Parts) -> Result<Built, EngineError> {
        self.check(profile)?;
        let one = profile.topology().cores == 1;
        build(profile, parts, one.then_some(self))
    }
}

fn build(
    profile: &CpuProfile,
    parts: &Parts,
    checked: Option<&CheckedEngine>,
) -> Result<Built, EngineError> {
    if parts.clock.source() == TimeSource::Counted {
        return Err(EngineError::Unsupported(Unsupported {
            engine: EngineKind::Full,
            reason: "it does not count instructions".to_owned(),
            remedy: "use --engine emu".to_owned(),
        }));
    }
    let refused = |operation| move |source| EngineError::Host { operation, source };
    let soft = Complex::new(profile, parts);
    let code_bytes = checked.map_or(CODE_SIZE, |checked| checked.code_bytes);
    let mut cache = Cache::new(code_bytes).map_err(refused("map memory for translated code"))?;
    cache.links = checked.is_none_or(|checked| !checked.by_unit);
    let miss = cache.memory.address(cache.miss);
    let again = cache.jump_again.map(|place| cache.memory.address(place));
    let mut views = Vec::new();
    let mut peers = Vec::new();
    for slot in &soft.slots {
        let (own, kick) =
            Views::new(miss, again, soft.slots.len()).map_err(refused("reserve addresses"))?;
        slot.mail.set_alarm(kick.clone());
        views.push(own);
        peers.push(Peer::new(kick));
    }
    let complex = Arc::new(FullComplex::new(soft.clone(), cache, peers, checked.is_none()));
    let vcpus = views.into_iter().zip(0..).map(|(views, id)| {
        let soft = SoftVcpu::new(&soft, VcpuId(id))?;
        let check = checked
            .map(|c| Check::new(profile, parts, c.by_unit, c.checked.clone(), c.tell.clone()));
        let vcpu = FullVcpu::new(soft, complex.clone(), views, check.transpose()?);
        Ok(Box::new(vcpu) as Box<dyn Vcpu>)
    });
    let vcpus = vcpus.collect::<Result<_, EngineError>>()?;
    Ok(Built { complex: complex as Arc<dyn CpuComplex>, vcpus })
}
