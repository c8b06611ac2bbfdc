//! Disk controllers and network cards that are not virtio's.

use std::sync::Arc;

use ahci::{Ahci, AhciWiring, Drive, PORTS_MAX};
use bus::Device;
use e1000::{E1000, E1000Wiring};
use nvme::{Nvme, NvmeConfig, NvmeWiring};
use pci::DevFn;
use virtio::Dispatch;

use super::wiring::{Board, DISK_QUEUES_MAX, FIRST_DISK, Outside};
use crate::spec::{BootKind, BuildError, DiskSpec, MachineSpec, NetSpec};

/// A controller.
pub(super) enum Controller {
    Sata(Arc<Ahci>),
    Nvme(Arc<Nvme>),
    E1000(Arc<E1000>),
}

impl Controller {
    pub(super) fn pause(&self) {
        match self {
            Self::Sata(controller) => controller.pause(),
            Self::Nvme(controller) => controller.pause(),
            Self::E1000(card) => card.pause(),
        }
    }

    pub(super) fn resume(&self) {
        match self {
            Self::Sata(controller) => controller.resume(),
            Self::Nvme(controller) => controller.resume(),
            Self::E1000(card) => card.resume(),
        }
    }

    fn part(&self) -> (&'static str, Arc<dyn Device>) {
        match self {
            Self::Sata(controller) => ("ahci", controller.clone()),
            Self::Nvme(controller) => ("nvme", controller.clone()),
            Self::E1000(card) => ("e1000", card.clone()),
        }
    }
}

/// How many places on the bus they take.
pub(super) fn places(spec: &MachineSpec) -> usize {
    spec.sata.len().div_ceil(PORTS_MAX) + spec.nvme.len()
}

/// Drives to boot from, as Open Firmware calls them.
pub(super) fn boot_paths(spec: &MachineSpec) -> impl Iterator<Item = (BootKind, String)> + '_ {
    let first = usize::from(FIRST_DISK) + spec.disks.len();
    let first_nvme = first + spec.sata.len().div_ceil(PORTS_MAX);
    // Firmware knows the namespace of an NVMe controller behind the name of QEMU's first one only.
    let nvme = (first_nvme..first_nvme + spec.nvme.len())
        .map(|device| (BootKind::Disk, format!("pci8086,5845@{device:x}/namespace@1,0")));
    let sata = spec.sata.iter().enumerate().map(move |(n, drive)| {
        let (device, port) = (first + n / PORTS_MAX, n % PORTS_MAX);
        let is_cdrom = matches!(drive, Drive::Cdrom { .. });
        let kind = if is_cdrom { BootKind::Cdrom } else { BootKind::Disk };
        (kind, format!("pci8086,2922@{device:x}/drive@{port:x}/disk@0"))
    });
    sata.chain(nvme)
}

impl Board {
    /// Plugs in the controllers of `spec`, from device `first` on.
    pub(super) fn add_controllers(
        &mut self,
        spec: &mut MachineSpec,
        outside: &Outside<'_>,
        first: u8,
    ) {
        let event_loops = match &spec.dispatch {
            Dispatch::Inline => Vec::new(),
            Dispatch::Loops(loops) => loops.clone(),
        };
        let sata = AhciWiring {
            memory: outside.memory.clone(),
            spaces: self.spaces(),
            msi: outside.socket.clone(),
            event_loop: event_loops.first().cloned(),
        };
        let nvme = NvmeWiring {
            memory: outside.memory.clone(),
            spaces: self.spaces(),
            msi: outside.socket.clone(),
            event_loops,
        };
        let queues = spec.profile.topology().cores.min(DISK_QUEUES_MAX) as u16;
        let mut places = (first..).map(|device| DevFn::new(device, 0));
        let drives = std::mem::take(&mut spec.sata);
        for (drives, at) in drives.chunks(PORTS_MAX).zip(places.by_ref()) {
            let ahci = Ahci::new(drives.to_vec(), &sata);
            self.plug(at, ahci.function().clone());
            self.controllers.push((at, Controller::Sata(ahci)));
        }
        for (DiskSpec { disk, serial }, at) in
            std::mem::take(&mut spec.nvme).into_iter().zip(places)
        {
            let nvme = Nvme::new(NvmeConfig { disk, serial, queues }, &nvme);
            self.plug(at, nvme.function().clone());
            self.controllers.push((at, Controller::Nvme(nvme)));
        }
    }

    /// Plugs in a network card, which is served on the loop of this number.
    pub(super) fn add_e1000(
        &mut self,
        net: NetSpec,
        outside: &Outside<'_>,
        dispatch: &Dispatch,
        (at, index): (DevFn, usize),
    ) -> Result<(), BuildError> {
        let wiring = E1000Wiring {
            memory: outside.memory.clone(),
            spaces: self.spaces(),
            network: net.network,
            event_loop: match dispatch {
                Dispatch::Inline => None,
                Dispatch::Loops(loops) => loops.get(index % loops.len().max(1)).cloned(),
            },
        };
        let card = E1000::new(net.config.mac, &wiring).map_err(BuildError::Event)?;
        self.plug(at, card.function().clone());
        self.controllers.push((at, Controller::E1000(card)));
        Ok(())
    }

    /// Every controller, as a part of the machine.
    pub(super) fn add_controller_parts(&mut self) {
        for (at, controller) in &self.controllers {
            let (name, part) = controller.part();
            self.parts.push(format!("pci/{at}/{name}"), part);
        }
    }
}
