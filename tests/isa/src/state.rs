//! Registers of user code.

use std::fmt;

/// Flags a case may set and see: the arithmetic ones and DF.
pub const FLAGS: u64 = 0xcd5;

/// Of an XSAVE image: its components.
const XSTATE_BV: usize = 512;
/// Legacy area and header of an XSAVE image.
pub(crate) const IMAGE_SIZE: usize = 576;

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
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// General registers by encoding number.
    pub gpr: [u64; 16],
    /// Next instruction.
    pub rip: u64,
    /// [`FLAGS`] of RFLAGS.
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

impl State {
    /// As 32-bit code sees it: halves of eight general registers.
    pub(crate) fn narrow(&mut self) {
        for gpr in &mut self.gpr[..8] {
            *gpr &= 0xffff_ffff;
        }
        self.gpr[8..].fill(0);
    }

    /// Puts x87 and SSE into an XSAVE image of standard form.
    pub(crate) fn put_image(&self, image: &mut [u8]) {
        image[0..2].copy_from_slice(&self.x87.control.to_le_bytes());
        image[2..4].copy_from_slice(&self.x87.status.to_le_bytes());
        image[4..6].copy_from_slice(&[self.x87.in_use, 0]);
        image[24..28].copy_from_slice(&self.mxcsr.to_le_bytes());
        for (slot, value) in image[32..160].chunks_exact_mut(16).zip(self.x87.st) {
            slot.copy_from_slice(&value.to_le_bytes());
        }
        for (slot, value) in image[160..416].chunks_exact_mut(16).zip(self.xmm) {
            slot.copy_from_slice(&value.to_le_bytes());
        }
        image[XSTATE_BV] |= 3; // both are in the image
    }

    /// Takes x87 and SSE out of one.
    pub(crate) fn take_image(&mut self, image: &[u8]) {
        let word = |at: usize| u16::from_le_bytes([image[at], image[at + 1]]);
        let wide = |at: usize| {
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&image[at..at + 16]);
            u128::from_le_bytes(bytes)
        };
        self.x87 = X87::default();
        if image[XSTATE_BV] & 1 != 0 {
            let st = std::array::from_fn(|i| wide(32 + 16 * i) & ((1 << 80) - 1));
            self.x87 = X87 { control: word(0), status: word(2), in_use: image[4], st };
        }
        let sse = image[XSTATE_BV] & 2 != 0;
        self.xmm = std::array::from_fn(|i| if sse { wide(160 + 16 * i) } else { 0 });
        self.mxcsr = u32::from(word(24)) | u32::from(word(26)) << 16;
    }

    /// Adds what differs from `other`, a line each.
    pub(crate) fn differences(&self, other: &Self, lines: &mut Vec<String>) {
        let mut differ = |name: String, a: u128, b: u128| {
            if a != b {
                lines.push(format!("{name}: {a:#x} and {b:#x}"));
            }
        };
        for i in 0..16 {
            differ(format!("gpr {i}"), self.gpr[i].into(), other.gpr[i].into());
            differ(format!("xmm{i}"), self.xmm[i], other.xmm[i]);
        }
        for i in 0..8 {
            differ(format!("st({i})"), self.x87.st[i], other.x87.st[i]);
        }
        differ("rip".into(), self.rip.into(), other.rip.into());
        differ("flags".into(), self.flags.into(), other.flags.into());
        differ("mxcsr".into(), self.mxcsr.into(), other.mxcsr.into());
        let (a, b) = (&self.x87, &other.x87);
        differ("x87 control".into(), a.control.into(), b.control.into());
        differ("x87 status".into(), a.status.into(), b.status.into());
        differ("x87 in use".into(), a.in_use.into(), b.in_use.into());
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "gpr {:x?} rip {:#x} flags {:#x}", self.gpr, self.rip, self.flags)?;
        writeln!(f, "{:x?}", self.x87)?;
        write!(f, "mxcsr {:#x} xmm {:x?}", self.mxcsr, self.xmm)
    }
}
