//! The program that works in the guest: `guest_work` starts one process for each role, and
//! reports what they count until it is told to end.
//!
//! What is typed is work, too: lines `1`, `2`, `3` and so on, then `end`. In the environment,
//! `WORK_REPORTS=N` ends it after so many reports.

mod roles;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context;
use guest_work::{END, Report, WORKERS_MAX, WRONG};

/// The disk to work with.
const DISK: &str = "/dev/vda";
/// Time between two reports.
const REPORT_EVERY: Duration = Duration::from_millis(50);

/// What all threads of the reporter share.
#[derive(Default)]
struct Shared {
    counts: Mutex<BTreeMap<String, u64>>,
    ends: AtomicBool,
}

impl Shared {
    /// One more step of a worker, which must be the one after the last.
    fn count(&self, worker: &str, step: u64) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(worker.to_owned()).or_default();
        if step != *count + 1 {
            say(&format!("{WRONG} {worker}: step {step} after {count}"));
        }
        *count = step;
    }
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [] => report(),
        [role, ref rest @ ..] => {
            let wrong = roles::run(role, rest);
            // The reporter hands it on.
            wrong.inspect_err(|error| println!("{role}: {error:#}"))
        }
    }
}

/// Starts the workers, and reports.
fn report() -> anyhow::Result<()> {
    let shared = Arc::new(Shared::default());
    let listening = shared.clone();
    thread::spawn(move || listen(&listening));
    let mut workers = Vec::new();
    for (name, role) in roles() {
        workers.push(Worker::start(&name, &role, &shared)?);
    }
    let reports_max = std::env::var("WORK_REPORTS").ok().and_then(|n| n.parse().ok());
    let mut number = 0;
    while !shared.ends.load(Ordering::Relaxed) && Some(number) != reports_max {
        thread::sleep(REPORT_EVERY);
        number += 1;
        say(&report_of(&shared, number).to_string());
    }
    shared.ends.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.end()?;
    }
    say(&report_of(&shared, number + 1).to_string());
    say(END);
    Ok(())
}

fn report_of(shared: &Shared, number: u64) -> Report {
    let counts = shared.counts.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Report { number, up_ms: roles::monotonic_ns() / 1_000_000, counts }
}

/// Names of workers, and their arguments.
fn roles() -> Vec<(String, Vec<String>)> {
    let cpus = thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let last = cpus - 1;
    let mut roles = vec![
        ("ticks".to_owned(), vec!["ticks".to_owned()]),
        ("clock".to_owned(), vec!["clock".to_owned(), last.to_string()]),
        ("signals".to_owned(), vec!["ping".to_owned(), last.to_string()]),
    ];
    for n in 0..cpus.min(WORKERS_MAX) {
        roles.push((format!("compute{n}"), vec!["compute".to_owned(), n.to_string()]));
        if Path::new(DISK).exists() {
            let words = ["disk", DISK, &n.to_string()];
            roles.push((format!("disk{n}"), words.map(str::to_owned).into()));
        }
    }
    roles
}

/// A process, and the thread that reads its steps.
struct Worker {
    process: Child,
    reader: JoinHandle<()>,
}

impl Worker {
    fn start(name: &str, role: &[String], shared: &Arc<Shared>) -> anyhow::Result<Self> {
        let mut process = Command::new("/proc/self/exe")
            .args(role)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let steps = process.stdout.take().context("no pipe")?;
        let (name, shared) = (name.to_owned(), shared.clone());
        let reader = thread::spawn(move || follow(&name, steps, &shared));
        Ok(Self { process, reader })
    }

    /// Ends it in the midst of its work.
    fn end(mut self) -> anyhow::Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        self.reader.join().map_err(|_| anyhow::anyhow!("a reader has died"))
    }
}

/// Counts the steps a worker prints. Anything else that it prints is wrong, and so is its end.
fn follow(name: &str, steps: ChildStdout, shared: &Shared) {
    for line in BufReader::new(steps).lines().map_while(Result::ok) {
        match line.parse() {
            Ok(step) => shared.count(name, step),
            Err(_) => say(&format!("{WRONG} {line}")),
        }
    }
    if !shared.ends.load(Ordering::Relaxed) {
        say(&format!("{WRONG} {name} has ended"));
    }
}

/// Counts what is typed.
fn listen(shared: &Shared) {
    for line in std::io::stdin().lines().map_while(Result::ok) {
        match (line.trim(), line.trim().parse()) {
            ("end", _) => shared.ends.store(true, Ordering::Relaxed),
            (_, Ok(step)) => shared.count("typed", step),
            (other, _) => say(&format!("{WRONG} typed: '{other}'")),
        }
    }
}

/// One line, at once.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let done = out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush());
    // There is nobody to tell.
    drop(done);
}
