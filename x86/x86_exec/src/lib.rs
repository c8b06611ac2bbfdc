//! What x86-64 instructions do: one CPU, interpreted, exactly.
//!
//! A [`Cpu`] executes decoded instructions against an [`Env`]: the memory, bus, APIC and clock
//! around it. `emu` is this crate in a loop; `full` steps with it whatever it does not translate.
//!
//! *Invariants*: safe Rust, no OS, no threads, no time of its own. A fault leaves the state as
//! before the instruction (string instructions: as before the iteration). Nothing the guest does
//! panics or loops without bound.
//!
//! Follows the Intel SDM, volumes 2 (instructions) and 3A (system). Where the SDM leaves flags
//! undefined, we do what the host CPUs of the tests do.

pub mod plain;

mod blocks;
mod careful;
mod cpu;
mod dispatch;
mod env;
mod fault;
mod flags;
mod fuse;
mod memory;
mod operands;
mod run;
mod single;
mod state;

// One module a family of instructions.
mod control;
mod integer;
mod sse;
mod stack;
mod string;
mod system;
mod x87;

pub use cpu::{Cpu, Fpu, Mode};
pub use dispatch::{Handler, select};
pub use env::{Backing, Env, HostAddr};
pub use fault::{Fault, FaultInfo};
pub use flags::Flags;
pub use memory::{Access, PageAt, Run, STRUCTURE_MAX, Word};
pub use run::RunExit;
pub use system::TripleFault;
pub use x86_mmu::{Flush, Flushes, Privilege};
