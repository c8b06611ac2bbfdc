//! x87, MMX and SSE instructions do on the interpreter what they do on the host.
//!
//! `ISA_CASES` sets the number of cases of each encoding, `ISA_SEED` where they begin,
//! `ISA_ONLY` restricts them to encodings whose name begins so.

use iced_x86::Code;
use isa_vector::{DATA, Emulated, Native, Random, State, forms};

const CASES: u64 = 20;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

struct Bench {
    native: Native,
    emulated: Emulated,
    cases: u64,
    reports: Vec<String>,
}

impl Bench {
    fn new() -> Self {
        Self {
            native: Native::default(),
            emulated: Emulated::default(),
            cases: 0,
            reports: Vec::new(),
        }
    }

    fn compare(&mut self, code: Code, bytes: &[u8], before: &State) -> bool {
        self.cases += 1;
        let (native_end, mut native) = self.native.run(bytes, before);
        let (end, mut emulated) = self.emulated.run(bytes, before);
        undefined(code, bytes, before, &mut native);
        undefined(code, bytes, before, &mut emulated);
        let differences = native.differences(&emulated);
        if native_end == end && differences.is_empty() {
            return true;
        }
        self.reports.push(format!(
            "{code:?} {bytes:02x?}: {native_end:?} native, {end:?} emulated\n  {}\nbefore: {before:?}\n",
            differences.join("\n  ")
        ));
        false
    }
}

/// Makes equal what the SDM leaves undefined, or to the CPU's maker.
fn undefined(code: Code, bytes: &[u8], before: &State, after: &mut State) {
    // Where the x87's last instruction and operand are: AMD keeps them with an exception only.
    let pointers = match code {
        Code::Fnstenv_m14byte | Code::Fnsave_m94byte => 6..14,
        Code::Fnstenv_m28byte | Code::Fnsave_m108byte => 12..28,
        _ => return,
    };
    let displacement = bytes.last().map_or(0, |byte| *byte as i8);
    let at = (before.gpr[3] - DATA).wrapping_add_signed(i64::from(displacement)) as usize;
    after.data[at + pointers.start..at + pointers.end].fill(0);
}

fn run(name: &str, plain: bool, wanted: impl Fn(&str) -> bool) {
    let only = std::env::var("ISA_ONLY").unwrap_or_default();
    let mut bench = Bench::new();
    let mut skipped = Vec::new();
    for code in forms::vector_and_float() {
        let title = format!("{code:?}");
        if !wanted(&title) || !title.starts_with(&only) {
            continue;
        }
        let seed = setting("ISA_SEED", 1).wrapping_mul(0x1_0000_0001) ^ code as u64;
        let mut random = Random::new(seed);
        let mut failures = 0;
        for _ in 0..setting("ISA_CASES", CASES) {
            let Some(bytes) = forms::instruction(code, &mut random) else {
                skipped.push(title.clone());
                break;
            };
            let mut state = random.state(plain);
            random.address(&mut state);
            if title.starts_with("Maskmov") {
                state.gpr[7] = DATA + 512 + random.below(64);
            }
            if title.starts_with("Ldmxcsr") {
                // Misaligned-exception mask, of AMD's CPUs only.
                state.data.chunks_exact_mut(4).for_each(|word| word[2] &= !2);
            }
            failures += u32::from(!bench.compare(code, &bytes, &state));
            if failures == 2 {
                break;
            }
        }
    }
    println!("{name}: {} cases, not made: {skipped:?}", bench.cases);
    assert!(bench.cases > 0 || !only.is_empty());
    let failed = bench.reports.len();
    assert!(failed == 0, "{failed} differences:\n{}", bench.reports.join("\n"));
}

fn is_x87(title: &str) -> bool {
    title.starts_with('F')
}

#[test]
fn x87_instructions_do_what_the_host_does() {
    run("x87, masked", true, is_x87);
    run("x87", false, is_x87);
}

#[test]
fn vector_instructions_do_what_the_host_does() {
    run("vectors, masked", true, |title| !is_x87(title));
    run("vectors", false, |title| !is_x87(title));
}
