//! The state, and its saved form.

use bus::Saved;
use minicbor::{Decode, Encode};

/// What changes while the guest runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct State {
    pub pci_up: u32,
    pub pci_down: u32,
    pub pci_removable: u32,
    pub cpus: u32,
    pub cpus_new: u32,
    pub memory: u32,
    pub memory_new: u32,
}

/// Version 1. Which slots have devices that can go follows from what is plugged in.
#[derive(Encode, Decode)]
#[cbor(map)]
pub(super) struct SavedHotplug {
    #[n(0)]
    pub(super) pci_up: u32,
    #[n(1)]
    pub(super) pci_down: u32,
    #[n(2)]
    pub(super) cpus: u32,
    #[n(3)]
    pub(super) cpus_new: u32,
    #[n(4)]
    pub(super) memory: u32,
    #[n(5)]
    pub(super) memory_new: u32,
}

impl Saved for SavedHotplug {
    const KIND: &'static str = "hotplug";
    const VERSION: u16 = 1;
}

impl From<State> for SavedHotplug {
    fn from(state: State) -> Self {
        let State { pci_up, pci_down, pci_removable: _, cpus, cpus_new, memory, memory_new } =
            state;
        Self { pci_up, pci_down, cpus, cpus_new, memory, memory_new }
    }
}
