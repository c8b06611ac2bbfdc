//! Work for a Linux guest that shows whether anything of it is lost or repeated.
//!
//! The program `guest_work` runs in the guest: processes write a disk and read it back, count a
//! timer's ticks, compare clocks of all CPUs, signal each other and compute. Each step of each
//! is checked and counted there; a [`Report`] with all counts goes to the console, numbered and
//! with a checksum, so that lost and repeated output shows as well. What is wrong is a line that
//! begins with [`WRONG`].
//!
//! This library is what both sides must agree on: the lines, and what is on the disk.
//!
//! What this crate may not know: VMs. The work is right on any Linux machine with a disk to spare.

mod disk;
mod report;

pub use disk::{BLOCK_BYTES, DISK_BYTES, SLOTS, WORKERS_MAX, at, block, check};
pub use report::{END, MARK, Report, WRONG};
