//! A Multiboot kernel, by its address fields and as ELF.

#![no_main]

use fuzz_boot::{load, with};
use libfuzzer_sys::fuzz_target;

const MAGIC: u32 = 0x1bad_b002;
const ELF32: &[u8] = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0\x01\0\0\0";

fn header(flags: u32) -> Vec<u8> {
    let sum = 0u32.wrapping_sub(MAGIC).wrapping_sub(flags);
    [MAGIC, flags, sum].iter().flat_map(|word| word.to_le_bytes()).collect()
}

fuzz_target!(|data: &[u8]| {
    let Some((flags, rest)) = data.split_first() else { return };
    let aligned = usize::from(*flags) * 4;
    load(with(rest, aligned, &header(u32::from(*flags & 7) | 1 << 16)));
    let elf = with(rest, 0, ELF32);
    load(with(&elf, 52 + aligned, &header(u32::from(*flags & 7))));
});
