//! Makes bootable Debian disks from Debian's packages: a GPT with GRUB for BIOS and UEFI, and an
//! ext4 root with a kernel, cloud-init, an SSH server and the QEMU guest agent.
//!
//! Nothing is mounted through a loop device: `mmdebstrap` installs the packages, `mke2fs` fills the
//! root file system from the tree, and the rest is written here, byte for byte. So it runs
//! as root, and as any user who has subordinate IDs.
//!
//! *Invariants*: the same packages give the same UUIDs, which follow from their list. What is
//! particular to the host (its name, mirrors, resolver, proxy) is not in the disk.
//!
//! What this crate may not know: where images are kept, VMs.
//!
//! Specifications: UEFI 2.10, 5 (GPT) and 3.5.1.1 (removable media boot); GNU GRUB's
//! `boot/i386/pc` (where `boot.img` and `core.img` have their block numbers); NoCloud of
//! cloud-init.

mod disk;
mod error;
mod grub;
mod layout;
mod root;
mod spec;
mod tools;

pub use error::BuildError;
pub use spec::{DebianSpec, Kernel, MIRROR, SIZE_MIN_BYTES};

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use layout::Layout;
use root::Tree;

/// Makes a disk in `file`, which has nothing in it yet. `tell` is told each step as it begins.
///
/// The work is done in a folder of the system's for temporary files (`TMPDIR`), where it takes
/// up to twice what is in the disk, and which is gone at the end.
///
/// # Errors
/// When the specification makes no sense, tools are missing, or one of them fails.
pub fn build(spec: &DebianSpec, file: &File, tell: &mut dyn FnMut(&str)) -> Result<(), BuildError> {
    spec.check()?;
    tools::check()?;
    let failed = |source| BuildError::Host { doing: "make a folder to work in", source };
    let outer = tempfile::Builder::new().prefix("trine-build-").tempdir().map_err(failed)?;
    // Others may pass, for who fills the root file system without being root is somebody else
    // (a subordinate ID), but they cannot list it, and the folder in it has a name nobody guesses.
    let pass = |path: &Path, mode| {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed)
    };
    pass(outer.path(), 0o711)?;
    let mut inner = tempfile::Builder::new();
    let inner = inner.rand_bytes(32).prefix("").tempdir_in(outer.path()).map_err(failed)?;
    pass(inner.path(), 0o777)?;

    let layout = Layout::of(spec.size_bytes);
    let tree = root::make(spec, &layout, outer.path(), inner.path(), tell)?;
    tell("writing the disk");
    write(&tree, &layout, file)
}

fn write(tree: &Tree, layout: &Layout, file: &File) -> Result<(), BuildError> {
    disk::copy_sparse(&tree.disk()?, file)
        .and_then(|()| disk::partition(file, layout, &tree.identity))
        .and_then(|()| disk::embed(file, &tree.boot_img, &tree.core_img))
        .and_then(|()| disk::boot_partition(file, layout, &tree.efi, &tree.identity))
        .map_err(|source| BuildError::Host { doing: "write the disk", source })
}
