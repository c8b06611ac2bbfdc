//! What engines that run CPUs in software share: local APICs, mail, time, the environment of
//! [`x86_exec`], the delivery of events.
//!
//! [`SoftVcpu`] is a vCPU without its loop: an engine asks [`SoftVcpu::prepare`] what to do next, and
//! executes in its own way. Whatever it does not know how to execute, [`SoftVcpu::execute`]
//! interprets. [`Complex`] is what the vCPUs share.
//!
//! What this crate may not know: how an engine executes, and who drives the clock.
//!
//! *Invariants*: no unsafe code, no OS but threads, sleep and randomness. Mail (interrupts, kicks)
//! is never lost: see `mailbox`.
//!
//! *Locks*: one local APIC at a time, and no bus call and no mail under it. A vCPU in `run` that is
//! asked to stand still does so in [`SoftVcpu::prepare`]: no engine may hold a lock there.

#![forbid(unsafe_code)]

mod complex;
mod env;
mod mailbox;
mod standstill;
mod time;
mod vcpu;

pub use complex::{Complex, Slot};
pub use env::SoftEnv;
pub use mailbox::{Alarm, Mailbox};
pub use time::{Time, TscSource, ticks};
pub use vcpu::{Next, SoftVcpu};
