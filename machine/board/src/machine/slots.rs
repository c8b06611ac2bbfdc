//! Disks and network cards at virtio: they are in slots of the bus, where they can come and go while
//! the guest runs.

use std::sync::{Arc, PoisonError, RwLock, Weak};

use boot::layout::{Blocks, PCI_HOTPLUG_SLOTS};
use bus::Device;
use chipset::HotplugSink;
use guest_memory::{Backing, RamOffset};
use pci::{DevFn, PciBus};
use virtio::{Block, BlockConfig, Net, VirtioDevice, VirtioPci, Wiring};

use super::memory_map::{Overlay, Piece};
use super::wiring::{FIRST_DISK, FIRST_NET};
use crate::sections::Parts;
use crate::spec::{DiskSpec, NetSpec, PlugError};

/// What is in a slot.
#[derive(Clone)]
pub enum Card {
    /// A disk.
    Disk(Arc<Block>),
    /// A network card.
    Net(Arc<Net>),
}

/// A slot that is taken.
#[derive(Clone)]
pub struct Slot {
    /// Its place on the bus.
    pub at: DevFn,
    /// What the operator calls it: a disk's serial number, `net0` for the first network card.
    pub name: String,
    /// What is in it.
    pub card: Card,
    device: Arc<VirtioPci>,
}

impl Slot {
    /// Its virtio device.
    pub fn device(&self) -> &Arc<VirtioPci> {
        &self.device
    }
}

/// All slots.
pub(super) struct Slots {
    // Fixed configuration.
    disk_queues: u16,
    // Wiring.
    pci: Arc<PciBus>,
    parts: Arc<Parts>,
    wiring: Wiring,
    // State.
    taken: RwLock<Vec<Slot>>,
}

impl Slots {
    pub(super) fn new(
        disk_queues: u16,
        pci: &Arc<PciBus>,
        parts: &Arc<Parts>,
        wiring: Wiring,
    ) -> Arc<Self> {
        let (pci, parts, taken) = (pci.clone(), parts.clone(), RwLock::default());
        Arc::new(Self { disk_queues, pci, parts, wiring, taken })
    }

    /// Those that are taken, in the order in which they were.
    pub(super) fn taken(&self) -> Vec<Slot> {
        self.taken.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts a disk into a slot: this one, or the first that is free.
    pub(super) fn add_disk(&self, spec: DiskSpec, at: Option<DevFn>) -> Result<Slot, PlugError> {
        let DiskSpec { disk, serial } = spec;
        let config = BlockConfig { serial: serial.clone(), queues: self.disk_queues };
        let block = Block::new(disk, &config);
        let free = || self.free(FIRST_DISK..=FIRST_NET);
        let at = at.or_else(free).ok_or(PlugError::Full)?;
        self.add(at, serial, Card::Disk(block.clone()), block)
    }

    /// The same for a network card; the last that is free.
    pub(super) fn add_net(
        &self,
        spec: NetSpec,
        name: String,
        at: Option<DevFn>,
    ) -> Result<Slot, PlugError> {
        let net = Net::new(spec.network, spec.config);
        let free = || self.free((FIRST_DISK..=FIRST_NET).rev());
        let at = at.or_else(free).ok_or(PlugError::Full)?;
        self.add(at, name, Card::Net(net.clone()), net)
    }

    fn free(&self, mut among: impl Iterator<Item = u8>) -> Option<DevFn> {
        let functions = self.pci.functions();
        let is_free = |device: &u8| functions.iter().all(|(at, _)| at.device() != *device);
        among.find(is_free).map(|device| DevFn::new(device, 0))
    }

    fn add(
        &self,
        at: DevFn,
        name: String,
        card: Card,
        device: Arc<dyn VirtioDevice>,
    ) -> Result<Slot, PlugError> {
        let device = VirtioPci::new(device, &self.wiring).map_err(PlugError::Event)?;
        self.pci.add(at, device.function().clone()).map_err(|_| PlugError::Full)?;
        let slot = Slot { at, name, card, device };
        self.taken.write().unwrap_or_else(PoisonError::into_inner).push(slot.clone());
        Ok(slot)
    }

    /// The card of a slot is a part of the machine that is saved, restored and reset.
    pub(super) fn add_part(&self, slot: &Slot) {
        let Slot { at, device, .. } = slot;
        let parts: [(String, Arc<dyn Device>); 2] = [
            (format!("pci/{at}"), device.function().clone()),
            (format!("pci/{at}/virtio"), device.clone()),
        ];
        parts.into_iter().for_each(|(path, part)| self.parts.insert(path, part));
    }

    /// The guest has let these slots' cards go.
    fn empty(&self, slots: u32) {
        let mut taken = self.taken.write().unwrap_or_else(PoisonError::into_inner);
        let goes = |slot: &Slot| slots & 1 << slot.at.device() != 0;
        let (gone, stays): (Vec<_>, Vec<_>) = taken.drain(..).partition(goes);
        *taken = stays;
        drop(taken);
        for Slot { at, device, .. } in gone {
            self.pci.remove(at);
            [format!("pci/{at}"), format!("pci/{at}/virtio")]
                .iter()
                .for_each(|path| self.parts.remove(path));
            // Requests end, and doorbells and BARs are nowhere, before the card is gone.
            device.reset();
            device.function().reset();
        }
    }
}

/// What follows for the board when the guest or the operator uses the hot-plug controller.
pub(super) struct Effects {
    pub(super) slots: Weak<Slots>,
    pub(super) blocks: Blocks,
    pub(super) memory: RamOffset,
    pub(super) overlay: Overlay,
}

impl HotplugSink for Effects {
    fn ejected(&self, slots: u32) {
        if let Some(of) = self.slots.upgrade() {
            of.empty(slots);
        }
    }

    fn memory_blocks(&self, count: u32) {
        let memory = Some((self.memory, Backing::Ram));
        let size = self.blocks.size * u64::from(count);
        let piece = Piece { gpa: self.blocks.base, size, memory };
        self.overlay.set((count > 0).then_some(piece).into_iter().collect());
    }
}

const _: () = assert!(
    *PCI_HOTPLUG_SLOTS.start() == FIRST_DISK as u32 && *PCI_HOTPLUG_SLOTS.end() == FIRST_NET as u32
);
