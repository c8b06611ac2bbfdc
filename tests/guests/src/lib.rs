//! Guests made from Debian's packages: kernels, initial RAM disks, a root file system; and the
//! programs and packages of the machine at hand that making them needs.
//!
//! Used by tests, benchmarks and `cargo xtask up`; no part of the product. Everything made is
//! kept below `target/xtask` and made once.

mod basket;
mod cpio;
mod debian;
pub mod host;
mod initrd;
mod kernel;
mod media;
mod packages;
mod rootfs;
mod workshop;

pub use basket::{Basket, basket};
pub use cpio::{Archive, Mode};
pub use debian::{Debian, IMAGE, USER, debian, free_port, network};
pub use initrd::{Init, UP, add_modules, initrd};
pub use kernel::{Kernel, kernel};
pub use media::{i386, packaged};
pub use rootfs::{rootfs, scratch_copy, services_rootfs};
pub use workshop::{PASSED, RESULT, RESULTS_END, STRAIN, WORK, Workshop, workshop};
