//! The x87 and SSE registers as FXSAVE and XSAVE lay them out (SDM vol. 1, 10.5.1 and 13.4).

use x86_state::bits::MXCSR_MASK;

use crate::Fpu;

/// Where ST(0) is; each register takes 16 bytes.
pub(super) const ST_AT: usize = 32;
/// Where MXCSR and its mask are.
pub(super) const MXCSR_AT: usize = 24;
/// Where XMM0 is.
pub(super) const XMM_AT: usize = 160;
/// Bytes of an 80-bit register.
const ST_SIZE: usize = 10;

fn word16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn word32(bytes: &[u8], at: usize) -> u32 {
    u32::from(word16(bytes, at)) | u32::from(word16(bytes, at + 2)) << 16
}

fn word64(bytes: &[u8], at: usize) -> u64 {
    u64::from(word32(bytes, at)) | u64::from(word32(bytes, at + 4)) << 32
}

impl Fpu {
    /// Lays out the x87 part: the first 24 bytes and the registers. `wide`: 64-bit FIP and FDP;
    /// else 32 bits, and FCS and FDS, which are zero.
    pub fn put_x87(&self, image: &mut [u8; 512], wide: bool) {
        image[0..2].copy_from_slice(&self.fcw.to_le_bytes());
        let fsw = self.fsw | u16::from(self.top) << 11;
        image[2..4].copy_from_slice(&fsw.to_le_bytes());
        image[4] = self.in_use;
        image[6..8].copy_from_slice(&self.fop.to_le_bytes());
        let mask = if wide { u64::MAX } else { 0xffff_ffff };
        image[8..16].copy_from_slice(&(self.fip & mask).to_le_bytes());
        image[16..24].copy_from_slice(&(self.fdp & mask).to_le_bytes());
        for i in 0..8 {
            let value = self.st[(usize::from(self.top) + i) & 7];
            let at = ST_AT + 16 * i;
            image[at..at + ST_SIZE].copy_from_slice(&value.to_le_bytes()[..ST_SIZE]);
        }
    }

    /// Lays out MXCSR and its mask.
    pub(crate) fn put_mxcsr(&self, image: &mut [u8; 512]) {
        image[24..28].copy_from_slice(&self.mxcsr.to_le_bytes());
        image[28..32].copy_from_slice(&MXCSR_MASK.to_le_bytes());
    }

    /// Lays out the first `count` XMM registers.
    pub(crate) fn put_xmm(&self, image: &mut [u8; 512], count: usize) {
        for (i, value) in self.xmm[..count].iter().enumerate() {
            let at = XMM_AT + 16 * i;
            image[at..at + 16].copy_from_slice(&value.to_le_bytes());
        }
    }

    /// Takes the x87 part.
    pub fn take_x87(&mut self, image: &[u8; 512], wide: bool) {
        let fsw = word16(image, 2);
        self.fcw = word16(image, 0);
        self.fsw = fsw & !0x3800;
        self.top = (fsw >> 11) as u8 & 7;
        self.in_use = image[4];
        self.fop = word16(image, 6) & 0x7ff;
        let mask = if wide { u64::MAX } else { 0xffff_ffff };
        self.fip = word64(image, 8) & mask;
        self.fdp = word64(image, 16) & mask;
        for i in 0..8 {
            let mut bytes = [0; 16];
            let at = ST_AT + 16 * i;
            bytes[..ST_SIZE].copy_from_slice(&image[at..at + ST_SIZE]);
            self.st[(usize::from(self.top) + i) & 7] = u128::from_le_bytes(bytes);
        }
    }

    /// The MXCSR in an image.
    pub(crate) fn mxcsr_in(image: &[u8; 512]) -> u32 {
        word32(image, MXCSR_AT)
    }

    /// Takes the first `count` XMM registers.
    pub(crate) fn take_xmm(&mut self, image: &[u8; 512], count: usize) {
        for (i, value) in self.xmm[..count].iter_mut().enumerate() {
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&image[XMM_AT + 16 * i..][..16]);
            *value = u128::from_le_bytes(bytes);
        }
    }

    /// The x87 part as FNINIT leaves it, all registers zero.
    pub(super) fn init_x87(&mut self) {
        *self = Self { xmm: self.xmm, mxcsr: self.mxcsr, ..Self::default() };
    }

    /// The x87 part is in its initial configuration: XINUSE's bit is clear.
    pub(super) fn is_x87_initial(&self) -> bool {
        let initial = Self::default();
        self.st == initial.st
            && (self.fcw, self.fsw, self.top, self.in_use) == (initial.fcw, 0, 0, 0)
            && (self.fop, self.fip, self.fdp) == (0, 0, 0)
    }
}
