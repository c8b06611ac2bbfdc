//! Loads and stores beyond the caches.

use std::hint::black_box;

use super::{Made, Place, mix};
use crate::random::Random;

/// Loads in a round.
pub const STEPS: u64 = 1024;
const LINE_WORDS: usize = 8;
const ELEMENTS: usize = 1 << 20;

/// STREAM's triad on three arrays of 8 MiB.
pub fn triad(_: &Place) -> Made {
    let mut a = vec![0f64; ELEMENTS];
    let b: Vec<f64> = (0..ELEMENTS).map(|n| n as f64).collect();
    let c: Vec<f64> = (0..ELEMENTS).map(|n| 1.0 / (n + 1) as f64).collect();
    let mut scale = 3.0;
    Ok(Some(Box::new(move |rounds| {
        for _ in 0..rounds {
            scale += 0.5;
            for ((a, b), c) in black_box(&mut a).iter_mut().zip(&b).zip(&c) {
                *a = b + scale * c;
            }
        }
        a.iter().step_by(997).fold(0, |sum, value| mix(sum, value.to_bits()))
    })))
}

/// Each load's address is the last one's result: a cycle through all lines of so many bytes.
pub fn chase(bytes: usize) -> Made {
    let mut random = Random::new();
    let mut next: Vec<u64> = vec![0; bytes / 8];
    // Sattolo's shuffle makes one cycle of all.
    let lines = next.len() / LINE_WORDS;
    for line in 0..lines {
        next[line * LINE_WORDS] = (line * LINE_WORDS) as u64;
    }
    for line in (1..lines).rev() {
        next.swap(line * LINE_WORDS, random.below(line) * LINE_WORDS);
    }
    let mut at = 0;
    Ok(Some(Box::new(move |rounds| {
        for _ in 0..rounds * STEPS {
            at = next[at as usize];
        }
        at
    })))
}
