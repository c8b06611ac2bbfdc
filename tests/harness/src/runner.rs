//! Runs contracts on engines, and counts what could not be run.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use engine::{Engine, EngineKind};

/// A test that every engine passes.
pub struct Contract {
    /// A sentence.
    pub name: &'static str,
    /// Panics when the contract is broken.
    pub check: fn(&Subject),
}

/// An engine to test.
#[derive(Clone)]
pub struct Subject {
    /// The engine.
    pub engine: Arc<dyn Engine>,
    /// A TSC rate it can run.
    pub tsc_khz: u32,
    /// Contracts this host's hardware cannot keep, whatever the engine does, and why.
    pub beyond_host: Vec<(&'static str, &'static str)>,
}

impl Subject {
    fn why_not(&self, contract: &str) -> Option<&'static str> {
        self.beyond_host.iter().find(|(name, _)| *name == contract).map(|(_, reason)| *reason)
    }
}

/// An engine to test, or why there is none.
pub struct Candidate {
    /// Which.
    pub kind: EngineKind,
    /// The engine, or why it cannot run here.
    pub subject: Result<Subject, String>,
}

/// A contract that takes longer has hung: the slowest host runs 2 million instructions a second.
const TIME_LIMIT: Duration = Duration::from_secs(300);

/// Runs the contracts whose `ENGINE::NAME` contains the first argument, if there is one.
pub fn run(candidates: &[Candidate], contracts: &[Contract]) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filter = arguments.iter().find(|a| !a.starts_with('-')).cloned().unwrap_or_default();
    let listing = arguments.iter().any(|a| a == "--list");
    let (mut passed, mut failed, mut not_run) = (0, Vec::new(), 0);
    for candidate in candidates {
        let mut told = false;
        for contract in contracts {
            let name = format!("{}::{}", candidate.kind, contract.name);
            if !name.contains(&filter) {
                continue;
            }
            if listing {
                println!("{name}: test");
                continue;
            }
            match &candidate.subject {
                Err(reason) => {
                    if !std::mem::replace(&mut told, true) {
                        println!("NOT RUN: {}: {reason}", candidate.kind);
                    }
                    not_run += 1;
                }
                Ok(subject) if let Some(reason) = subject.why_not(contract.name) => {
                    println!("NOT RUN: {name}: {reason}");
                    not_run += 1;
                }
                Ok(subject) => match check(contract, subject.clone()) {
                    Ok(()) => {
                        println!("test {name} ... ok");
                        passed += 1;
                    }
                    Err(why) => {
                        println!("test {name} ... FAILED: {why}");
                        failed.push(name);
                    }
                },
            }
        }
    }
    if listing {
        return ExitCode::SUCCESS;
    }
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {passed} passed; {} failed; {not_run} not run\n",
        failed.len()
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// On its own thread, because a broken engine may never return.
fn check(contract: &Contract, subject: Subject) -> Result<(), String> {
    let (tell, told) = mpsc::channel();
    let check = contract.check;
    std::thread::spawn(move || {
        let done = catch_unwind(AssertUnwindSafe(|| check(&subject)));
        let _ = tell.send(done.map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
                .unwrap_or_default()
        }));
    });
    told.recv_timeout(TIME_LIMIT)
        .unwrap_or_else(|_| Err(format!("no end after {} s", TIME_LIMIT.as_secs())))
}
