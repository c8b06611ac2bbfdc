//! An initrd: archives, and what is packed in each compression.

#![no_main]

use std::io::Cursor;

use boot::{Image, check_initrd};
use libfuzzer_sys::fuzz_target;

const MEMORY_BYTES: u64 = 4 << 20;

fuzz_target!(|data: &[u8]| {
    let _ = check_initrd(&mut Image::new("initrd", Cursor::new(data)), MEMORY_BYTES);
});
