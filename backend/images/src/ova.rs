//! The disk in an OVA: an archive of the ustar format with a VM's description and its disks.

use std::fs::File;
use std::io;

use crate::copy;
use crate::{ImageError, Progress};

/// Endings of disks' names. Only which member of the archive is a disk is told by them; what format
/// it has is not.
const DISKS: [&str; 4] = [".vmdk", ".vhdx", ".qcow2", ".img"];

/// Copies the archive's only disk into an empty file.
pub(crate) fn disk(
    archive: &File,
    what: &str,
    to: &File,
    progress: Progress<'_>,
) -> Result<(), ImageError> {
    let failed = |source| ImageError::Host { doing: "unpack", path: what.into(), source };
    let unfit = |how| ImageError::Unfit { what: what.to_owned(), how };
    let mut archive = tar::Archive::new(archive);
    let mut found = false;
    for entry in archive.entries().map_err(failed)? {
        let mut entry = entry.map_err(failed)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).to_lowercase();
        let kind = entry.header().entry_type();
        let is_file = kind.is_file() || kind.is_gnu_sparse();
        if !is_file || !DISKS.iter().any(|end| name.ends_with(end)) {
            continue;
        }
        if found {
            return Err(unfit(
                "a VM with several disks: unpack it with 'tar -x', and import them one by one",
            ));
        }
        found = true;
        copy::stream(&mut entry, to, progress).map_err(failed)?;
    }
    if found { Ok(()) } else { Err(unfit("an archive without a disk")) }
}

/// Where a program reads from, it reads from the start.
pub(crate) fn rewind(file: &File) -> io::Result<()> {
    rustix::fs::seek(file, rustix::fs::SeekFrom::Start(0)).map(drop).map_err(Into::into)
}
