//! Disk controllers that are not virtio's.

use std::sync::Arc;

use ahci::{Ahci, AhciWiring, PORTS_MAX};
use pci::DevFn;
use virtio::Dispatch;

use super::wiring::{Board, Outside};
use crate::spec::MachineSpec;

/// Where such controllers begin on the bus, after `virtio` disks, and how many places they take.
pub(super) fn places(spec: &MachineSpec) -> usize {
    spec.sata.len().div_ceil(PORTS_MAX)
}

impl Board {
    /// Plugs in the controllers of `spec`, from device `first` on.
    pub(super) fn add_controllers(
        &mut self,
        spec: &mut MachineSpec,
        outside: &Outside<'_>,
        first: u8,
    ) {
        let event_loop = match &spec.dispatch {
            Dispatch::Inline => None,
            Dispatch::Loops(loops) => loops.first().cloned(),
        };
        let wiring = AhciWiring {
            memory: outside.memory.clone(),
            spaces: self.spaces(),
            msi: outside.socket.clone(),
            event_loop,
        };
        let drives = std::mem::take(&mut spec.sata);
        for (device, drives) in (first..).zip(drives.chunks(PORTS_MAX)) {
            let ahci = Ahci::new(drives.to_vec(), &wiring);
            let at = DevFn::new(device, 0);
            self.plug(at, ahci.function().clone());
            self.sata.push((at, ahci));
        }
    }

    /// Every controller, as a part of the machine.
    pub(super) fn add_controller_parts(&mut self) {
        for (at, ahci) in &self.sata {
            let part: Arc<Ahci> = ahci.clone();
            self.parts.push(format!("pci/{at}/ahci"), part);
        }
    }
}
