//! What comes to a machine and goes from it while its guest runs.

use std::sync::Arc;

use chipset::Hotplug;
use pci::DevFn;

use super::Machine;
use super::slots::Slot;
use crate::spec::{DiskSpec, NetSpec, PlugError};

/// CPUs and RAM that a machine can have while its guest runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GrowthRoom {
    /// So many CPUs in all.
    pub cpus: u32,
    /// So much RAM in all, in bytes.
    pub ram_bytes: u64,
    /// In steps of so many bytes.
    pub ram_step_bytes: u64,
}

impl Machine {
    /// Disks and network cards at virtio, for what they are called and their counters.
    pub fn slots(&self) -> Vec<Slot> {
        self.board.slots.taken()
    }

    /// A disk comes, into this slot or the first that is free. To restore a machine, one that is like
    /// it is built and given the same cards at the same places.
    ///
    /// # Errors
    /// When there is no room for it.
    pub fn plug_disk(&self, spec: DiskSpec, at: Option<DevFn>) -> Result<Slot, PlugError> {
        let hotplug = self.hotplug()?;
        self.is_new(&spec.serial)?;
        let slot = self.board.slots.add_disk(spec, at)?;
        self.announce(hotplug, &slot);
        Ok(slot)
    }

    /// A network card comes, into this slot or the last that is free.
    ///
    /// # Errors
    /// When there is no room for it.
    pub fn plug_net(
        &self,
        spec: NetSpec,
        name: String,
        at: Option<DevFn>,
    ) -> Result<Slot, PlugError> {
        let hotplug = self.hotplug()?;
        self.is_new(&name)?;
        let slot = self.board.slots.add_net(spec, name, at)?;
        self.announce(hotplug, &slot);
        Ok(slot)
    }

    fn is_new(&self, name: &str) -> Result<(), PlugError> {
        let is_there = self.slots().iter().any(|slot| slot.name == name);
        if is_there { Err(PlugError::Name(name.to_owned())) } else { Ok(()) }
    }

    fn announce(&self, hotplug: &Hotplug, slot: &Slot) {
        self.board.slots.add_part(slot);
        hotplug.plugged(slot.at.device());
    }

    /// Asks the guest to let a card go. It is gone when [`Machine::slots`] has it no more.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn ask_to_go(&self, name: &str) -> Result<(), PlugError> {
        let hotplug = self.hotplug()?;
        let slots = self.slots();
        let slot = slots.iter().find(|slot| slot.name == name);
        let slot = slot.ok_or_else(|| PlugError::Missing(name.to_owned()))?;
        hotplug.ask_to_go(slot.at.device());
        Ok(())
    }

    /// CPUs that are there. They are the first; the others must not run.
    pub fn cpus(&self) -> u32 {
        self.hotplug().map_or(self.profile.topology().cores, |hotplug| hotplug.cpus())
    }

    /// RAM that is there, in bytes.
    pub fn ram_bytes(&self) -> u64 {
        let blocks = self.hotplug().map_or(0, |hotplug| hotplug.blocks());
        let size = self.described.room.map_or(0, |room| room.blocks.size);
        self.layout.ram_bytes() + u64::from(blocks) * size
    }

    /// What can come; nothing to a board that cannot be asked.
    pub fn room(&self) -> Option<GrowthRoom> {
        let blocks = self.described.room?.blocks;
        self.hotplug().ok()?;
        Some(GrowthRoom {
            cpus: self.profile.topology().cores,
            ram_bytes: self.layout.ram_bytes() + blocks.span().size,
            ram_step_bytes: blocks.size,
        })
    }

    /// There are so many CPUs now. The new ones are to be as after reset, and to run, when this
    /// returns or soon after.
    ///
    /// # Errors
    /// When there are more already, or there is no room.
    pub fn set_cpus(&self, count: u32) -> Result<(), PlugError> {
        let hotplug = self.hotplug()?;
        let (now, most) = (hotplug.cpus(), self.profile.topology().cores);
        if !(now..=most).contains(&count) {
            return Err(PlugError::Cpus { now, most });
        }
        hotplug.set_cpus(count);
        Ok(())
    }

    /// There is so much RAM now.
    ///
    /// # Errors
    /// When there is more already, there is no room, or it is not whole blocks.
    pub fn set_ram_bytes(&self, bytes: u64) -> Result<(), PlugError> {
        let hotplug = self.hotplug()?;
        let room = self.described.room.ok_or(PlugError::Fixed)?;
        let (first, now) = (self.layout.ram_bytes(), self.ram_bytes());
        let (step, most) = (room.blocks.size, first + room.blocks.span().size);
        if !(now..=most).contains(&bytes) || step > 0 && !(bytes - first).is_multiple_of(step) {
            return Err(PlugError::Memory { now, most, step });
        }
        if let Some(count) = (bytes - first).checked_div(step) {
            hotplug.set_blocks(count as u32); // blocks there are 32 of at most
        }
        Ok(())
    }

    fn hotplug(&self) -> Result<&Arc<Hotplug>, PlugError> {
        self.board.hotplug.as_ref().ok_or(PlugError::Fixed)
    }
}
