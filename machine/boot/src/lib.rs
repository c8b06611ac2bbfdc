//! Kernels into memory, and the tables that tell them what machine they are on.
//!
//! What this crate may not know: devices, engines. It writes guest memory and says how a CPU's
//! state must differ from reset; the board and the owner of the vCPUs do the rest.
//!
//! *Invariants*: images are hostile. Nothing in one can make a parser panic, loop without end, or
//! allocate more than a small multiple of its size limit; every sum is checked.

pub mod layout;
