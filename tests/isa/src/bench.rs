//! The comparison.

use iced_x86::Code;

use crate::forms::{Form, Instance};
use crate::sequence::Sequence;
use crate::{
    Case, DATA, End, FLAGS, Measured, Native, Outcome, Random, Subject, subjects, undefined,
};

/// How much to compare.
#[derive(Debug, Clone)]
pub struct Options {
    /// Times the usual number of cases.
    pub times: f64,
    /// Start of the random numbers.
    pub seed: u64,
    /// Single instructions: opcodes whose name begins so.
    pub only: String,
}

impl Options {
    /// `TRINE_ISA_TIMES` multiplies the cases, `TRINE_ISA_SEED` sets the seed, `TRINE_ISA_ONLY`
    /// the opcodes.
    pub fn from_env() -> Self {
        let read = |name: &str| std::env::var(name).ok();
        Self {
            times: read("TRINE_ISA_TIMES").and_then(|v| v.parse().ok()).unwrap_or(1.0),
            seed: read("TRINE_ISA_SEED").and_then(|v| v.parse().ok()).unwrap_or(1),
            only: read("TRINE_ISA_ONLY").unwrap_or_default(),
        }
    }
}

/// The bare CPU, and what is measured by it.
pub struct Bench {
    native: Native,
    subjects: Vec<Measured>,
    options: Options,
    compared: u64,
    ended_done: u64,
    reports: Vec<String>,
}

/// Differences of one form are alike.
const REPORTS_PER_FORM: usize = 2;
/// CF, PF, AF, ZF, SF, OF.
const ARITHMETIC: u64 = 0x8d5;
/// Sequences that differ, until it is enough.
const REPORTS_MAX: usize = 8;

impl Default for Bench {
    fn default() -> Self {
        Self::new(subjects(), Options::from_env())
    }
}

impl Bench {
    /// Measures these.
    pub fn new(subjects: Vec<Measured>, options: Options) -> Self {
        let (compared, ended_done) = (0, 0);
        let native = Native::default();
        Self { native, subjects, options, compared, ended_done, reports: Vec::new() }
    }

    fn cases(&self, usual: u64) -> u64 {
        (usual as f64 * self.options.times).ceil() as u64
    }

    /// Runs random instances of these forms.
    pub fn forms(&mut self, forms: &[Form], code_bits: u32, cases: u64) {
        for form in forms.iter().filter(|f| f.in_64 || code_bits == 32) {
            let mut random = Random(self.options.seed);
            let make = |random: &mut Random| form.instance(code_bits, random);
            let made = self.singles(make, code_bits, cases, &mut random);
            assert!(made > 0 || !self.options.only.is_empty(), "no instance of {form:x?} is there");
        }
    }

    /// Runs random instances of these encodings in 64-bit code; those that cannot be made are
    /// returned.
    pub fn encodings(&mut self, codes: &[Code], cases: u64) -> Vec<Code> {
        let mut not_made = Vec::new();
        for code in codes {
            let seed = self.options.seed.wrapping_mul(0x1_0000_0001) ^ *code as u64;
            let make = |random: &mut Random| Instance::of(*code, random);
            if self.singles(make, 64, cases, &mut Random(seed)) == 0 {
                not_made.push(*code);
            }
        }
        not_made
    }

    fn singles(
        &mut self,
        make: impl Fn(&mut Random) -> Option<Instance>,
        code_bits: u32,
        cases: u64,
        random: &mut Random,
    ) -> u64 {
        let (mut made, mut failed) = (0, 0);
        // Chance makes what the decoder refuses, too.
        for _ in 0..self.cases(cases) {
            let seed = random.0;
            let found = make(random);
            random.number();
            let Some(found) = found else { continue };
            made += 1;
            let name = format!("{:?}", found.insn.code);
            if !name.starts_with(&self.options.only) {
                continue;
            }
            let case = single(&found, code_bits, random);
            let undefined = undefined(&found.insn, &case.state, found.operand);
            if let Err(difference) = self.compare(&case, &|outcome| {
                if undefined.result {
                    outcome.state = case.state;
                    outcome.data.clear();
                    return;
                }
                if outcome.end == End::Done {
                    outcome.state.flags &= !undefined.flags;
                    for at in undefined.data.clone() {
                        if let Some(byte) = outcome.data.get_mut(at.wrapping_sub(DATA) as usize) {
                            *byte = 0;
                        }
                    }
                }
            }) {
                let bytes = &found.bytes;
                self.reports.push(format!("{name} {bytes:02x?} (seed {seed}): {difference}"));
                failed += 1;
                if failed == REPORTS_PER_FORM {
                    break;
                }
            }
        }
        made
    }

