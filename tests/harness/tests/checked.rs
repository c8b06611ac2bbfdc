//! Every contract on `full` with all that its translated code does checked by the interpreter, unit
//! by unit and as units are linked. What takes several CPUs runs unchecked.

use std::process::ExitCode;
use std::sync::Arc;

use engine::{Engine, EngineKind};
use engine_full::{CODE_SIZE, CheckedEngine};
use harness::{Candidate, Subject, contracts, run};
use x86_state::{CpuProfile, Topology};

fn main() -> ExitCode {
    let codes = [true, false].map(|by_unit| run(&[checked(by_unit)], &contracts()));
    if codes == [ExitCode::SUCCESS; 2] { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn checked(by_unit: bool) -> Candidate {
    let engine = Arc::new(CheckedEngine {
        by_unit,
        checked: Arc::default(),
        tell: Arc::new(|divergence| panic!("{divergence:#x?}")),
        code_bytes: CODE_SIZE,
    });
    let usable = CpuProfile::portable(Topology { cores: 1 }, 2_000_000)
        .map_err(|e| e.to_string())
        .and_then(|profile| engine.check(&profile).map_err(|e| e.reason));
    let beyond_host = vec![
        ("memory_stays_there_while_the_view_changes", "memory changes while it is compared"),
        ("halt_costs_no_cpu_time", "checking does"),
        ("the_dirty_log_has_what_was_written", "checking takes the bits"),
    ];
    let subject = usable.map(|()| Subject { engine, tsc_khz: 2_000_000, beyond_host });
    Candidate { kind: EngineKind::Full, subject }
}
