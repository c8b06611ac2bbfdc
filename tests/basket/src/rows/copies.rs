//! Copies and fills of 4 KiB.
//!
//! UNSAFETY: hands pointers into arrays, with their sizes, to memcpy(3) and to string instructions.
#![allow(unsafe_code, reason = "string instructions exist in assembly only")]

use std::arch::asm;
use std::hint::black_box;

use super::{Made, Place, mix};
use crate::random::Random;

const BYTES: usize = 4096;
const WORDS: usize = BYTES / 8;

/// memcpy(3).
pub fn memcpy(_: &Place) -> Made {
    copies(|from, to| {
        // SAFETY: both arrays have as many bytes.
        unsafe {
            let to = black_box(to.as_mut_ptr()).cast();
            libc::memcpy(to, black_box(from.as_ptr()).cast(), black_box(BYTES));
        }
    })
}

/// REP MOVSB.
pub fn rep_movsb(_: &Place) -> Made {
    copies(|from, to| {
        // SAFETY: both arrays have as many bytes; the direction flag is clear (the ABI).
        unsafe {
            asm!(
                "rep movsb",
                inout("rcx") BYTES => _,
                inout("rsi") from.as_ptr() => _,
                inout("rdi") to.as_mut_ptr() => _,
                options(nostack, preserves_flags)
            );
        }
    })
}

/// REP STOSQ.
pub fn rep_stosq(_: &Place) -> Made {
    copies(|from, to| {
        // SAFETY: the array has as many words; the direction flag is clear (the ABI).
        unsafe {
            asm!(
                "rep stosq",
                inout("rcx") WORDS => _,
                in("rax") from[0],
                inout("rdi") to.as_mut_ptr() => _,
                options(nostack, preserves_flags)
            );
        }
    })
}

fn copies(copy: fn(&[u64; WORDS], &mut [u64; WORDS])) -> Made {
    let mut random = Random::new();
    let mut from: Box<[u64; WORDS]> = Box::new(std::array::from_fn(|_| random.next()));
    let mut to = Box::new([0; WORDS]);
    Ok(Some(Box::new(move |rounds| {
        let mut sum = 0u64;
        for round in 0..rounds {
            from[0] = round;
            copy(&from, &mut to);
            sum = sum.rotate_left(1) ^ to[0] ^ to[WORDS - 1];
        }
        to.iter().fold(sum, |sum, word| mix(sum, *word))
    })))
}
