//! The local APIC, xAPIC and x2APIC: a pure object.
//!
//! It is told the time with each call, and returns what the world must do: an [`Effect`] to send
//! an interrupt to other APICs or to broadcast an EOI. So it has no clock, no lock, no callback,
//! and runs under test without a VM.
//!
//! *Invariants*: no guest access panics. The owner asks [`Lapic::next_deadline_ns`] after each
//! call that may have armed the timer, and calls [`Lapic::tick`] when it has come.
//!
//! Follows the Intel SDM, volume 3A, chapter 11. Deviations are named where they happen.

mod delivery;
mod lapic;
mod msr;
mod registers;
pub mod spec;
mod timer;

pub use delivery::{Destination, Ipi, Shorthand};
pub use lapic::{Accepted, Effect, Lapic, StateError};
pub use timer::Now;

#[cfg(test)]
mod tests;
