//! What an instruction starts from and leaves behind.

use x86_state::Exception;

/// x87 registers in stack order (ST(0) first) and control words. MMX registers are their low
/// halves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct X87 {
    /// Control word.
    pub control: u16,
    /// Status word, TOP included.
    pub status: u16,
    /// By physical number: a set bit is a register in use.
    pub in_use: u8,
    /// Registers, 80 bits each.
    pub st: [u128; 8],
}

impl Default for X87 {
    fn default() -> Self {
        Self { control: 0x37f, status: 0, in_use: 0, st: [0; 8] }
    }
}

/// Registers of user code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// General registers by encoding number.
    pub gpr: [u64; 16],
    /// Next instruction.
    pub rip: u64,
    /// Arithmetic flags and DF.
    pub flags: u64,
    /// XMM registers.
    pub xmm: [u128; 16],
    /// SSE control and status.
    pub mxcsr: u32,
    /// x87.
    pub x87: X87,
}

impl Default for State {
    fn default() -> Self {
        Self { gpr: [0; 16], rip: 0, flags: 0, xmm: [0; 16], mxcsr: 0x1f80, x87: X87::default() }
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All instructions were done.
    Done,
    /// An exception, as far as a host's signal tells them apart.
    Raised(Exception),
}

impl Outcome {
    /// The host tells #GP, #SS and #PF by one signal.
    pub fn as_signal(self) -> Self {
        match self {
            Self::Raised(Exception::Ss | Exception::Pf | Exception::Gp) => {
                Self::Raised(Exception::Gp)
            }
            Self::Raised(Exception::Mf | Exception::Xm | Exception::De) => {
                Self::Raised(Exception::De)
            }
            other => other,
        }
    }
}
