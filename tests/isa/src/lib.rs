//! Instructions of user code on the host CPU and on each engine, compared.
//!
//! A [`Case`] is a few bytes of code, registers and memory; a [`Subject`] runs it and says what
//! came of it. [`Native`], the bare CPU, is what the others ([`subjects`]) are measured by:
//! engines, which run the case in ring 3 of a VM ([`OnEngine`]). A [`Bench`] does that for single
//! instructions of every form ([`forms`]) and for random sequences with branches ([`sequence`]).
//! What the SDM leaves undefined is masked, by [`undefined`].
//!
//! `TRINE_ISA_TIMES=100 cargo test -p isa` compares a hundred times more; `TRINE_ISA_SEED` begins elsewhere,
//! `TRINE_ISA_ONLY` restricts single instructions to opcodes whose name begins so,
//! `TRINE_ISA_ENGINE` the engines to those whose name begins so.
//!
//! Only user mode, 64-bit and 32-bit, can be run on the host; the rest is for `tests/system`.
//!
//! *Invariants*: a failure prints the seed, the instructions and both states, and is found again
//! with that seed. What cannot run here is reported as not run.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

pub mod forms;
pub mod sequence;

mod bench;
mod case;
mod native;
mod on_engine;
mod random;
mod state;
mod subjects;
mod undefined;
mod values;

pub use bench::{Bench, Options};
pub use case::{Case, End, Outcome, Subject};
pub use native::Native;
pub use on_engine::OnEngine;
pub use random::Random;
pub use state::{FLAGS, State, X87};
pub use subjects::{Limits, Measured, subjects};
pub use undefined::{Undefined, undefined};

/// Where code is, for all subjects: one page, not writable.
pub const CODE: u64 = 0x10_0000;
/// Where data is, for all subjects: two pages, [`DATA_SIZE`] bytes, nothing before and after them.
pub const DATA: u64 = 0x20_0000;
/// Bytes of data.
pub const DATA_SIZE: usize = 0x2000;
/// The middle of data: where memory operands are, on both sides of a page's end.
pub const MIDDLE: u64 = DATA + DATA_SIZE as u64 / 2;
/// Base of GS in 64-bit code.
pub const GS_BASE: u64 = 0x7654_3210;

const PAGE: usize = 4096;

/// The longest operand there is all data.
fn is_inside(operand: u64) -> bool {
    (DATA..DATA + DATA_SIZE as u64 - 128).contains(&operand)
}
