//! The disks a VM has, and which controllers they are on.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use ::images::{Name, Store};
use ahci::Drive;
use board::MachineSpec;
use rustix::fs::{MemfdFlags, memfd_create};
use storage::{Disk, DiskOptions, Format, RawDisk};

use crate::{SeedSpec, VmError, VmSpec};

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
    /// What it is called, and what the guest sees as its serial number; without it, by its place.
    pub serial: Option<String>,
}

/// A CD-ROM drive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CdromSpec {
    /// The disc's image, if there is a disc in it.
    pub path: Option<PathBuf>,
}

impl DiskSpec {
    /// The disk of an image of the user's store, which is not written: what the guest changes is
    /// gone at the end.
    ///
    /// # Errors
    /// When there is no such image.
    pub fn of_image(name: &str) -> Result<Self, VmError> {
        let image = Store::of_user()?.find(&name.parse::<Name>()?)?;
        let format = Some(Format::Raw);
        let options = DiskOptions { format, snapshot: true, ..DiskOptions::new(image.path) };
        Ok(Self { options, bus: DiskBus::default(), serial: None })
    }
}

impl FromStr for DiskSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut bus, mut serial) = (DiskBus::default(), None);
        let options = DiskOptions::parse(text, |option| {
            bus = match option.split_once('=') {
                Some(("bus", "virtio")) => DiskBus::Virtio,
                Some(("bus", "sata")) => DiskBus::Sata,
                Some(("bus", "nvme")) => DiskBus::Nvme,
                Some(("bus", _)) => return Err("bus is virtio, sata or nvme".to_owned()),
                Some(("serial", name)) => {
                    serial = Some(name.to_owned());
                    return Ok(true);
                }
                _ => return Ok(false),
            };
            Ok(true)
        })?;
        Ok(Self { options, bus, serial })
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

/// What a disk is that is named while the VM runs; paths begin at `directory`.
pub(crate) fn options_later(text: &str, directory: &Path) -> Result<DiskOptions, VmError> {
    let mut options: DiskOptions = text.parse().map_err(VmError::Plugged)?;
    begin_at(directory, &mut options);
    Ok(options)
}

fn begin_at(directory: &Path, options: &mut DiskOptions) {
    options.path = directory.join(&options.path);
    options.backing.iter_mut().for_each(|(path, _)| *path = directory.join(&*path));
}

/// Locks a disk that comes later, whose files another has opened; paths begin at `directory`.
pub(crate) fn open_later(
    text: &str,
    directory: &Path,
    serial: String,
    files: Vec<File>,
) -> Result<board::DiskSpec, VmError> {
    let DiskSpec { mut options, bus, serial: own } = text.parse().map_err(VmError::Plugged)?;
    if bus != DiskBus::Virtio {
        let message = "only virtio disks come while a VM runs: leave bus= out";
        return Err(VmError::Plugged(message.to_owned()));
    }
    begin_at(directory, &mut options);
    Ok(board::DiskSpec { disk: options.open_given(files)?, serial: own.unwrap_or(serial) })
}

/// Opens and locks all disks and discs of `spec`.
pub(crate) fn open(spec: &VmSpec, parts: &mut MachineSpec) -> Result<(), VmError> {
    for (n, disk) in spec.disks.iter().enumerate() {
        let mut options = disk.options.clone();
        options.snapshot |= spec.snapshot;
        let serial = disk.serial.clone().unwrap_or_else(|| format!("disk{n}"));
        let (disk, bus) = (options.open()?, disk.bus);
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
    if let Some(spec) = &spec.seed {
        parts.disks.push(seed(spec)?);
    }
    Ok(())
}

/// Nobody writes to a disc, so its content cannot be a guest's.
fn open_disc(path: &PathBuf) -> Result<Arc<dyn Disk>, VmError> {
    let format = Some(Format::Raw);
    Ok(DiskOptions { read_only: true, format, ..DiskOptions::new(path) }.open()?)
}

/// The disk cloud-init reads, which is nowhere but in memory.
fn seed(spec: &SeedSpec) -> Result<board::DiskSpec, VmError> {
    let bytes = cloud_seed::seed(spec)?;
    let failed = |source| VmError::Host { operation: "make the disk of --cloud-init", source };
    let memory = memfd_create("cloud-init", MemfdFlags::CLOEXEC);
    let mut file = File::from(memory.map_err(|error| failed(error.into()))?);
    file.write_all(&bytes).map_err(failed)?;
    let disk = RawDisk::new(file, Path::new("cloud-init"), true)?;
    Ok(board::DiskSpec { disk: Arc::new(disk), serial: "cloud-init".to_owned() })
}
