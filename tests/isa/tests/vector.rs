//! x87, MMX and SSE instructions.

use isa::Bench;
use isa::forms::vector_and_float;

const CASES: u64 = 40;

fn check(wanted: impl Fn(&str) -> bool) {
    let mut codes = vector_and_float();
    codes.retain(|code| wanted(&format!("{code:?}")));
    let mut bench = Bench::default();
    println!("not made: {:?}", bench.encodings(&codes, CASES));
    bench.finish();
}

#[test]
fn x87_instructions_do_what_the_host_does() {
    check(|name| name.starts_with('F'));
}

#[test]
fn vector_instructions_do_what_the_host_does() {
    check(|name| !name.starts_with('F'));
}
