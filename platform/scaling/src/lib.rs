//! Scale sets: as many VMs of a template as are wanted, or as their load asks for.
//!
//! A [`Scaler`] compares the VMs of each set with what is wanted and takes one step towards it, by asking the registry for VMs
//! and for their end, as people do. It takes no input: what happens after a crash is what happens always.
//!
//! ```text
//! too few               make VMs
//! too many              stop VMs: those of an old template first, then those that do not run, then the youngest
//! of an old template    while all others run, stop some; what is then too few is made of the new one
//! off                   delete it: a VM of a set that does not run any more is replaced
//! load                  VMs x load : wanted load, between the bounds, when the last change is long enough ago
//! ```
//!
//! *Invariants*: a step is a function of the store, of what VMs have used of CPUs, and of the time that is told. Only VMs that
//! a set has made are touched.
//!
//! What this crate may not know: hosts, processes, HTTP, what time it is.

mod decide;
mod load;
mod step;

pub use decide::{Action, decide};
pub use load::Loads;
pub use step::{Around, ScaleError, Scaler};

#[cfg(test)]
mod tests;
