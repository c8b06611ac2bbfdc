//! Address translation: page walk, permissions, accessed and dirty bits, TLB.

/// TLB and what the walker needs of the control registers.
#[derive(Debug, Default)]
pub struct Mmu {}
