//! A guest at work (crate `guest_work`) that is moved from engine to engine, and a look at what
//! it has lost or repeated: nothing, if all is well.

use std::fmt;
use std::fs::File;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use guest_work::{DISK_BYTES, END, MARK, Report, WRONG};
use guests::UP;

use crate::{Guest, text, trine};

/// By so much the guest's clock and the machine's may differ, over the whole run, beside what asking
/// took: a report is on its way for a while.
const CLOCKS_DIFFER_MS_MAX: u64 = 1_000;

/// What is moved, and how often.
pub struct Plan {
    /// The engines, in the order in which the guest goes through them, round and round. It
    /// begins in the first.
    pub engines: Vec<String>,
    /// How often it is moved.
    pub moves: u64,
    /// Its CPUs.
    pub cpus: u32,
    /// Its kernel.
    pub kernel: PathBuf,
    /// A RAM disk of [`guests::Init::Work`].
    pub initrd: PathBuf,
    /// Its kernel's command line.
    pub cmdline: String,
    /// How long all of it may take.
    pub limit: Duration,
}

/// What a run showed in which nothing was wrong.
#[derive(Debug)]
pub struct Moved {
    /// Moves.
    pub moves: u64,
    /// How long the guest stood still for a move, in milliseconds: the middle and the longest.
    pub stood_ms: (f64, f64),
    /// The guest's last report.
    pub last: Report,
}

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (median, max) = self.stood_ms;
        write!(f, "MOVED {} times, standing {median:.1} ms, {max:.1} at most; ", self.moves)?;
        write!(f, "{}", self.last)
    }
}

/// Moves a guest at work.
///
/// # Errors
/// What went wrong, or what the guest has lost or repeated.
pub fn run(plan: &Plan) -> anyhow::Result<Moved> {
    let folder = tempfile::tempdir()?;
    let disk = folder.path().join("disk");
    File::create(&disk)?.set_len(DISK_BYTES)?;
    let control = folder.path().join("control");
    let mut guest = start(plan, &disk, &control)?;
    guest.line_with(UP)?;
    let mut reports = Reports::default();
    // Every worker has begun.
    while reports.last.counts.len() < workers(plan.cpus) {
        reports.next(&mut guest)?;
    }
    let begin = clocks(&control, &mut reports, &mut guest, 1)?;
    let mut stood_ms = Vec::new();
    for n in 1..=plan.moves {
        guest.type_in(&format!("{}\n", n + 1))?;
        let to = &plan.engines[n as usize % plan.engines.len()];
        let said = ask(&control, &["move", "--engine", to])
            .with_context(|| format!("move {n} to {to}\n{}", guest.tail()))?;
        stood_ms.push(milliseconds(&said).context("a move without its time")?);
        reports.next(&mut guest)?;
        // So that moves are not always at the same distance from a report.
        thread::sleep(Duration::from_millis(n * 7 % 23));
    }
    // What came meanwhile is older than the clock.
    while reports.last.counts.get("typed") != Some(&(plan.moves + 1)) {
        reports.next(&mut guest)?;
    }
    // A worker that waits for what was lost does not go on.
    let moved = reports.last.counts.clone();
    let stands =
        |last: &Report| moved.iter().any(|(who, n)| who != "typed" && last.counts[who] == *n);
    while stands(&reports.last) {
        reports.next(&mut guest).with_context(|| format!("after the last move: {moved:?}"))?;
    }
    let end = clocks(&control, &mut reports, &mut guest, plan.moves + 2)?;
    guest.type_in("end\n")?;
    while !reports.ended {
        reports.next(&mut guest)?;
    }
    let status = guest.wait()?;
    ensure!(status.code() == Some(0), "{status}\n{}", guest.tail());

    let (shortest, longest) = (end.0.start() - begin.0.end(), end.0.end() - begin.0.start());
    let own = end.1 - begin.1;
    ensure!(
        (shortest.saturating_sub(CLOCKS_DIFFER_MS_MAX)..=longest + CLOCKS_DIFFER_MS_MAX)
            .contains(&own),
        "{own} ms have passed for the guest, but {shortest} to {longest} ms for the machine"
    );
    reports.check_disk(&disk)?;
    stood_ms.sort_by(f64::total_cmp);
    let median = stood_ms.get(stood_ms.len() / 2).copied().unwrap_or_default();
    let max = stood_ms.last().copied().unwrap_or_default();
    Ok(Moved { moves: plan.moves, stood_ms: (median, max), last: reports.last })
}

