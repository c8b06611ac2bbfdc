//! Integer instructions.

use isa::Bench;
use isa::forms::{CONDITIONAL, Form, INTEGER, LEGACY, LONG, STRING};

const CASES: u64 = 100;

fn check(tables: &[&[Form]], code_bits: u32) {
    let mut bench = Bench::default();
    for forms in tables {
        bench.forms(forms, code_bits, CASES);
    }
    bench.finish();
}

#[test]
fn integer_instructions_do_in_64_bit_code_what_the_host_does() {
    check(&[INTEGER, LONG, CONDITIONAL], 64);
}

#[test]
fn integer_instructions_do_in_32_bit_code_what_the_host_does() {
    check(&[INTEGER, LEGACY, CONDITIONAL], 32);
}

#[test]
fn string_instructions_do_what_the_host_does() {
    let repeated = |prefix| STRING[..10].iter().map(|form| form.prefix(prefix)).collect();
    let repeated: [Vec<Form>; 2] = [repeated(0xf2), repeated(0xf3)];
    for code_bits in [64, 32] {
        check(&[STRING, &repeated[0], &repeated[1]], code_bits);
    }
}
