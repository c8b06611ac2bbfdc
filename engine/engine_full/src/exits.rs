//! Why translated code was left, counted by each vCPU for itself and read by anyone.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use engine::ExitCount;
use x86_decode::Code;

use crate::cache::Reason;

/// Beside [`Reason`]: what a way out turned out to be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Also {
    /// A poll, or a jump by address, while the vCPU was kicked.
    Kicked,
    /// The host's CPU faulted.
    HostFault,
    /// An access raised a page fault.
    PageFault,
    /// An access is the interpreter's: no memory is there, or it crosses what may not be crossed.
    Refused,
}

/// Names of the reasons, in their order, then of the others.
const NAMES: [&str; REASONS + 4] = [
    "jump not in the tables",
    "link made",
    "poll",
    "instruction to interpret",
    "load looked up",
    "store looked up",
    "stack window moved",
    "stack window given up",
    "x87 state loaded",
    "unit retired",
    "kick",
    "host fault",
    "page fault raised",
    "access to interpret",
];
const REASONS: usize = Reason::Retired as usize + 1;

/// One vCPU's counters, which only it writes.
pub(crate) struct Exits {
    ways: [AtomicU64; NAMES.len()],
    /// By [`Code`], the instructions interpreted one by one.
    codes: Box<[AtomicU64]>,
}

impl Default for Exits {
    fn default() -> Self {
        let codes = Code::values().map(|_| AtomicU64::new(0)).collect();
        Self { ways: Default::default(), codes }
    }
}

/// Adds one, where nobody else does.
fn add(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

impl Exits {
    pub(crate) fn count(&self, reason: Reason) {
        add(&self.ways[reason as usize]);
    }

    pub(crate) fn also(&self, what: Also) {
        add(&self.ways[REASONS + what as usize]);
    }

    pub(crate) fn interpreted(&self, code: Code) {
        add(&self.codes[code as usize]);
    }

    /// Adds what was counted to what others have.
    pub(crate) fn add_to(&self, all: &mut BTreeMap<String, u64>) {
        let ways = NAMES.iter().map(|name| (*name).to_owned()).zip(&self.ways);
        let codes = Code::values().zip(&self.codes);
        let codes = codes.map(|(code, count)| (code, count.load(Ordering::Relaxed)));
        // The names are made for the few that there are.
        let codes = codes.filter(|(_, count)| *count > 0);
        let codes = codes.map(|(code, count)| (format!("{:?}", code.mnemonic()), count));
        let ways = ways.map(|(name, count)| (name, count.load(Ordering::Relaxed)));
        for (why, count) in ways.chain(codes).filter(|(_, count)| *count > 0) {
            *all.entry(why).or_default() += count;
        }
    }
}

/// Most frequent first.
pub(crate) fn sorted(all: BTreeMap<String, u64>) -> Vec<ExitCount> {
    let mut sorted: Vec<_> = all.into_iter().map(|(why, count)| ExitCount { why, count }).collect();
    sorted.sort_by_key(|exit| std::cmp::Reverse(exit.count));
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_out_have_their_names_and_instructions_theirs() {
        let (one, other) = (Exits::default(), Exits::default());
        one.count(Reason::Jump);
        one.count(Reason::Retired);
        one.also(Also::Kicked);
        one.also(Also::Refused);
        for exits in [&one, &other] {
            exits.interpreted(Code::Xsaves_mem);
        }
        let mut all = BTreeMap::new();
        one.add_to(&mut all);
        other.add_to(&mut all);
        let sorted = sorted(all);
        assert_eq!(sorted[0], ExitCount { why: "Xsaves".into(), count: 2 });
        let mut names: Vec<_> = sorted[1..].iter().map(|exit| exit.why.as_str()).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            ["access to interpret", "jump not in the tables", "kick", "unit retired"]
        );
    }
}
