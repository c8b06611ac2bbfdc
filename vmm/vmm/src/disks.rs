//! The disks a VM has, and which controllers they are on.

use std::path::PathBuf;
use std::str::FromStr;

use storage::DiskOptions;

use crate::{VmError, VmSpec};

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskSpec {
    /// The image.
    pub options: DiskOptions,
}

impl DiskSpec {
    /// The disk at `path`, with nothing else said.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { options: DiskOptions::new(path) }
    }
}

impl FromStr for DiskSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let options = DiskOptions::parse(text, |_| Ok(false))?;
        Ok(Self { options })
    }
}

/// Opens and locks all disks of `spec`.
pub(crate) fn open(spec: &VmSpec) -> Result<Vec<board::DiskSpec>, VmError> {
    let open = |(n, disk): (usize, &DiskSpec)| {
        let mut options = disk.options.clone();
        options.snapshot |= spec.snapshot;
        Ok(board::DiskSpec { disk: options.open()?, serial: format!("disk{n}") })
    };
    spec.disks.iter().enumerate().map(open).collect()
}
