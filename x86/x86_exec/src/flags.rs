//! The arithmetic flags.

use x86_state::bits::Rflags;

/// CF, PF, AF, ZF, SF and OF.
pub const ARITHMETIC: u64 = Rflags::CF.bits()
    | Rflags::PF.bits()
    | Rflags::AF.bits()
    | Rflags::ZF.bits()
    | Rflags::SF.bits()
    | Rflags::OF.bits();

/// The six arithmetic flags, at their places in RFLAGS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(u64);

impl Flags {
    /// From RFLAGS; other bits are dropped.
    pub const fn from_bits(rflags: u64) -> Self {
        Self(rflags & ARITHMETIC)
    }

    /// As bits of RFLAGS.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// One of the six is set.
    pub const fn has(self, flag: Rflags) -> bool {
        self.0 & flag.bits() != 0
    }
}
