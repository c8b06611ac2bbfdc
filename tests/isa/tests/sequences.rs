//! Random sequences of instructions with branches.

use isa::Bench;

const SEQUENCES: u64 = 4_000;

fn check(code_bits: u32) {
    let mut bench = Bench::default();
    bench.sequences(code_bits, SEQUENCES);
    bench.finish();
}

#[test]
fn sequences_do_in_64_bit_code_what_the_host_does() {
    check(64);
}

#[test]
fn sequences_do_in_32_bit_code_what_the_host_does() {
    check(32);
}
