//! Address translation: page walk, permissions, accessed and dirty bits, TLB.
//!
//! [`walk`] is one function of memory, registers and flags: it serves the interpreter, the
//! translator and, without side effects, a debugger. [`Mmu`] keeps its results, and tells a mirror
//! of them what it drops ([`Flush`]).
//!
//! What this crate may not know: where memory is ([`TableMemory`] and host addresses are opaque
//! to it), segments, exceptions.
//!
//! *Invariants*: an entry never survives its invalidation (a large page's included); what a hit
//! allows, a walk under the same registers would have allowed. Memory types (PAT, PCD, PWT) have
//! no effect: guest memory is write-back in every engine.
//!
//! Follows the Intel SDM, volume 3A, chapter 4.

mod flushes;
mod mmu;
mod paging;
mod walk;

pub use flushes::{Flush, Flushes};
pub use mmu::{Mmu, Rights};
pub use paging::{Format, Paging};
pub use walk::{Access, ErrorCode, Privilege, TableMemory, Translation, inspect, walk};

#[cfg(test)]
mod tests;
