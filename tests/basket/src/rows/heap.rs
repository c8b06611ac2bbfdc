//! The C library's sorting, allocation and strings.
//!
//! UNSAFETY: calls the C library with pointers into arrays whose sizes it is told, or whose text ends
//! with a zero.
#![allow(unsafe_code, reason = "the C library's own code is what runs here")]

use std::ffi::{c_char, c_int, c_void};
use std::hint::black_box;
use std::ptr;

use super::{Made, Place, mix};
use crate::random::Random;

const ELEMENTS: usize = 1024;
const SLOTS: usize = 256;
/// Allocations and releases in a round.
pub const PAIRS: u64 = 64;

extern "C" fn compare(a: *const c_void, b: *const c_void) -> c_int {
    // SAFETY: qsort hands over pointers to elements of the array it sorts, of u32.
    let (a, b) = unsafe { (*a.cast::<u32>(), *b.cast::<u32>()) };
    a.cmp(&b) as c_int
}

/// qsort(3) of random numbers with a callback.
pub fn qsort(_: &Place) -> Made {
    let mut random = Random::new();
    let mut values = vec![0u32; ELEMENTS];
    Ok(Some(Box::new(move |rounds| {
        let mut sum = 0;
        for _ in 0..rounds {
            values.fill_with(|| random.next() as u32);
            // SAFETY: the array has so many elements of that size.
            unsafe { libc::qsort(values.as_mut_ptr().cast(), ELEMENTS, 4, Some(compare)) };
            assert!(values.is_sorted());
            sum = values.iter().step_by(100).fold(sum, |sum, value| mix(sum, u64::from(*value)));
        }
        sum
    })))
}

/// Blocks that are held for a while, each with its size written into it.
struct Blocks([*mut u64; SLOTS]);

impl Drop for Blocks {
    fn drop(&mut self) {
        for block in self.0 {
            // SAFETY: null, or from malloc and not yet released.
            unsafe { libc::free(block.cast()) };
        }
    }
}

/// malloc(3) and free(3) of random sizes.
pub fn malloc(_: &Place) -> Made {
    let mut random = Random::new();
    let mut blocks = Blocks([ptr::null_mut(); SLOTS]);
    Ok(Some(Box::new(move |rounds| {
        let (mut sum, blocks) = (0u64, &mut blocks);
        for _ in 0..rounds * PAIRS {
            let choice = random.next();
            let block = &mut blocks.0[choice as usize % SLOTS];
            let size = 16 + (choice >> 40 & 0x1ff);
            // SAFETY: a block is null or from malloc, and at least 16 bytes; it is replaced here.
            unsafe {
                if !block.is_null() {
                    sum = mix(sum, **block);
                    libc::free(block.cast());
                }
                *block = black_box(libc::malloc(size as usize)).cast();
                assert!(!block.is_null(), "no memory");
                **block = size;
            }
        }
        sum
    })))
}

/// A few string functions on a line of text.
pub fn strings(_: &Place) -> Made {
    let text = c"the quick brown fox jumps over the lazy dog, again and again and again, \
                 until it has had enough of it: 123456";
    let mut copy = vec![0u8; 256];
    Ok(Some(Box::new(move |rounds| {
        let mut sum = 0;
        for round in 0..rounds {
            let text: *const c_char = black_box(text.as_ptr());
            let to: *mut c_char = black_box(copy.as_mut_ptr().cast());
            // SAFETY: the text ends with a zero, and its copy is longer than it.
            let found = unsafe {
                let length = libc::strlen(text);
                libc::strcpy(to, text);
                let order = libc::strcmp(text, to) + libc::memcmp(text.cast(), to.cast(), length);
                let colon = libc::strchr(to, c_int::from(b':')).offset_from(to);
                let word = libc::strstr(text, c"enough".as_ptr()).offset_from(text);
                let last = libc::memchr(to.cast(), c_int::from(b'6'), length);
                let last = last.cast::<c_char>().offset_from(to);
                length as i64 + i64::from(order) + (colon + word + last) as i64
            };
            sum = mix(sum, found as u64 ^ round);
        }
        sum
    })))
}
