//! The engines of this host.

use std::sync::Arc;

use engine::Engine;
use engine_emu::EmuEngine;
use engine_full::FullEngine;
use engine_hw::HwEngine;
use x86_state::{CpuProfile, Topology};

use crate::{Case, End, MIDDLE, OnEngine, Outcome, Random, Subject};

/// What a host cannot show of an engine, whatever the engine does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Its KVM runs no 32-bit code in ring 3 of a 64-bit guest.
    pub no_32_bit: bool,
    /// Its KVM does not give guests the exception the CPU raised.
    pub wrong_exceptions: bool,
    /// It translates: arithmetic flags that later code overwrites may differ at an exception, and
    /// that an indirect jump's target is not canonical raises its exception at the target.
    pub translates: bool,
}

impl Limits {
    /// The host cannot run this, which ends so on the bare CPU.
    pub(crate) fn exclude(&self, case: &Case, native: &Outcome) -> bool {
        self.no_32_bit && case.code_bits == 32 || self.wrong_exceptions && native.end != End::Done
    }

    /// What two small cases show.
    fn find(subject: &mut dyn Subject) -> Self {
        let mut ends = |code: &[u8], code_bits| {
            let mut case = Case::random(code.to_vec(), code_bits, true, &mut Random(1));
            case.state.gpr[0] = MIDDLE + 1;
            subject.run(&case).end
        };
        // NOP; ADDPD XMM0, [RAX]: misaligned
        let no_32_bit = ends(&[0x90], 32) != End::Done;
        let wrong_exceptions = ends(&[0x66, 0x0f, 0x58, 0x00], 64) != End::Raised(13);
        Self { no_32_bit, wrong_exceptions, translates: false }
    }
}

/// A subject, and what cannot be asked of it here.
pub struct Measured {
    /// The subject.
    pub subject: Box<dyn Subject>,
    /// What cannot be asked.
    pub limits: Limits,
}

/// Every engine that can run here, as a subject; those that cannot are reported as not run.
pub fn subjects() -> Vec<Measured> {
    let mut subjects = Vec::new();
    let emu: Arc<dyn Engine> = Arc::new(EmuEngine);
    let emu = harness::Subject { engine: emu, tsc_khz: 2_000_000, beyond_host: Vec::new() };
    for stepped in [false, true] {
        let subject = Box::new(OnEngine::new(&emu, stepped));
        subjects.push(Measured { subject, limits: Limits::default() });
    }
    let full: Arc<dyn Engine> = Arc::new(FullEngine);
    let full = harness::Subject { engine: full, tsc_khz: 2_000_000, beyond_host: Vec::new() };
    let profile = CpuProfile::portable(Topology { cores: 1 }, full.tsc_khz).unwrap();
    match full.engine.check(&profile) {
        Ok(()) => {
            let subject = Box::new(OnEngine::new(&full, false));
            let limits = Limits { translates: true, ..Limits::default() };
            subjects.push(Measured { subject, limits });
        }
        Err(lacks) => println!("NOT RUN: full: {}", lacks.reason),
    }
    // Cases use what every x86-64 host has, so half a KVM will do.
    let hw = HwEngine::for_any_cpuid();
    match hw.tsc_khz() {
        Ok(tsc_khz) => {
            let hw = harness::Subject { engine: Arc::new(hw), tsc_khz, beyond_host: Vec::new() };
            let mut subject = Box::new(OnEngine::new(&hw, false));
            let limits = Limits::find(&mut *subject);
            if limits.no_32_bit {
                println!("NOT RUN: hw, 32-bit code: this host's KVM does not run it");
            }
            if limits.wrong_exceptions {
                println!("NOT RUN: hw, exceptions: this host's KVM gives guests others");
            }
            subjects.push(Measured { subject, limits });
        }
        Err(lacks) => println!("NOT RUN: hw: {}", lacks.reason),
    }
    let wanted = std::env::var("TRINE_ISA_ENGINE").unwrap_or_default();
    subjects.retain(|s| s.subject.name().starts_with(&wanted));
    subjects
}
