//! The store of disk images, addressed by what is in them.
//!
//! The store keeps *disks*, not files: each is a raw image with holes, whatever format it came
//! in, and its ID is a digest of the disk's bytes. So one disk that comes twice, as qcow2 and as
//! VMDK, is kept once, and nobody who opens it later needs to guess a format.
//!
//! ```text
//! images/lock          taken by whoever changes something
//!        disks/ID      the disks; never written again
//!        names/NAME    what a name stands for: a small JSON file
//!        partial/      disks on their way in, each locked by who makes it
//! ```
//!
//! *Invariants*: a disk under `disks` is whole, was brought to the medium before it got its name,
//! and is read-only. A crash at any point leaves at most files in `partial`, which the next change
//! removes. What fails leaves nothing.
//!
//! Files that come in are a stranger's: their format is told by their first bytes, never by their
//! names, and one that names another file of the host is refused before any other program sees it.
//!
//! What this crate may not know: VMs, how images are made.
//!
//! Specifications: QEMU's `docs/interop/qcow2.txt`; VMware's "Virtual Disk Format 5.0"; DMTF
//! DSP0243 (OVF); Microsoft's MS-VHDX.

mod convert;
mod copy;
mod digest;
mod error;
mod import;
mod name;
mod ova;
mod partial;
mod probe;
mod store;

pub use convert::export;
pub use error::ImageError;
pub use import::{Source, import};
pub use name::{Id, Name};
pub use partial::Partial;
pub use probe::Format;
pub use store::{Image, Store};

/// Told how far something is: bytes done, and of how many if that is known.
pub type Progress<'a> = &'a mut dyn FnMut(u64, Option<u64>);

#[cfg(test)]
mod tests;
