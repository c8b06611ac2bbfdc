//! Float and vector arithmetic of the guest, done by the host's own units.
//!
//! Guest and host are of one ISA, so the host's answer is the right one to the last bit: results,
//! exception flags, rounding, NaNs. A function here loads the guest's control register, runs one
//! instruction with all exceptions masked, reads the flags and puts the host's control register
//! back. What the guest would see with an *unmasked* exception is worked out too ([`x87`] runs the
//! instruction again with the guest's masks, and takes the state away with FXSAVE, which waits for
//! nothing; [`sse`] derives the flags), but no exception is ever raised on the host.
//!
//! This crate knows registers as integers and no CPU: which register, which exception, what is
//! popped is the caller's business. It is the one crate of `x86/` with assembly.
//!
//! *Invariants*: each function leaves the x87 stack empty, FCW and MXCSR at their defaults;
//! no value of any argument faults. Needs a host with SSE4.2: see [`host_is_able`].
//!
//! Follows the Intel SDM, volume 1, chapters 8 (x87), 10 and 11 (SSE), and volume 2.

pub mod simd;
pub mod sse;
pub mod x87;

mod unbounded;

/// The host has every instruction used here (up to SSE4.2, as the portable profile).
pub fn host_is_able() -> bool {
    is_x86_feature_detected!("sse4.2") && is_x86_feature_detected!("fxsr")
}
