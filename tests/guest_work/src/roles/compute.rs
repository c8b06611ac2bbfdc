//! The same computation has the same result, whatever engine does it.

use std::hint::black_box;

use anyhow::ensure;

use super::{Steps, stay_on};

const ROUNDS: u32 = 20_000;

/// Computes on one CPU.
pub fn run(cpu: usize) -> anyhow::Result<()> {
    stay_on(cpu)?;
    let seed = cpu as u64 + 1;
    let first = chaos(black_box(seed));
    let mut steps = Steps::default();
    loop {
        let result = chaos(black_box(seed));
        ensure!(result == first, "{result:#x} instead of {first:#x}");
        steps.finish()?;
    }
}

/// Integers and floats that keep nothing of a wrong bit to themselves.
fn chaos(seed: u64) -> u64 {
    let mut word = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut floats = [0.1, 0.2, 0.3, 0.4];
    for _ in 0..ROUNDS {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        let grain = (word >> 12) as f64 * f64::EPSILON;
        for x in &mut floats {
            // The logistic map doubles a difference in each round.
            let mixed = (*x + grain * 1e-9).fract();
            *x = 3.99 * mixed * (1.0 - mixed);
        }
        word = word.wrapping_add(floats[(word & 3) as usize].to_bits());
    }
    floats.iter().fold(word, |word, x| word.rotate_left(7) ^ x.to_bits())
}
