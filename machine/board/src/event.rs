//! What the machine tells its owner.

use std::sync::{Arc, Mutex, PoisonError};

use engine::EngineError;

/// Something only the owner of the machine can act on.
#[derive(Debug)]
pub enum MachineEvent {
    /// The guest has turned itself off.
    PowerOff,
    /// The guest has reset itself.
    Reset,
    /// The guest has ended the run with this exit status, through the debug-exit port.
    DebugExit(u32),
    /// The engine failed while a device was talking to it; the VM cannot go on.
    Failed(EngineError),
}

/// Who is told. Called from vCPU and I/O threads, under a device's lock: it may queue and kick,
/// nothing else.
pub trait MachineOwner: Send + Sync {
    /// It has happened.
    fn event(&self, event: MachineEvent);
}

/// An owner that keeps what it is told, for tests and simple programs.
#[derive(Default)]
pub struct EventLog(Mutex<Vec<MachineEvent>>);

impl EventLog {
    /// Empty.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// What was told since the last call.
    pub fn take(&self) -> Vec<MachineEvent> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl MachineOwner for EventLog {
    fn event(&self, event: MachineEvent) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }
}
