//! Whole machines on `emu`, run for a machine time, saved and restored.
//!
//! A [`Vm`] is a board with a serial port, a disk and an entropy device, and its CPUs with a
//! counted clock: what it does follows from its state alone. A [`Saved`] is everything that goes
//! on: sections, memory, disk and what was printed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod drive;
mod fields;
pub mod golden;
mod saved;
mod vm;

pub use fields::fields;
pub use saved::Saved;
pub use vm::Vm;
