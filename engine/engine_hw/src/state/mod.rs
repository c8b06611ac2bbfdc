//! Between the kernel's structs and [`x86_state::VcpuState`].
//!
//! Each module converts one group of registers, both ways, and knows no ioctl. What a kernel or a
//! CPU vendor leaves undefined is brought to the canonical form here, with its cause.

pub(crate) mod apic;
pub(crate) mod events;
pub(crate) mod registers;
pub(crate) mod xsave;

#[cfg(test)]
mod tests;
