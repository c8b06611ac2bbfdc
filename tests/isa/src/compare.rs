//! The comparison.

use crate::generate::{Instance, MIDDLE, aim, instance};
use crate::interpreter::Interpreter;
use crate::native::{FLAGS, Native};
use crate::undefined::undefined_result;
use crate::{DATA_SIZE, Form, Outcome, Random, State, undefined_flags};

/// How much to compare.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// 64 or 32.
    pub code_bits: u32,
    /// Cases a form.
    pub cases: usize,
    /// Start of the random numbers.
    pub seed: u64,
    /// Sets registers of the family, before addresses are aimed: XMM, x87. General registers and
    /// flags are random already.
    pub prepare: fn(&mut Random, &mut State),
    /// What of a difference does not count, by family: called with both results.
    pub forgive: fn(&x86_decode::Insn, &mut State, &mut State),
}

impl Options {
    /// For this code size. `TRINE_ISA_CASES` sets the cases a form, `TRINE_ISA_SEED` the seed.
    pub fn from_env(code_bits: u32) -> Self {
        let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse().ok());
        Self {
            code_bits,
            cases: number("TRINE_ISA_CASES").unwrap_or(300) as usize,
            seed: number("TRINE_ISA_SEED").unwrap_or(1),
            prepare: |_, _| {},
            forgive: |_, _, _| {},
        }
    }
}

/// Runs random instances of every form on both CPUs; returns how many there were.
///
/// # Panics
/// When they differ, with the first difference of each form.
pub fn compare(forms: &[Form], options: &Options) -> usize {
    let mut native = Native::new();
    let mut interpreter = Interpreter::new();
    let mut random = Random(options.seed);
    let mut compared = 0;
    let mut differences = Vec::new();
    for form in forms.iter().filter(|f| f.in_64 || options.code_bits == 32) {
        let before = compared;
        // Chance makes what the decoder refuses, too.
        for _ in 0..options.cases * 2 {
            let seed = random.0;
            if let Some(found) = instance(form, options.code_bits, &mut random) {
                match one(&found, &mut random, options, &mut native, &mut interpreter) {
                    Ok(done) => compared += usize::from(done),
                    Err(difference) => {
                        let (code, bits) = (found.insn.code, options.code_bits);
                        differences.push(format!(
                            "{code:?} {:02x?} (seed {seed}, {bits}-bit): {difference}",
                            found.bytes
                        ));
                        compared += 1;
                        break;
                    }
                }
            }
            random.number();
        }
        assert!(compared > before, "no instance of {form:x?} can be run");
    }
    drop(native);
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
    compared
}

fn one(
    found: &Instance,
    random: &mut Random,
    options: &Options,
    native: &mut Native,
    interpreter: &mut Interpreter,
) -> Result<bool, String> {
    let mut start = random_state(random, options.code_bits);
    (options.prepare)(random, &mut start);
    if !aim(&found.insn, options.code_bits, random, &mut start) {
        return Ok(false);
    }
    let mut data = vec![0; DATA_SIZE];
    let middle = DATA_SIZE / 2;
    for chunk in data[middle - 128..middle + 256].chunks_exact_mut(8) {
        chunk.copy_from_slice(&random.operand().to_le_bytes());
    }
    native.data().copy_from_slice(&data);
    interpreter.set_data(&data);

    let (mut host, mut ours) = (start, start);
    let host_outcome = native.run(&found.bytes, options.code_bits, &mut host);
    let our_outcome = interpreter.run(&found.bytes, 1, options.code_bits, &mut ours);
    if host_outcome != our_outcome.as_signal() {
        return Err(format!("host {host_outcome:?}, interpreter {our_outcome:?}\nfrom {start:x?}"));
    }
    if undefined_result(&found.insn, &start) {
        return Ok(true);
    }
    let defined = match host_outcome {
        Outcome::Done => !undefined_flags(&found.insn, &start),
        Outcome::Raised(_) => FLAGS,
    };
    canonical(&mut host, options.code_bits, defined);
    canonical(&mut ours, options.code_bits, defined);
    (options.forgive)(&found.insn, &mut host, &mut ours);
    if host != ours {
        return Err(difference(&start, &host, &ours));
    }
    let ours = interpreter.data();
    if let Some(at) = native.data().iter().zip(&ours).position(|(a, b)| a != b) {
        let host = native.data()[at];
        return Err(format!(
            "byte {at:#x} of the data (operands begin near {middle:#x}): host {host:#x}, \
             interpreter {:#x}\nfrom {start:x?}",
            ours[at]
        ));
    }
    Ok(true)
}

fn random_state(random: &mut Random, code_bits: u32) -> State {
    let mut state = State::default();
    for gpr in &mut state.gpr {
        *gpr = random.operand();
        if code_bits == 32 {
            *gpr &= 0xffff_ffff;
        }
    }
    state.gpr[4] = MIDDLE;
    state.gpr[5] = MIDDLE + 64;
    state.flags = random.number() & FLAGS;
    state
}

fn canonical(state: &mut State, code_bits: u32, defined: u64) {
    state.flags &= defined;
    if code_bits == 32 {
        for gpr in &mut state.gpr[..8] {
            *gpr &= 0xffff_ffff;
        }
        state.gpr[8..].fill(0);
    }
}

/// The lines that differ, and where all began.
fn difference(start: &State, host: &State, ours: &State) -> String {
    let lines =
        |state: &State| format!("{state:#x?}").lines().map(str::to_owned).collect::<Vec<_>>();
    let (host, ours) = (lines(host), lines(ours));
    let mut text = String::new();
    for (number, (host, ours)) in host.iter().zip(&ours).enumerate() {
        if host != ours {
            text += &format!("line {number}: host {host}, interpreter {ours}\n");
        }
    }
    format!("{text}from {start:x?}")
}
