//! The level-triggered part of the IOAPIC's redirection table, as messages.

use x86_state::Msi;

/// What the level-triggered inputs of the IOAPIC send: an engine has to tell the end of these
/// vectors' interrupts, and of no others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IoApicRoutes {
    /// By input: the message, masked or not (what was sent before will still be ended); `None`
    /// when edge-triggered.
    pub entries: Vec<Option<Msi>>,
}

impl IoApicRoutes {
    /// An input with this vector is level-triggered.
    pub fn has_level(&self, vector: u8) -> bool {
        self.entries.iter().flatten().any(|m| m.level_triggered() && m.vector() == vector)
    }
}
