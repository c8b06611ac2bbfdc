//! Makes what is as it should be.
//!
//! A [`Reconciler`] compares what is wanted of each VM, disk and snapshot with what its [`Host`] sees, and takes one step towards
//! it. It takes no input: it is run when something may have changed, and from time to time. So what happens
//! after a crash is what happens always.
//!
//! *Invariants*: a step is a function of the store, of what the host sees and of the time that is told; it
//! can be cut off anywhere and done again. What is remembered between steps only saves looking again at what has not
//! changed: a reconciler that is made anew looks at everything, and so does every one from time to time. Where a VM
//! is placed is written down before it is started there. Only what was asked to be deleted goes:
//! what the host has and the store does not know is reported and left alone. A VM's start is numbered, and a
//! host does not begin the same one twice at a time.
//!
//! What this crate may not know: processes, files, HTTP, what time it is.

mod decide;
mod host;
mod judge;
mod memory;
mod networks;
mod scene;
mod schedule;
pub mod simulated;
mod step;
mod storage;

pub use decide::{Action, decide};
pub use host::{Host, HostError, Process, Readiness, Seen, Size};
pub use networks::{
    WantedCard, WantedNetwork, WantedNetworks, WantedPeer, WantedRule, domain, wanted,
};
pub use schedule::{Offer, Scheduler};
pub use step::{Reconciler, Refusal, Report, StepError};
pub use storage::{DiskAction, DiskState, SeenDisk, SeenSnapshot, decide_disk};

#[cfg(test)]
mod tests;