/// Ticks, clock, signals and, for each CPU, computation and disk.
fn workers(cpus: u32) -> usize {
    3 + 2 * cpus as usize
}

fn start(plan: &Plan, disk: &Path, control: &Path) -> anyhow::Result<Guest> {
    let cpus = plan.cpus.to_string();
    let engine = plan.engines.first().context("no engine")?;
    #[rustfmt::skip]
    let arguments = [
        "--engine", engine, "--cpus", &cpus, "--memory", "256M",
        "--kernel", text(&plan.kernel), "--initrd", text(&plan.initrd),
        "--cmdline", &plan.cmdline, "--disk", text(disk), "--control", text(control),
    ];
    Guest::start(&arguments, plan.limit)
}

/// What `trine` says about a running VM.
fn ask(control: &Path, words: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(trine()?).args(words).arg("--control").arg(control).output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Between which times of the machine the guest reported that this number was typed, and its own time
/// then. A host at work may take seconds to answer, and what came meanwhile is older.
fn clocks(
    control: &Path,
    reports: &mut Reports,
    guest: &mut Guest,
    number: u64,
) -> anyhow::Result<(RangeInclusive<u64>, u64)> {
    let before = machine_ms(control)?;
    guest.type_in(&format!("{number}\n"))?;
    while reports.last.counts.get("typed") != Some(&number) {
        reports.next(guest)?;
    }
    Ok((before..=machine_ms(control)?, reports.last.up_ms))
}

fn machine_ms(control: &Path) -> anyhow::Result<u64> {
    let status: serde_json::Value = serde_json::from_str(&ask(control, &["status", "--json"])?)?;
    status["machine_time_ms"].as_u64().context("a status without a time")
}

/// Of "moved from A to B in N ms".
fn milliseconds(said: &str) -> Option<f64> {
    said.trim_end().strip_suffix(" ms")?.rsplit(' ').next()?.parse().ok()
}

/// What the guest has reported so far.
#[derive(Default)]
struct Reports {
    last: Report,
    ended: bool,
}

impl Reports {
    /// The next one, which must be the successor of the last.
    fn next(&mut self, guest: &mut Guest) -> anyhow::Result<()> {
        let line = guest.line()?;
        ensure!(line.starts_with(MARK) && !line.starts_with(WRONG), "{line}\n{}", guest.tail());
        if line == END {
            self.ended = true;
            return Ok(());
        }
        let report: Report = line.parse().map_err(anyhow::Error::msg)?;
        let last = &self.last;
        ensure!(report.number == last.number + 1, "{last}\nand then {report}");
        ensure!(report.up_ms >= last.up_ms, "time goes back: {last}\nand then {report}");
        let is_behind = |(worker, count): (&String, &u64)| report.counts.get(worker) < Some(count);
        ensure!(!last.counts.iter().any(is_behind), "{last}\nand then {report}");
        self.last = report;
        Ok(())
    }

    /// What each worker says it has written is in the image.
    fn check_disk(&self, disk: &Path) -> anyhow::Result<()> {
        let disk = File::open(disk)?;
        let counts = &self.last.counts;
        let disks = counts.iter().filter_map(|(name, n)| Some((name.strip_prefix("disk")?, *n)));
        for (worker, rounds) in disks {
            guest_work::check(&disk, worker.parse()?, rounds).map_err(anyhow::Error::msg)?;
        }
        Ok(())
    }
}
