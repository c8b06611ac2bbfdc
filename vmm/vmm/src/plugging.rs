//! What comes to a running VM and goes from it, asked for from outside.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use board::{Card, Machine, NetModel, PlugError, Slot};
use net::Tap;
use virtio::{Block, Dispatch};
use vmm_rpc::{DeviceKind, Files, PluggedDevice};

use crate::{NetSpec, NetworkSpec, VmError, VmSpec, disks, networks};

/// What is known of a VM's disks and networks beyond its machine.
pub struct Plugger {
    dispatch: Dispatch,
    /// See [`networks::identity`].
    identity: String,
    cpus_max: u32,
    /// The numbers of the next disk and network card: none is used again, so that a name has one
    /// meaning as long as the VM lives.
    next_disk: usize,
    next_net: usize,
}

impl Plugger {
    pub(crate) fn new(spec: &VmSpec, dispatch: &Dispatch) -> Self {
        Self {
            dispatch: dispatch.clone(),
            identity: networks::identity(spec),
            cpus_max: spec.cpus_max.unwrap_or(spec.cpus),
            next_disk: spec.disks.len(),
            next_net: spec.nets.len(),
        }
    }

    /// Of a VM without networks.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        let identity = String::new();
        Self { dispatch: Dispatch::Inline, identity, cpus_max: 1, next_disk: 0, next_net: 0 }
    }

    /// A disk comes. Returns what it is called.
    pub(crate) fn add_disk(
        &mut self,
        machine: &Machine,
        disk: &str,
        directory: &Path,
        files: &Files,
    ) -> Result<String, VmError> {
        let name = format!("disk{}", self.next_disk);
        let spec = disks::open_later(disk, directory, name, own(files)?)?;
        let name = spec.serial.clone();
        machine.plug_disk(spec, None)?;
        self.next_disk += 1;
        Ok(name)
    }

    /// A network card comes. Returns what it is called.
    pub(crate) fn add_net(
        &mut self,
        machine: &Machine,
        net: &str,
        files: &Files,
    ) -> Result<String, VmError> {
        let spec: NetSpec = net.parse().map_err(VmError::Plugged)?;
        if spec.model != NetModel::Virtio {
            let reason = "only virtio's network cards come to a VM that runs: leave model= out";
            return Err(VmError::Plugged(reason.to_owned()));
        }
        let Dispatch::Loops(loops) = &self.dispatch else { return Err(VmError::DeterministicNet) };
        let index = self.next_net;
        let of = loops.iter().cycle().nth(index).ok_or(VmError::DeterministicNet)?;
        let queues = own(files)?;
        let opened = match &spec.to {
            NetworkSpec::Tap(name) | NetworkSpec::Bridge(name) if !queues.is_empty() => {
                let tap = Tap::of_queues(name.clone(), queues, of);
                networks::connect(&spec, tap, &self.identity, index, of)?
            }
            _ => networks::open_one(&spec, &self.identity, index, self.cpus_max, of)?,
        };
        let name = format!("net{index}");
        machine.plug_net(opened, name.clone(), None)?;
        self.next_net += 1;
        Ok(name)
    }
}

/// Files that came with a request.
fn own(files: &Files) -> Result<Vec<File>, VmError> {
    files.to_files().map_err(|source| VmError::Host { operation: "take files in", source })
}

/// The disk of this name.
fn find(machine: &Machine, name: &str) -> Result<Arc<Block>, VmError> {
    let found = machine.slots().into_iter().find_map(|slot| match slot.card {
        Card::Disk(disk) if slot.name == name => Some(disk),
        _ => None,
    });
    Ok(found.ok_or_else(|| PlugError::Missing(name.to_owned()))?)
}

/// A disk goes on in a new layer.
pub(crate) fn lay_disk(
    machine: &Machine,
    name: &str,
    over: &str,
    directory: &Path,
    files: &Files,
) -> Result<(), VmError> {
    let over = disks::options_later(over, directory)?;
    Ok(find(machine, name)?.lay(&over, own(files)?)?)
}

/// A disk becomes larger, and the guest is told.
pub(crate) fn grow_disk(machine: &Machine, name: &str, size_bytes: u64) -> Result<(), VmError> {
    let disk = find(machine, name)?;
    disk.grow(size_bytes).map_err(|source| match source.kind() {
        ErrorKind::Unsupported => VmError::Plugged(
            "what the guest writes to this disk is thrown away: it cannot grow".into(),
        ),
        ErrorKind::ReadOnlyFilesystem => VmError::Plugged("the disk is only read".into()),
        ErrorKind::InvalidInput => VmError::Plugged(format!(
            "the disk has {} bytes: it can only grow, by whole sectors of 512",
            disk.size_bytes()
        )),
        _ => VmError::Host { operation: "make the disk larger", source },
    })
}

/// Disks and network cards that can come and go.
pub(crate) fn devices(machine: &Machine) -> Vec<PluggedDevice> {
    let device = |slot: Slot| {
        let (kind, size_bytes) = match &slot.card {
            Card::Disk(disk) => (DeviceKind::Disk, disk.size_bytes()),
            Card::Net(_) => (DeviceKind::Net, 0),
        };
        PluggedDevice { name: slot.name, kind, slot: slot.at.device(), size_bytes }
    };
    machine.slots().into_iter().map(device).collect()
}
