//! What user code sees.

use std::fmt;

/// Where the instruction is.
pub const CODE: u64 = 0x70_0000;
/// Where its memory operands are.
pub const DATA: u64 = 0x60_0000;
/// How much is accessible there; before and after is nothing.
pub const DATA_SIZE: usize = 4096;

/// The six arithmetic flags.
pub const ARITHMETIC: u64 = 0x8d5;

/// How an instruction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// RIP is after the instruction.
    Done,
    /// This exception.
    Exception(u8),
}

/// Registers and memory.
#[derive(Clone, PartialEq, Eq)]
pub struct State {
    /// By encoding number.
    pub gpr: [u64; 16],
    /// The arithmetic flags of RFLAGS.
    pub flags: u64,
    /// ST(i), 80 bits.
    pub st: [u128; 8],
    /// Control word.
    pub fcw: u16,
    /// Status word with TOP.
    pub fsw: u16,
    /// By physical number: registers in use.
    pub in_use: u8,
    /// XMM registers.
    pub xmm: [u128; 16],
    /// MXCSR.
    pub mxcsr: u32,
    /// Memory at [`DATA`].
    pub data: Box<[u8; DATA_SIZE]>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            gpr: [0; 16],
            flags: 0,
            st: [0; 8],
            fcw: 0x37f,
            fsw: 0,
            in_use: 0,
            xmm: [0; 16],
            mxcsr: 0x1f80,
            data: Box::new([0; DATA_SIZE]),
        }
    }
}

impl State {
    /// The first differences from another state, a line each.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut differ = |name: String, a: &dyn fmt::LowerHex, b: &dyn fmt::LowerHex| {
            lines.push(format!("{name}: {a:#x} native, {b:#x} emulated"));
        };
        for i in 0..16 {
            if self.gpr[i] != other.gpr[i] {
                differ(format!("gpr {i}"), &self.gpr[i], &other.gpr[i]);
            }
            if self.xmm[i] != other.xmm[i] {
                differ(format!("xmm{i}"), &self.xmm[i], &other.xmm[i]);
            }
        }
        for i in 0..8 {
            if self.st[i] != other.st[i] {
                differ(format!("st({i})"), &self.st[i], &other.st[i]);
            }
        }
        if self.flags != other.flags {
            differ("flags".into(), &self.flags, &other.flags);
        }
        if self.fcw != other.fcw {
            differ("fcw".into(), &self.fcw, &other.fcw);
        }
        if self.fsw != other.fsw {
            differ("fsw".into(), &self.fsw, &other.fsw);
        }
        if self.in_use != other.in_use {
            differ("in_use".into(), &self.in_use, &other.in_use);
        }
        if self.mxcsr != other.mxcsr {
            differ("mxcsr".into(), &self.mxcsr, &other.mxcsr);
        }
        let bytes = self.data.iter().zip(other.data.iter()).enumerate();
        for (i, (a, b)) in bytes.filter(|(_, (a, b))| a != b).take(16) {
            differ(format!("data[{i:#x}]"), a, b);
        }
        lines
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "gpr {:x?} flags {:#x}", self.gpr, self.flags)?;
        writeln!(
            f,
            "fcw {:#x} fsw {:#x} in_use {:#x} st {:x?}",
            self.fcw, self.fsw, self.in_use, self.st
        )?;
        write!(f, "mxcsr {:#x} xmm {:x?}", self.mxcsr, self.xmm)
    }
}
