//! What is run, and what comes of it.

use crate::{DATA, DATA_SIZE, Random, State};

/// Code and all it begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Less than a page; INT3 follows.
    pub code: Vec<u8>,
    /// 64 or 32.
    pub code_bits: u32,
    /// Registers; RIP is of no meaning.
    pub state: State,
    /// Memory, [`DATA_SIZE`] bytes.
    pub data: Vec<u8>,
}

impl Case {
    /// Random registers and memory for this code; see [`Random::state`].
    pub fn random(code: Vec<u8>, code_bits: u32, plain: bool, random: &mut Random) -> Self {
        let mut state = random.state(plain);
        if code_bits == 32 {
            // Of a POPA that faults, some CPUs keep the first registers.
            state.gpr[4] = DATA + DATA_SIZE as u64 - 0x200;
            state.narrow();
        }
        let mut data = Vec::with_capacity(DATA_SIZE);
        while data.len() < DATA_SIZE {
            let value = match random.below(3) {
                0 => u128::from(random.operand()) << 64 | u128::from(random.operand()),
                _ => random.vector(),
            };
            data.extend(value.to_le_bytes());
        }
        Self { code, code_bits, state, data }
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// At an INT3.
    Done,
    /// By the exception of this vector.
    Raised(u8),
    /// Not in time.
    Hung,
    /// The subject died of it.
    Died,
}

/// What came of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// Registers; RIP is at the INT3, or at the instruction that raised.
    pub state: State,
    /// Memory.
    pub data: Vec<u8>,
}

impl Outcome {
    /// What differs from `other`, a line each.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.end != other.end {
            lines.push(format!("end: {:?} and {:?}", self.end, other.end));
        }
        self.state.differences(&other.state, &mut lines);
        let bytes = self.data.iter().zip(&other.data).enumerate();
        for (at, (a, b)) in bytes.filter(|(_, (a, b))| a != b).take(16) {
            lines.push(format!("data[{at:#x}]: {a:#x} and {b:#x}"));
        }
        lines
    }
}

/// Something that runs user code.
pub trait Subject {
    /// Its name in reports.
    fn name(&self) -> String;
    /// Runs a case.
    fn run(&mut self, case: &Case) -> Outcome;
}
