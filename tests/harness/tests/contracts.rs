//! Every contract on every engine, as far as this host can run it.

use std::process::ExitCode;
use std::sync::Arc;

use engine::{Engine, EngineKind, Unsupported};
use engine_emu::EmuEngine;
use engine_full::FullEngine;
use engine_hw::HwEngine;
use harness::{Candidate, Subject, contracts, run};
use x86_state::{CpuProfile, Topology};

fn main() -> ExitCode {
    run(&[hw(), full(), emu()], &contracts())
}

/// Contracts' guests need little of the CPU, so a host that lacks features of the profile runs
/// those that do not depend on them.
fn hw() -> Candidate {
    let subject = || -> Result<Subject, Unsupported> {
        let engine = HwEngine::new();
        let tsc_khz = engine.tsc_khz()?;
        let mut subject = Subject { engine: Arc::new(engine), tsc_khz, beyond_host: Vec::new() };
        let profile = CpuProfile::portable(Topology { cores: 1 }, tsc_khz)
            .map_err(|e| Unsupported {
                engine: EngineKind::Hw,
                reason: e.to_string(),
                remedy: String::new(),
            })?
            .without_pcid();
        if let Err(lacks) = subject.engine.check(&profile) {
            println!("hw: without some contracts: {lacks}");
            subject.engine = Arc::new(HwEngine::for_any_cpuid());
            let reason = "this host's KVM has no CPU of the profile";
            for name in [
                "cpuid_is_the_profiles",
                "what_the_profile_is_without_faults",
                "the_tsc_stands_while_the_clock_stands",
                "locked_accesses_are_atomic_wherever_they_are",
            ] {
                subject.beyond_host.push((name, reason));
            }
        }
        let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        if cpu.contains("QEMU TCG CPU") {
            let reason = "QEMU's SVM does not load debug registers";
            let name = "a_breakpoint_stops_before_its_instruction_and_is_passed";
            subject.beyond_host.push((name, reason));
        }
        Ok(subject)
    };
    Candidate { kind: EngineKind::Hw, subject: subject().map_err(|e| e.reason) }
}

fn emu() -> Candidate {
    let subject =
        Subject { engine: Arc::new(EmuEngine), tsc_khz: 2_000_000, beyond_host: Vec::new() };
    Candidate { kind: EngineKind::Emu, subject: Ok(subject) }
}

fn full() -> Candidate {
    let engine = Arc::new(FullEngine);
    let usable = CpuProfile::portable(Topology { cores: 1 }, 2_000_000)
        .map_err(|e| e.to_string())
        .and_then(|profile| engine.check(&profile).map_err(|e| e.reason));
    let subject = usable.map(|()| Subject { engine, tsc_khz: 2_000_000, beyond_host: Vec::new() });
    Candidate { kind: EngineKind::Full, subject }
}
