//! The disks a VM has, and which controllers they are on.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use ahci::Drive;
use board::MachineSpec;
use storage::{Disk, DiskOptions, Format};

use crate::{VmError, VmSpec};

/// Which controller a disk is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DiskBus {
    /// A virtio device of its own.
    #[default]
    Virtio,
    /// A SATA controller, with others.
    Sata,
    /// An NVMe controller of its own.
    Nvme,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskSpec {
    /// The image.
    pub options: DiskOptions,
    /// The controller.
    pub bus: DiskBus,
}

/// A CD-ROM drive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CdromSpec {
    /// The disc's image, if there is a disc in it.
    pub path: Option<PathBuf>,
}

impl FromStr for DiskSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut bus = DiskBus::default();
        let options = DiskOptions::parse(text, |option| {
            bus = match option.split_once('=') {
                Some(("bus", "virtio")) => DiskBus::Virtio,
                Some(("bus", "sata")) => DiskBus::Sata,
                Some(("bus", "nvme")) => DiskBus::Nvme,
                Some(("bus", _)) => return Err("bus is virtio, sata or nvme".to_owned()),
                _ => return Ok(false),
            };
            Ok(true)
        })?;
        Ok(Self { options, bus })
    }
}

impl FromStr for CdromSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("give an ISO image, or none for an empty drive".to_owned()),
            "none" => Ok(Self { path: None }),
            path => Ok(Self { path: Some(path.into()) }),
        }
    }
}

/// Opens and locks all disks and discs of `spec`.
pub(crate) fn open(spec: &VmSpec, parts: &mut MachineSpec) -> Result<(), VmError> {
    for (n, disk) in spec.disks.iter().enumerate() {
        let mut options = disk.options.clone();
        options.snapshot |= spec.snapshot;
        let (disk, serial, bus) = (options.open()?, format!("disk{n}"), disk.bus);
        match bus {
            DiskBus::Virtio => parts.disks.push(board::DiskSpec { disk, serial }),
            DiskBus::Nvme => parts.nvme.push(board::DiskSpec { disk, serial }),
            DiskBus::Sata => parts.sata.push(Drive::Disk { disk, serial }),
        }
    }
    for (n, cdrom) in spec.cdroms.iter().enumerate() {
        let disk = cdrom.path.as_ref().map(open_disc).transpose()?;
        parts.sata.push(Drive::Cdrom { disk, serial: format!("cdrom{n}") });
    }
    Ok(())
}

/// Nobody writes to a disc, so its content cannot be a guest's.
fn open_disc(path: &PathBuf) -> Result<Arc<dyn Disk>, VmError> {
    let format = Some(Format::Raw);
    Ok(DiskOptions { read_only: true, format, ..DiskOptions::new(path) }.open()?)
}
