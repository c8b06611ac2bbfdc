//! Repeatable random numbers.

/// splitmix64.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// A number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number() % end
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    /// An operand: all kinds of widths, and often at a boundary.
    pub fn operand(&mut self) -> u64 {
        let bits = *self.pick(&[1, 4, 8, 16, 32, 64, 64]);
        let value = match self.below(6) {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << (bits - 1),
            3 => (1u64 << (bits - 1)).wrapping_sub(1),
            _ => self.number(),
        };
        let shift = 64 - bits as u32;
        match self.below(3) {
            0 => ((value << shift) as i64 >> shift) as u64,
            1 => value << shift >> shift,
            _ => self.number() << (bits % 64) ^ value,
        }
    }
}
