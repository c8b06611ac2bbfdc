//! Integer instructions, against the host.

use isa::forms::{CONDITIONAL, INTEGER, LEGACY, LONG, STRING};
use isa::{Form, Options, compare};

fn check(forms: &[Form], code_bits: u32) {
    let options = Options::from_env(code_bits);
    let compared = compare(forms, &options);
    println!("{compared} cases agree, seed {}", options.seed);
}

#[test]
fn integer_instructions_do_in_64_bit_code_what_the_host_does() {
    check(INTEGER, 64);
    check(LONG, 64);
}

#[test]
fn integer_instructions_do_in_32_bit_code_what_the_host_does() {
    check(INTEGER, 32);
    check(LEGACY, 32);
}

#[test]
fn conditions_hold_when_the_host_says() {
    check(CONDITIONAL, 64);
    check(CONDITIONAL, 32);
}

#[test]
fn string_instructions_do_what_the_host_does() {
    for prefix in [0xf2, 0xf3] {
        let repeated: Vec<Form> = STRING.iter().map(|form| form.prefix(prefix)).collect();
        check(&repeated[..10], 64);
        check(&repeated[..10], 32);
    }
    check(STRING, 64);
    check(STRING, 32);
}
