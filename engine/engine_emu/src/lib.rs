//! `emu`: software virtualization. Every instruction is interpreted, in safe Rust.
//!
//! [`x86_exec`] says what instructions do and [`engine_soft`] what is around a CPU; this crate is
//! the loop: one host thread a vCPU, slice after slice.
//!
//! With a counted clock ([`machine_clock::TimeSource::Counted`]) the instructions drive the time:
//! one is a nanosecond, vCPUs take turns, and two runs of the same guest are identical.
//!
//! *Invariants*: no unsafe code, no OS but threads.
//!
//! *Locks*: the table of turns is a leaf.

#![forbid(unsafe_code)]

mod turns;
mod vcpu;

use std::sync::Arc;

use engine::{Built, Engine, EngineError, EngineKind, Parts, Unsupported, Vcpu};
use engine_soft::Complex;
use machine_clock::TimeSource;
use x86_state::{CpuProfile, ProfileClass, VcpuId};

use turns::Turns;
use vcpu::EmuVcpu;

/// The interpreter.
#[derive(Debug, Clone, Copy, Default)]
pub struct EmuEngine;

impl Engine for EmuEngine {
    fn kind(&self) -> EngineKind {
        EngineKind::Emu
    }

    fn check(&self, profile: &CpuProfile) -> Result<(), Unsupported> {
        match profile.class() {
            ProfileClass::Portable => Ok(()),
            ProfileClass::Pinned => Err(Unsupported {
                engine: EngineKind::Emu,
                reason: "its CPU profile is pinned to another engine".to_owned(),
                remedy: "use the portable one".to_owned(),
            }),
        }
    }

    fn build(&self, profile: &CpuProfile, parts: &Parts) -> Result<Built, EngineError> {
        self.check(profile)?;
        let complex = Complex::new(profile, parts);
        let cores = profile.topology().cores;
        let counted = parts.clock.source() == TimeSource::Counted;
        let turns = counted.then(|| Arc::new(Turns::new(cores as usize)));
        let vcpus = (0..cores)
            .map(|id| {
                let vcpu = EmuVcpu::new(&complex, VcpuId(id), turns.clone())?;
                Ok(Box::new(vcpu) as Box<dyn Vcpu>)
            })
            .collect::<Result<_, EngineError>>()?;
        Ok(Built { complex, vcpus })
    }
}
