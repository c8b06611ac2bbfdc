//! The contracts of the socket (see the `engine` crate), each a test that every engine passes.
//!
//! A contract is a function over a [`Subject`] that panics when it is broken; [`contracts`] lists
//! them. Guests are a few instructions each ([`guest`]), run on a machine that is only memory, a
//! clock and a bus with counters on it ([`Machine`], [`FakeBus`]). [`run`] runs every contract on
//! every engine and reports those an engine cannot be run for as *not run*, never as passed.
//!
//! What this crate may not know: any engine. Those are named in `tests/contracts.rs`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod contracts;
mod fake_bus;
pub mod guest;
mod machine;
mod runner;

pub use contracts::contracts;
pub use fake_bus::{FakeBus, at};
pub use machine::Machine;
pub use runner::{Candidate, Contract, Subject, run};
