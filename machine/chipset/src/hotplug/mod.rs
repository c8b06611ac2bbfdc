//! The hot-plug controller: what has come, what is asked to go, and what the guest lets go.
//!
//! CPUs and memory only come. They stay over a reset, as if they had always been there; PCI devices
//! that were asked to go are gone after one.

pub mod spec;
mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};

use bus::{BusDevice, Device, Saved, Section, SectionError};

use crate::{Pm, lock};
use spec::*;
use state::{SavedHotplug, State};

/// How many there are of each, and from the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HotplugConfig {
    /// CPUs at power-up; at least one.
    pub cpus: u32,
    /// CPUs at most; 32 at most.
    pub cpus_max: u32,
    /// Blocks of memory that can come; 32 at most.
    pub blocks_max: u32,
}

/// What follows. Called without the controller's lock, on a vCPU's thread or that of who plugs.
pub trait HotplugSink: Send + Sync {
    /// The guest lets go of the devices in these PCI slots.
    fn ejected(&self, slots: u32);
    /// So many blocks of memory are there, from the first on.
    fn memory_blocks(&self, count: u32);
}

/// The device.
pub struct Hotplug {
    // Fixed configuration.
    config: HotplugConfig,
    // Wiring.
    pm: Arc<Pm>,
    sink: Box<dyn HotplugSink>,
    // State.
    state: Mutex<State>,
}

/// The lowest `count` of a set.
const fn first(count: u32) -> u32 {
    if count >= u32::BITS { u32::MAX } else { (1 << count) - 1 }
}

impl Hotplug {
    /// A controller that raises events of `pm`.
    ///
    /// # Panics
    /// When the configuration is impossible: the board's mistake.
    pub fn new(config: HotplugConfig, pm: Arc<Pm>, sink: Box<dyn HotplugSink>) -> Arc<Self> {
        let HotplugConfig { cpus, cpus_max, blocks_max } = config;
        assert!((1..=cpus_max).contains(&cpus) && cpus_max <= 32 && blocks_max <= 32);
        let state = Mutex::new(State { cpus: first(cpus), ..State::default() });
        Arc::new(Self { config, pm, sink, state })
    }

    /// A device was put into this PCI slot, which the guest may let go later.
    pub fn plugged(&self, slot: u8) {
        let mut state = lock(&self.state);
        state.pci_removable |= 1 << slot;
        state.pci_up |= 1 << slot;
        drop(state);
        self.pm.raise_gpe(GPE);
    }

    /// A device that is there from the beginning may go, too.
    pub fn set_removable(&self, slot: u8) {
        lock(&self.state).pci_removable |= 1 << slot;
    }

    /// The guest shall let the device of this slot go.
    pub fn ask_to_go(&self, slot: u8) {
        lock(&self.state).pci_down |= 1 << slot;
        self.pm.raise_gpe(GPE);
    }

    /// CPUs that are there: always the first.
    pub fn cpus(&self) -> u32 {
        lock(&self.state).cpus.count_ones()
    }

    /// Blocks of memory that are there: always the first.
    pub fn blocks(&self) -> u32 {
        lock(&self.state).memory.count_ones()
    }

    /// There are so many CPUs now; never fewer than before, or more than can be.
    pub fn set_cpus(&self, count: u32) {
        let mut state = lock(&self.state);
        let now = first(count.min(self.config.cpus_max)) | state.cpus;
        state.cpus_new |= now & !state.cpus;
        state.cpus = now;
        drop(state);
        self.pm.raise_gpe(GPE);
    }

    /// There are so many blocks of memory now; never fewer than before, or more than can be.
    pub fn set_blocks(&self, count: u32) {
        let mut state = lock(&self.state);
        let now = first(count.min(self.config.blocks_max)) | state.memory;
        state.memory_new |= now & !state.memory;
        state.memory = now;
        drop(state);
        self.sink.memory_blocks(now.count_ones());
        self.pm.raise_gpe(GPE);
    }

    /// Takes away what can go.
    fn eject(&self, slots: u32) {
        let mut state = lock(&self.state);
        let slots = slots & state.pci_removable;
        state.pci_removable &= !slots;
        state.pci_up &= !slots;
        state.pci_down &= !slots;
        drop(state);
        if slots != 0 {
            self.sink.ejected(slots);
        }
    }
}

impl BusDevice for Hotplug {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let state = *lock(&self.state);
        let value = match offset {
            PCI_UP => state.pci_up,
            PCI_DOWN => state.pci_down,
            PCI_EJECT => state.pci_removable,
            CPU_PRESENT => state.cpus,
            CPU_NEW => state.cpus_new,
            MEMORY_PRESENT => state.memory,
            MEMORY_NEW => state.memory_new,
            _ => 0,
        };
        let value = value.to_le_bytes();
        let size = data.len().min(value.len());
        data[..size].copy_from_slice(&value[..size]);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let Ok(bytes) = <[u8; 4]>::try_from(data) else { return };
        let value = u32::from_le_bytes(bytes);
        let mut state = lock(&self.state);
        match offset {
            PCI_UP => state.pci_up &= !value,
            PCI_DOWN => state.pci_down &= !value,
            PCI_EJECT => {
                drop(state);
                self.eject(value);
            }
            CPU_NEW => state.cpus_new &= !value,
            MEMORY_NEW => state.memory_new &= !value,
            _ => {}
        }
    }
}

impl Device for Hotplug {
    fn reset(&self) {
        let mut state = lock(&self.state);
        let going = state.pci_down;
        let State { pci_removable, cpus, memory, .. } = *state;
        *state = State { pci_removable, cpus, memory, ..State::default() };
        drop(state);
        self.eject(going);
    }

    fn save(&self) -> Section {
        Section::encode(&SavedHotplug::from(*lock(&self.state)))
    }

    fn restore(&self, section: &Section) -> Result<(), SectionError> {
        let SavedHotplug { pci_up, pci_down, cpus, cpus_new, memory, memory_new } =
            section.decode()?;
        let (cpu_count, blocks) = (cpus.count_ones(), memory.count_ones());
        let HotplugConfig { cpus: least, cpus_max, blocks_max } = self.config;
        let possible = cpus == first(cpu_count)
            && (least..=cpus_max).contains(&cpu_count)
            && memory == first(blocks)
            && blocks <= blocks_max;
        if !possible {
            let reason = format!("it has CPUs {cpus:#x} and memory {memory:#x}");
            return Err(SectionError::Impossible { kind: SavedHotplug::KIND, reason });
        }
        let mut state = lock(&self.state);
        let pci_removable = state.pci_removable;
        let [pci_up, pci_down] = [pci_up, pci_down].map(|slots| slots & pci_removable);
        let (cpus_new, memory_new) = (cpus_new & cpus, memory_new & memory);
        *state = State { pci_up, pci_down, pci_removable, cpus, cpus_new, memory, memory_new };
        drop(state);
        self.sink.memory_blocks(blocks);
        Ok(())
    }
}
