//! Starts writers, kills them, and looks.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use storage::{Disk, DiskOptions};
use vm_memory::VolatileSlice;

use crate::{DISK_BYTES, ROUNDS, SLOT_BYTES, SLOTS, WORKERS, action, content, offset};

/// What was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Writers killed.
    pub kills: u64,
    /// Times that a kill left clusters that belonged to nobody, until the image was opened again.
    pub leaks: u64,
    /// Rounds that were flushed, in all.
    pub flushed: u64,
}

/// Kills `kills` writers, which are `program write IMAGE FIRST`.
///
/// # Errors
/// When an image is damaged or lacks what was flushed.
pub fn run(program: &Path, kills: u64, seed: u64) -> anyhow::Result<Summary> {
    let dir = tempfile::tempdir()?;
    let image = dir.path().join("disk.qcow2");
    let made = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2"])
        .arg(&image)
        .arg(DISK_BYTES.to_string())
        .status()
        .context("no qemu-img: apt-get install qemu-utils")?;
    ensure!(made.success(), "qemu-img cannot make an image");
    let mut summary = Summary::default();
    // The last flushed round of each slot of each worker.
    let mut expected = vec![BTreeMap::new(); WORKERS as usize];
    let mut random = seed | 1;
    for kill in 0..kills {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let first = (kill + 1) * ROUNDS;
        let delay = Duration::from_micros(1000 + (random >> 33) % 200_000);
        let flushed = kill_one(program, &image, first, delay)?;
        for ((worker, slots), last) in (0..WORKERS).zip(&mut expected).zip(flushed) {
            (first..=last.max(first - 1)).for_each(|round| {
                slots.insert(action(worker, round).0, round);
            });
        }
        summary.flushed += flushed.iter().map(|last| last.saturating_sub(first)).sum::<u64>();
        summary.kills += 1;
        summary.leaks += u64::from(has_leaks(&image)?);
        // Whoever opens it next gives back what belongs to nobody.
        drop(DiskOptions::new(&image).open()?);
        ensure!(!has_leaks(&image)?, "clusters are lost after kill {kill}, seed {seed}");
        verify(&image, &expected).with_context(|| format!("after kill {kill}, seed {seed}"))?;
    }
    Ok(summary)
}

/// Returns the last round that each worker has flushed, or 0.
fn kill_one(
    program: &Path,
    image: &Path,
    first: u64,
    delay: Duration,
) -> anyhow::Result<[u64; WORKERS as usize]> {
    let mut child = Command::new(program)
        .arg("write")
        .arg(image)
        .arg(first.to_string())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
    let mut flushed = [0; WORKERS as usize];
    let mut note = |line: &str| {
        // The last line may be cut off by the kill.
        let parsed = line.split_once(' ').map(|(w, r)| (w.parse::<usize>(), r.parse::<u64>()));
        if let Some((Ok(worker), Ok(round))) = parsed
            && round >= first
            && let Some(last) = flushed.get_mut(worker)
        {
            *last = round.max(*last);
        }
    };
    let begun = lines.next().context("the writer ended by itself")??;
    note(&begun);
    std::thread::sleep(delay);
    child.kill()?;
    lines.map_while(Result::ok).for_each(|line| note(&line));
    child.wait()?;
    Ok(flushed)
}

/// True when clusters are lost, which is no damage.
fn has_leaks(image: &Path) -> anyhow::Result<bool> {
    let output = Command::new("qemu-img").args(["check", "-f", "qcow2"]).arg(image).output()?;
    match output.status.code() {
        Some(0) => Ok(false),
        Some(3) => Ok(true),
        _ => bail!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ),
    }
}

/// Each slot holds what its last flushed round has put there, or what a later one of the same writer
/// or a later writer has.
fn verify(image: &Path, expected: &[BTreeMap<u64, u64>]) -> anyhow::Result<()> {
    let disk = DiskOptions { read_only: true, ..DiskOptions::new(image) }.open()?;
    for (worker, flushed) in (0..WORKERS).zip(expected) {
        for slot in 0..SLOTS {
            let at_least = flushed.get(&slot).copied().unwrap_or(0);
            slot_is_sound(&*disk, worker, slot, at_least)?;
        }
    }
    Ok(())
}

fn slot_is_sound(disk: &dyn Disk, worker: u64, slot: u64, at_least: u64) -> anyhow::Result<()> {
    let mut data = vec![0; SLOT_BYTES as usize];
    disk.read(offset(worker, slot), &[VolatileSlice::from(data.as_mut_slice())])?;
    let lost = || format!("slot {slot} of worker {worker} lacks round {at_least:#x}");
    if data.iter().all(|byte| *byte == 0) {
        // Zero at the beginning, by that round, or by a later one that nobody knows of.
        let by_it = at_least == 0 || action(worker, at_least).1;
        let by_later =
            (at_least + 1..at_least + 100_000).any(|round| action(worker, round) == (slot, true));
        ensure!(by_it || by_later, lost());
        return Ok(());
    }
    let round = data.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    ensure!(data == content(worker, round), "slot {slot} of worker {worker} is torn");
    ensure!(action(worker, round) == (slot, false), "slot {slot} has another's data");
    ensure!(round >= at_least, lost());
    Ok(())
}
