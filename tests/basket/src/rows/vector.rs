//! Vectors: integers with SSE2, floats with AVX2 and FMA where the machine has them.
//!
//! UNSAFETY: loads and stores through pointers made from references of the right size, and a function
//! that is called only where its instructions were found.
#![allow(unsafe_code, reason = "vector loads and stores take pointers")]

use std::arch::x86_64::*;
use std::hint::black_box;

use super::{Made, Place, mix};
use crate::random::Random;

const FLOATS: usize = 2048;
/// 4 KiB.
const BLOCKS: usize = 256;

/// A pass over 4 KiB with a dozen integer instructions for each 16 bytes.
pub fn sse2(_: &Place) -> Made {
    let mut random = Random::new();
    let mut data: Vec<[u64; 2]> = (0..BLOCKS).map(|_| [random.next(), random.next()]).collect();
    Ok(Some(Box::new(move |rounds| {
        for _ in 0..rounds {
            // SAFETY: every x86-64 CPU has it.
            unsafe { sse2_pass(black_box(&mut data)) };
        }
        data.iter().fold(0, |sum, [low, high]| mix(mix(sum, *low), *high))
    })))
}

#[target_feature(enable = "sse2")]
fn sse2_pass(data: &mut [[u64; 2]]) {
    let mut carry = _mm_set1_epi32(0x1357_9bdf);
    for block in data {
        let at: *mut __m128i = block.as_mut_ptr().cast();
        // SAFETY: the block is 16 bytes; the load needs no alignment.
        let value = unsafe { _mm_loadu_si128(at) };
        let sum = _mm_add_epi32(value, carry);
        let products = _mm_madd_epi16(sum, _mm_srli_epi32::<3>(value));
        let shuffled = _mm_shuffle_epi32::<0b01_00_11_10>(products);
        let bytes = _mm_avg_epu8(shuffled, _mm_packs_epi16(sum, value));
        let mask = _mm_cmpgt_epi16(bytes, value);
        let chosen = _mm_or_si128(_mm_and_si128(mask, sum), _mm_andnot_si128(mask, bytes));
        carry = _mm_xor_si128(chosen, _mm_slli_epi64::<7>(carry));
        // SAFETY: as the load.
        unsafe { _mm_storeu_si128(at, carry) };
    }
}

/// The dot product of 2048 floats.
pub fn avx2(_: &Place) -> Made {
    if !is_x86_feature_detected!("avx2") || !is_x86_feature_detected!("fma") {
        return Ok(None);
    }
    let mut random = Random::new();
    let mut float = || (random.next() >> 48) as f32 / 65536.0 - 0.5;
    let a: Vec<f32> = (0..FLOATS).map(|_| float()).collect();
    let b: Vec<f32> = (0..FLOATS).map(|_| float()).collect();
    Ok(Some(Box::new(move |rounds| {
        let mut sum = 0;
        for _ in 0..rounds {
            // SAFETY: the CPU has both, as was asked above.
            let product = unsafe { dot(black_box(&a), black_box(&b)) };
            sum = mix(sum, u64::from(product.to_bits()));
        }
        sum
    })))
}

#[target_feature(enable = "avx2,fma")]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [_mm256_setzero_ps(); 4];
    for (a, b) in a.as_chunks::<32>().0.iter().zip(b.as_chunks::<32>().0) {
        for (part, sum) in sums.iter_mut().enumerate() {
            // SAFETY: each chunk is four vectors of eight floats; the loads need no alignment.
            let (a, b) = unsafe {
                (
                    _mm256_loadu_ps(a.as_ptr().add(part * 8)),
                    _mm256_loadu_ps(b.as_ptr().add(part * 8)),
                )
            };
            *sum = _mm256_fmadd_ps(a, b, *sum);
        }
    }
    let sum = _mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3]));
    let mut lanes = [0f32; 8];
    // SAFETY: eight floats; the store needs no alignment.
    unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), sum) };
    lanes.iter().sum()
}
