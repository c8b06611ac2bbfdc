//! How devices tell the board that the guest wants power.

/// What the guest asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerEvent {
    /// ACPI S5.
    PowerOff,
    /// A reset of the whole machine.
    Reset,
    /// The debug port: end the run with this exit status.
    DebugExit(u32),
}

/// The board, as seen from devices that end runs.
pub trait PowerSink: Send + Sync {
    /// The guest asked for this. Called under the device's lock, on a vCPU's thread: note it and
    /// return. The guest may go on for a few instructions and ask again.
    fn power(&self, event: PowerEvent);
}
