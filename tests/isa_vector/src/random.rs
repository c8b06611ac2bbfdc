//! Numbers that find mistakes.

use crate::state::{ARITHMETIC, DATA_SIZE};
use crate::{DATA, State};

/// SplitMix64: repeatable from its seed.
pub struct Random(u64);

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
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.bits() % limit
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// An integer, often at a limit of some size.
    pub fn integer(&mut self) -> u64 {
        let limit = self.pick(&[0, 0x7f, 0x7fff, 0x7fff_ffff, i64::MAX as u64, u64::MAX, 1 << 32]);
        match self.below(4) {
            0 => limit.wrapping_add(self.below(3)),
            1 => self.bits() >> self.below(64),
            _ => self.bits(),
        }
    }

    /// A float of 32 bits.
    pub fn f32(&mut self) -> u32 {
        match self.below(4) {
            0 => self.pick(&F32) | (self.bits() as u32) << 31,
            1 => (self.bits() as i16 as f32).to_bits(),
            2 => {
                let exponent =
                    self.pick(&[0_u32, 1, 2, 23, 24, 64, 126, 127, 128, 150, 158, 253, 254]);
                self.bits() as u32 & 0x807f_ffff | exponent << 23
            }
            _ => self.bits() as u32,
        }
    }

    /// A float of 64 bits.
    pub fn f64(&mut self) -> u64 {
        match self.below(5) {
            0 => self.pick(&F64) | self.bits() << 63,
            1 => f64::from(self.bits() as i32).to_bits(),
            2 => {
                let exponent = self
                    .pick(&[0_u64, 1, 2, 52, 53, 512, 1022, 1023, 1024, 1054, 1086, 2045, 2046]);
                self.bits() & 0x800f_ffff_ffff_ffff | exponent << 52
            }
            3 => f64::from(f32::from_bits(self.f32())).to_bits(),
            _ => self.bits(),
        }
    }

    /// A float of 80 bits, sometimes one no instruction makes.
    pub fn f80(&mut self) -> u128 {
        let sign = self.bits() as u16 & 0x8000;
        let significand = match self.below(4) {
            0 => 1 << 63,
            1 => self.bits() | 1 << 63,
            2 => u64::MAX << self.below(64) | 1 << 63,
            _ => self.bits() >> self.below(64),
        };
        let exponent = match self.below(3) {
            0 => self.pick(&EXPONENTS),
            1 => 0x3fff - 70 + self.below(140) as u16,
            _ => self.bits() as u16 & 0x7fff,
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
                .fold(0, |v, _| v << 8 | u128::from(self.pick(&[0_u8, 1, 0x7f, 0x80, 0xff, 65]))),
            _ => u128::from(self.bits()) << 64 | u128::from(self.bits()),
        }
    }

    /// Everything at random; `plain` with all float exceptions masked and a full x87 stack.
    pub fn state(&mut self, plain: bool) -> State {
        let mut state = State {
            gpr: std::array::from_fn(|_| self.integer()),
            flags: self.bits() & ARITHMETIC,
            st: std::array::from_fn(|_| self.f80()),
            xmm: std::array::from_fn(|_| self.vector()),
            ..State::default()
        };
        let repeat = self.below(16) as usize;
        state.xmm[repeat] = state.xmm[self.below(16) as usize];
        let masks = |r: &mut Self| if plain || !r.one_in(3) { 0x3f } else { r.bits() & 0x3f };
        state.fcw = (0x40 | masks(self) | (self.bits() & 0xf00)) as u16;
        // Condition codes and TOP; flags only where their exceptions are masked.
        state.fsw = self.bits() as u16 & 0x7f00 | self.bits() as u16 & state.fcw & 0x3f;
        state.in_use = if plain || !self.one_in(3) { 0xff } else { self.bits() as u8 };
        let masks = masks(self);
        let controls = self.bits() & if self.one_in(2) { 0xe040 } else { 0x6000 };
        state.mxcsr = (masks << 7 | controls | (self.bits() & 0x3f)) as u32;
        for chunk in state.data.chunks_exact_mut(16) {
            chunk.copy_from_slice(&self.vector().to_le_bytes());
        }
        state
    }

    /// Makes RBX an address all operand sizes fit at, and puts a float of 80 bits there.
    pub fn address(&mut self, state: &mut State) {
        let aligned = if self.one_in(16) { self.below(16) } else { 0 };
        let offset = 1024 + 16 * self.below(128) + aligned;
        state.gpr[3] = DATA + offset;
        let at = offset as usize;
        if self.one_in(2) {
            let value = match self.below(3) {
                0 => u128::from(self.integer()),
                1 => (0..10)
                    .fold(0, |v, _| v << 8 | u128::from(self.below(10) << 4 | self.below(10))),
                _ => self.f80(),
            };
            state.data[at..at + 10].copy_from_slice(&value.to_le_bytes()[..10]);
        }
        debug_assert!(at + 512 < DATA_SIZE);
    }
}
