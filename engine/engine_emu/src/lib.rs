//! `emu`: software virtualization. Every instruction is interpreted, in safe Rust.
//!
//! [`x86_exec`] says what instructions do and [`x86_lapic`] what the APIC does; this crate puts
//! them into the socket: one host thread a vCPU, memory and bus around it, interrupts in, time.
//!
//! With a counted clock ([`machine_clock::TimeSource::Counted`]) the instructions drive the time:
//! one is a nanosecond, vCPUs take turns, and two runs of the same guest are identical.
//!
//! *Invariants*: no unsafe code, no OS but threads, sleep and randomness. Mail (interrupts, kicks)
//! is never lost: see `mailbox`.
//!
//! *Locks*, in order: a turn (counted clock only), then one local APIC; no two APICs at once, and
//! no bus call under either.

mod complex;
mod env;
mod mailbox;
mod time;
mod turns;
mod vcpu;

use engine::{Built, Engine, EngineError, EngineKind, Parts, Unsupported, Vcpu};
use x86_state::{CpuProfile, ProfileClass, VcpuId};

use complex::Complex;
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
                reason: "its CPU profile is pinned to another engine; use the portable one".into(),
            }),
        }
    }

    fn build(&self, profile: &CpuProfile, parts: &Parts) -> Result<Built, EngineError> {
        self.check(profile)?;
        let complex = Complex::new(profile, parts);
        let vcpus = (0..profile.topology().cores)
            .map(|id| Ok(Box::new(EmuVcpu::new(&complex, VcpuId(id))?) as Box<dyn Vcpu>))
            .collect::<Result<_, EngineError>>()?;
        Ok(Built { complex, vcpus })
    }
}
