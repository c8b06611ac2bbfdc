//! What a thread that waits for several things needs: a [`Poller`], and things to wait for
//! ([`Event`], [`Timer`], [`Signals`]).
//!
//! There are no callbacks: the thread matches on the tokens it gave, so what happens when is read
//! in one place, and the state it touches needs no sharing.
//!
//! What this crate may not know: VMs, devices, x86.

mod event;
mod poller;
mod signals;
mod timer;

pub use event::Event;
pub use poller::{Interest, Poller, Ready};
pub use signals::{Signal, Signals};
pub use timer::Timer;

#[cfg(test)]
mod tests;
