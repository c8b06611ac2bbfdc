//! From what an operator asks for to a VM that is ready to run.

use std::fs;
use std::sync::Arc;

use board::{Machine, MachineSpec};
use engine_hw::{HwEngine, Probe};
use machine_clock::{MachineClock, TimeSource};
use x86_state::{CpuProfile, Topology, VcpuId, VcpuState};

use crate::vm::Boot;
use crate::{Console, EngineChoice, Engines, Inbox, Output, Vm, VmConfig, VmError, VmSpec, boot};

/// The TSC's rate where there is no KVM to say the host's: one tick a nanosecond.
const TSC_KHZ_WITHOUT_KVM: u32 = 1_000_000;

/// A VM that is ready to run, and what belongs to it.
pub struct Launched {
    /// It. Its guest's first instruction comes with [`Vm::run`].
    pub vm: Vm,
    /// Its time, for [`Io::serve_clock`](crate::Io::serve_clock).
    pub clock: Arc<MachineClock>,
    /// Its consoles: the serial port, and the virtio console if it has one.
    pub consoles: Vec<Console>,
    /// What to flush at the end.
    pub outputs: Vec<Arc<Output>>,
    /// The engine and why it, in one line.
    pub engine: String,
}

/// Builds a VM. `inbox` will be its owner's.
///
/// # Errors
/// When a file or a number is not what it must be, or the host or the engine refuses. Nothing is
/// left behind then.
pub fn launch(spec: VmSpec, inbox: &Arc<Inbox>) -> Result<Launched, VmError> {
    let mut images = boot::open(&spec)?;
    check_host_memory(spec.memory_bytes)?;
    let hw = Arc::new(HwEngine::new());
    let tsc_khz = hw.tsc_khz().unwrap_or(TSC_KHZ_WITHOUT_KVM);
    let profile = CpuProfile::portable(Topology { cores: spec.cpus }, tsc_khz)?;
    let engines = engines(hw);
    let chosen = engines.choose(engine_choice(&spec)?, &profile)?;
    let engine = format!("engine {}: {}", chosen.engine.kind(), chosen.reason);

    let serial = Console::new(&spec.serial)?;
    let consoles = vec![serial];
    let outputs: Vec<_> = consoles.iter().filter_map(|c| c.output().cloned()).collect();
    let mut machine = MachineSpec::new(profile, spec.memory_bytes);
    machine.debug_exit = spec.debug_exit;
    machine.testdev = spec.testdev;
    if spec.deterministic {
        machine.time = TimeSource::Counted;
    }
    let machine = Machine::build(machine, inbox.clone())?;
    let clock = machine.clock().clone();
    let boot: Boot = Box::new(move |machine| {
        let entry = ::boot::load(&machine.memory().dma(), machine.layout(), &mut images)?;
        let mut state = VcpuState::at_reset(machine.profile(), VcpuId(0));
        entry.apply(&mut state);
        Ok(state)
    });
    let config =
        VmConfig { chosen, engines, boot, on_reset: spec.on_reset, outputs: outputs.clone() };
    let vm = Vm::new(machine, inbox.clone(), config)?;
    Ok(Launched { vm, clock, consoles, outputs, engine })
}

/// The engines of this program, the best first.
fn engines(hw: Arc<HwEngine>) -> Engines {
    let mut engines = Engines::new();
    engines.add(hw, || match engine_hw::probe() {
        probe @ Probe::Usable { .. } => Ok(probe.to_string()),
        probe => Err(probe.to_string()),
    });
    engines
}

/// Only the interpreter counts instructions, and only one CPU's are in one order.
fn engine_choice(spec: &VmSpec) -> Result<EngineChoice, VmError> {
    let emu = EngineChoice::Fixed(engine::EngineKind::Emu);
    match spec.engine {
        choice if !spec.deterministic => Ok(choice),
        EngineChoice::Auto => Ok(emu),
        choice if choice == emu => Ok(emu),
        _ => Err(VmError::NotDeterministic),
    }
}

/// Guest memory is taken as the guest touches it, and a host that then has none left kills the
/// process. What it can never have is refused here.
fn check_host_memory(asked_bytes: u64) -> Result<(), VmError> {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = |field: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(field))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    let Some(ram) = kib("MemTotal:") else { return Ok(()) };
    let has_bytes = (ram + kib("SwapTotal:").unwrap_or(0)) * 1024;
    if asked_bytes > has_bytes {
        return Err(VmError::HostMemory { asked_mib: asked_bytes >> 20, has_mib: has_bytes >> 20 });
    }
    Ok(())
}
