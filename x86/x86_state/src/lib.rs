//! The architectural state of an x86-64 CPU, owned by no engine.
//!
//! What is here: registers ([`VcpuState`]), the bits in them ([`bits`]), reset values, the CPU
//! profile a VM is created with ([`CpuProfile`]), MSR numbers ([`msr`]) and the messages that
//! cross the socket ([`Msi`], [`VcpuId`]).
//!
//! What this crate may not know: how an engine stores or reaches any of it, how it is written to
//! a file, and anything outside the CPU socket.
//!
//! *Invariant*: `VcpuState` is canonical. Two equal guests have equal `VcpuState`s, whichever
//! engine saved them: unusable segments are [`Segment::unusable`], `xsave` is in the standard
//! (non-compacted) format with its padding and the components in their initial state zeroed.
//!
//! Follows the Intel SDM, volume 3A (chapters 2, 3, 6, 11, 13) and volume 4 (MSRs).

pub mod bits;
pub mod msr;

mod apic;
mod features;
mod interrupt;
mod profile;
mod segment;
mod vcpu;
mod xsave;

pub use apic::{APIC_BUS_CYCLE_NS, APIC_VERSION, ApicState, ApicTimer};
pub use features::{CpuFeatures, CpuModel, CpuModelError};
pub use interrupt::{DeliveryMode, Exception, Msi, VcpuId, Vector};
pub use profile::{CpuProfile, CpuidLeaf, ProfileClass, ProfileError, Topology};
pub use segment::{DescriptorTable, SegReg, Segment};
pub use vcpu::{
    Activity, DebugRegs, Gpr, InDelivery, InterruptShadow, Msrs, MtrrState, Raised, Regs, VcpuState,
};
pub use xsave::{
    XSAVE_AVX, XSAVE_HEADER_OFFSET, XSAVE_LEGACY_SIZE, XSAVE_SSE, XSAVE_X87, XsaveImage,
};
