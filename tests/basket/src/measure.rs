//! How long an operation takes.

use std::time::{Duration, Instant};

use basket::Timing;

use crate::rows::Work;

/// How much time is spent on a row.
pub struct Effort {
    /// Timed passes.
    pub passes: u32,
    /// How long one takes, at least.
    pub pass: Duration,
    /// When it is over, no further pass begins.
    pub row: Duration,
}

/// Runs as many rounds as make a pass, several times.
pub fn time(work: &mut Work, operations: u64, effort: &Effort) -> Timing {
    let begin = Instant::now();
    let mut pass = |rounds: u64| {
        let begin = Instant::now();
        work(rounds);
        begin.elapsed()
    };
    let mut rounds = 1;
    let first = loop {
        let took = pass(rounds);
        if took * 2 >= effort.pass {
            break took;
        }
        // Aims at a whole pass; the first rounds may be slow, so that it is not believed at once.
        let aim = effort.pass.as_nanos() / took.as_nanos().max(1);
        rounds *= aim.clamp(2, 16) as u64;
    };
    let mut passes = vec![first];
    while (passes.len() as u32) < effort.passes && begin.elapsed() < effort.row {
        passes.push(pass(rounds));
    }
    passes.sort();
    let ns = |took: Duration| took.as_secs_f64() * 1e9 / (rounds * operations) as f64;
    Timing { smallest_ns: ns(passes[0]), median_ns: ns(passes[passes.len() / 2]) }
}
