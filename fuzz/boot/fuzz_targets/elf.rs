//! An ELF file, of either class, with or without program headers where they are looked for.

#![no_main]

use fuzz_boot::{load, with};
use libfuzzer_sys::fuzz_target;

/// Identification, type and machine.
const ELF32: &[u8] = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0\x01\0\0\0";
const ELF64: &[u8] = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0";

fuzz_target!(|data: &[u8]| {
    load(with(data, 0, b"\x7fELF"));
    load(with(data, 0, ELF32));
    let elf64 = with(data, 0, ELF64);
    load(elf64.clone());
    // Program headers right after the header, of the right size.
    let count = data.first().map_or(1, |first| first % 8);
    let elf64 = with(&elf64, 32, &64u64.to_le_bytes());
    load(with(&elf64, 54, &[56, 0, count, 0]));
    let elf32 = with(&with(data, 0, ELF32), 28, &52u32.to_le_bytes());
    load(with(&elf32, 42, &[32, 0, count, 0]));
});
