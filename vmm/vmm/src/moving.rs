//! A running VM goes on in another engine (design, "Moving a running VM").
//!
//! 1. All vCPUs stand and the clock stops.
//! 2. The socket is unplugged: senders of interrupts wait.
//! 3. Every vCPU is saved on its thread.
//! 4. The other engine is built and told everything.
//! 5. It is plugged in; senders, clock and vCPUs go on; only now the old one is dropped.
//!
//! What fails before 5 leaves the old one in place, which goes on as if nothing had been.

use std::sync::Arc;

use board::Machine;
use engine::{Built, CpuComplex, Engine, EngineError};
use x86_state::VcpuState;

use crate::VmError;
use crate::cpus::Cpus;

/// Loads what vCPUs that stand have saved, for them to go on where the clock was stopped: a
/// kernel's APIC timers run while a VM stands (contract of [`engine::Vcpu::run`]). Senders of
/// interrupts wait meanwhile, or one that comes between the two would be lost.
pub(crate) fn reload(machine: &Machine, cpus: &mut Cpus) -> Result<(), VmError> {
    reload_with(machine, cpus, |_| ())
}

/// The same, with changed states.
pub(crate) fn reload_with(
    machine: &Machine,
    cpus: &mut Cpus,
    change: impl FnOnce(&mut [VcpuState]),
) -> Result<(), VmError> {
    let _unplugged = machine.socket().unplug();
    let mut states = cpus.save()?;
    change(&mut states);
    cpus.load(states)
}

/// Steps 2 to 5 for vCPUs that stand. They stand afterwards, in the new engine or, after an
/// error, in the old one. What is left of the old engine is returned: taking it down can take the
/// host milliseconds, which the guest need not wait for.
pub(crate) fn change_engine(
    machine: &Machine,
    cpus: &mut Cpus,
    engine: &Arc<dyn Engine>,
) -> Result<Option<Arc<dyn CpuComplex>>, VmError> {
    let failed = |source: EngineError| VmError::Engine { engine: engine.kind(), source };
    engine.check(machine.profile()).map_err(VmError::Unsupported)?;
    let unplugged = machine.socket().unplug();
    let states = cpus.save()?;
    let parts = machine.engine_parts();
    let Built { complex, vcpus } = engine.build(machine.profile(), &parts).map_err(failed)?;
    assert_eq!(vcpus.len(), states.len(), "engine {} built too few vCPUs", engine.kind());
    unplugged.prepare(&*complex).map_err(failed)?;
    if let Err(error) = cpus.prepare(vcpus, states) {
        cpus.abort()?;
        return Err(error);
    }
    match unplugged.plug(complex.clone()) {
        Ok(old) => cpus.commit(complex).map(|()| old),
        Err(error) => {
            cpus.abort()?;
            Err(failed(error))
        }
    }
}
