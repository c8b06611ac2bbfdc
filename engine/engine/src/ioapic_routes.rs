//! The IOAPIC's redirection table, as messages.

use x86_state::Msi;

/// What each input of the IOAPIC sends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IoApicRoutes {
    /// By input: the message, or `None` when masked or never programmed.
    pub entries: Vec<Option<Msi>>,
}

impl IoApicRoutes {
    /// An input with this vector is level-triggered.
    pub fn has_level(&self, vector: u8) -> bool {
        self.entries.iter().flatten().any(|m| m.level_triggered() && m.vector() == vector)
    }
}