    /// Runs random sequences.
    pub fn sequences(&mut self, code_bits: u32, sequences: u64) {
        for seed in self.options.seed..self.options.seed + self.cases(sequences) {
            let mut random = Random(seed.wrapping_mul(0x9e37_79b9) ^ u64::from(code_bits));
            let sequence = Sequence::random(code_bits, &mut random);
            let plain = !random.one_in(8);
            let case = Case::random(sequence.code(), code_bits, plain, &mut random);
            let case = sequence.begin(case);
            if self.compare(&case, &|_| {}).is_err() {
                let report = self.shortest(&sequence, &case);
                self.reports.push(format!("seed {seed}, {code_bits}-bit: {report}"));
            }
            if self.reports.len() == REPORTS_MAX {
                break;
            }
        }
    }

    /// The difference of the shortest beginning of a sequence that makes one.
    fn shortest(&mut self, sequence: &Sequence, whole: &Case) -> String {
        for length in 1..=sequence.len() {
            let case = Case { code: sequence.beginning(length), ..whole.clone() };
            if let Err(difference) = self.compare(&case, &|_| {}) {
                return format!("{}{difference}", sequence.listing(length));
            }
        }
        "differs only at times".into()
    }

    /// Runs one case everywhere. `forgive` makes equal what may differ.
    fn compare(&mut self, case: &Case, forgive: &dyn Fn(&mut Outcome)) -> Result<(), String> {
        let mut native = self.native.run(case);
        canonical(&mut native, case.code_bits);
        self.compared += 1;
        self.ended_done += u64::from(native.end == End::Done);
        if native.end == End::Hung {
            // A return to where chance would have it: round and round.
            println!("NOT COMPARED: a case without an end");
            return Ok(());
        }
        if native.end == End::Died {
            return Err(format!("the bare CPU: {:?}\nfrom {:?}\n", native.end, case.state));
        }
        forgive(&mut native);
        for Measured { subject, limits } in &mut self.subjects {
            if limits.exclude(case, &native) {
                continue;
            }
            let mut outcome = subject.run(case);
            canonical(&mut outcome, case.code_bits);
            forgive(&mut outcome);
            if limits.translates && native.end != End::Done {
                let rip = outcome.state.rip;
                if native.end == outcome.end && !is_canonical(rip) {
                    continue;
                }
                let own = native.state.flags & ARITHMETIC;
                outcome.state.flags = outcome.state.flags & !ARITHMETIC | own;
            }
            if outcome != native {
                return Err(format!(
                    "the bare CPU and {}:\n  {}\nfrom {:?}\nto {:?}\n",
                    subject.name(),
                    native.differences(&outcome).join("\n  "),
                    case.state,
                    outcome.state
                ));
            }
        }
        Ok(())
    }

    /// Says how much was compared.
    ///
    /// # Panics
    /// When something differed, with all differences.
    pub fn finish(self) {
        let Self { compared, ended_done, reports, subjects, options, .. } = self;
        let names: Vec<String> = subjects.iter().map(|s| s.subject.name()).collect();
        println!(
            "{compared} cases, {ended_done} to their end; seed {}; {}",
            options.seed,
            names.join("; ")
        );
        assert!(reports.is_empty(), "{} differences:\n{}", reports.len(), reports.join("\n"));
    }
}

/// A case of one instruction.
fn single(found: &Instance, code_bits: u32, random: &mut Random) -> Case {
    let plain = random.one_in(2);
    let mut case = Case::random(found.bytes.clone(), code_bits, plain, random);
    for (reg, value) in &found.aims {
        case.state.gpr[usize::from(*reg)] = *value;
    }
    if code_bits == 32 {
        case.state.narrow();
    }
    if let Some(operand) = found.operand {
        let at = operand.wrapping_sub(DATA) as usize;
        if random.one_in(2)
            && let Some(place) = case.data.get_mut(at..at.wrapping_add(10))
        {
            place.copy_from_slice(&random.ten_bytes());
        }
        if matches!(found.insn.code, Code::Ldmxcsr_m32)
            && let Some(byte) = case.data.get_mut(at.wrapping_add(2))
        {
            *byte &= !2; // misaligned-exception mask, of AMD's CPUs only
        }
    }
    case
}

fn is_canonical(address: u64) -> bool {
    matches!(address >> 47, 0 | 0x1_ffff)
}

fn canonical(outcome: &mut Outcome, code_bits: u32) {
    outcome.state.flags &= FLAGS;
    if code_bits == 32 {
        outcome.state.narrow();
    }
}
