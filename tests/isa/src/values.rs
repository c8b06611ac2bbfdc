//! Numbers that find mistakes.

use crate::{DATA, DATA_SIZE, FLAGS, MIDDLE, Random, State, X87};

const F32: [u32; 14] = [
    0,
    1,
    0x7f_ffff,
    0x80_0000,
    0x3f80_0000,
    0x3f80_0001,
    0x7f7f_ffff,
    0x7f80_0000,
    0x7f80_0001,
    0x7fc0_0000,
    0x4f00_0000,
    0x5f00_0000,
    0x4effffff,
    0x3f00_0000,
];
const F64: [u64; 13] = [
    0,
    1,
    0xf_ffff_ffff_ffff,
    0x10_0000_0000_0000,
    0x3ff0_0000_0000_0000,
    0x7fef_ffff_ffff_ffff,
    0x7ff0_0000_0000_0000,
    0x7ff0_0000_0000_0001,
    0x7ff8_0000_0000_0000,
    0x41e0_0000_0000_0000,
    0x43e0_0000_0000_0000,
    0x3690_0000_0000_0000,
    0x47ef_ffff_e000_0000,
];
const EXPONENTS: [u16; 14] = [
    0,
    1,
    2,
    0x3fff,
    0x3ffe,
    0x4000,
    0x7ffe,
    0x7fff,
    0x3fff + 15,
    0x3fff + 31,
    0x3fff + 63,
    0x3fff - 1022,
    0x3fff + 127,
    0x3fff - 126,
];

impl Random {
    /// A float of 32 bits.
    pub fn f32(&mut self) -> u32 {
        match self.below(4) {
            0 => *self.pick(&F32) | (self.number() as u32) << 31,
            1 => (self.number() as i16 as f32).to_bits(),
            2 => {
                let exponent =
                    *self.pick(&[0_u32, 1, 2, 23, 24, 64, 126, 127, 128, 150, 158, 253, 254]);
                self.number() as u32 & 0x807f_ffff | exponent << 23
            }
            _ => self.number() as u32,
        }
    }

    /// A float of 64 bits.
    pub fn f64(&mut self) -> u64 {
        match self.below(5) {
            0 => *self.pick(&F64) | self.number() << 63,
            1 => f64::from(self.number() as i32).to_bits(),
            2 => {
                let exponent = self
                    .pick(&[0_u64, 1, 2, 52, 53, 512, 1022, 1023, 1024, 1054, 1086, 2045, 2046]);
                self.number() & 0x800f_ffff_ffff_ffff | exponent << 52
            }
            3 => f64::from(f32::from_bits(self.f32())).to_bits(),
            _ => self.number(),
        }
    }

    /// A float of 80 bits, sometimes one no instruction makes.
    pub fn f80(&mut self) -> u128 {
        let sign = self.number() as u16 & 0x8000;
        let significand = match self.below(4) {
            0 => 1 << 63,
            1 => self.number() | 1 << 63,
            2 => u64::MAX << self.below(64) | 1 << 63,
            _ => self.number() >> self.below(64),
        };
        let exponent = match self.below(3) {
            0 => *self.pick(&EXPONENTS),
            1 => 0x3fff - 70 + self.below(140) as u16,
            _ => self.number() as u16 & 0x7fff,
        };
        match self.below(12) {
            0 => 0,
            1 => u128::from(sign) << 64,
            2 => u128::from(sign | 0x7fff) << 64 | 1 << 63,
            _ => u128::from(sign | exponent) << 64 | u128::from(significand),
        }
    }

    /// A vector: all of its lanes floats, or integers, or copies.
    pub fn vector(&mut self) -> u128 {
        match self.below(6) {
            0 | 1 => (0..4).fold(0, |v, _| v << 32 | u128::from(self.f32())),
            2 | 3 => (0..2).fold(0, |v, _| v << 64 | u128::from(self.f64())),
            4 => (0..16)
                .fold(0, |v, _| v << 8 | u128::from(*self.pick(&[0_u8, 1, 0x7f, 0x80, 0xff, 65]))),
            _ => u128::from(self.number()) << 64 | u128::from(self.number()),
        }
    }

    /// Ten bytes some x87 instruction takes: an integer, a packed decimal, a float.
    pub fn ten_bytes(&mut self) -> [u8; 10] {
        let value = match self.below(3) {
            0 => u128::from(self.operand()),
            1 => (0..10).fold(0, |v, _| v << 8 | u128::from(self.below(10) << 4 | self.below(10))),
            _ => self.f80(),
        };
        std::array::from_fn(|i| value.to_le_bytes()[i])
    }

    /// Registers at random, but for the stack pointers; `plain` with all float exceptions masked
    /// and a full x87 stack.
    pub fn state(&mut self, plain: bool) -> State {
        let mut gpr = std::array::from_fn(|_| self.operand());
        // Where operands are not, and now and then almost at an end.
        let end = DATA + DATA_SIZE as u64;
        gpr[4] = match self.below(16) {
            0 => DATA + 8 * self.below(4),
            1 => end - 8 * self.below(4),
            _ => end - 0x200,
        };
        gpr[5] = MIDDLE + 64;
        let mut xmm = std::array::from_fn(|_| self.vector());
        xmm[self.below(16) as usize] = xmm[self.below(16) as usize];
        let masks = |r: &mut Self| if plain || !r.one_in(3) { 0x3f } else { r.number() & 0x3f };
        let control = (0x40 | masks(self) | (self.number() & 0xf00)) as u16;
        let x87 = X87 {
            control,
            // Condition codes and TOP; flags only where their exceptions are masked.
            status: self.number() as u16 & 0x7f00 | self.number() as u16 & control & 0x3f,
            in_use: if plain || !self.one_in(3) { 0xff } else { self.number() as u8 },
            st: std::array::from_fn(|_| self.f80()),
        };
        let masks = masks(self);
        let controls = self.number() & if self.one_in(2) { 0xe040 } else { 0x6000 };
        let mxcsr = (masks << 7 | controls | (self.number() & 0x3f)) as u32;
        State { gpr, rip: 0, flags: self.number() & FLAGS, xmm, mxcsr, x87 }
    }
}
