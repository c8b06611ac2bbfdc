//! Instructions on the host CPU and in the interpreter, compared.
//!
//! A [`Form`] says how an instruction is encoded; [`compare`](compare()) makes random instances of
//! forms, gives both CPUs the same random registers and memory, and says where they disagree.
//! What the SDM leaves undefined is masked, by [`undefined_flags`]. Families are tables: see
//! [`forms`].
//!
//! `TRINE_ISA_CASES=100000 cargo test -p isa` compares more; `TRINE_ISA_SEED` begins elsewhere.
//!
//! Only user mode, 64-bit and 32-bit, can be run on the host; the rest is for tiny guests.
//!
//! *Invariant*: a failure prints the seed, the bytes and both states, and is found again with
//! that seed.

pub mod forms;

mod compare;
mod generate;
mod interpreter;
mod native;
mod random;
mod state;
mod undefined;

pub use compare::{Options, compare};
pub use generate::{Form, ModRm};
pub use native::Native;
pub use random::Random;
pub use state::{Outcome, State, X87};
pub use undefined::undefined_flags;

/// Where code is, on both CPUs: one page.
pub const CODE: u64 = 0x10_0000;
/// Where data is, on both CPUs: [`DATA_SIZE`] bytes.
pub const DATA: u64 = 0x20_0000;
/// Bytes of data.
pub const DATA_SIZE: usize = 0x800;
