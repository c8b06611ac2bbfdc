//! One VMM's run of a guest, watched from outside.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// What a run showed.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// From process start to the line waited for.
    pub seconds: f64,
    /// Largest resident memory of the process that is not shared memory (which guest memory is,
    /// where the VMM says so), in KiB.
    pub own_kib_max: u64,
}

/// Runs `command` until its output has a line that contains `line`, then kills it.
pub fn measure(mut command: Command, line: &str, limit: Duration) -> anyhow::Result<Measured> {
    let begin = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {:?}", command.get_program()))?;
    let out = child.stdout.take().context("no output")?;
    let (found, wait) = mpsc::channel();
    let wanted = line.to_owned();
    let reader = thread::spawn(move || {
        let mut lines = BufReader::new(out).split(b'\n');
        while let Some(Ok(text)) = lines.next() {
            if String::from_utf8_lossy(&text).contains(&wanted) {
                let _ = found.send(begin.elapsed());
                break;
            }
        }
    });
    let own_max = AtomicU64::new(0);
    let seconds = loop {
        match wait.recv_timeout(Duration::from_millis(10)) {
            Ok(elapsed) => break Some(elapsed.as_secs_f64()),
            Err(mpsc::RecvTimeoutError::Disconnected) => break None,
            Err(mpsc::RecvTimeoutError::Timeout) if begin.elapsed() > limit => break None,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                own_max.fetch_max(own_kib(child.id()), Ordering::Relaxed);
            }
        }
    };
    let _ = child.kill();
    child.wait()?;
    let _ = reader.join();
    match seconds {
        Some(seconds) => Ok(Measured { seconds, own_kib_max: own_max.into_inner() }),
        None => bail!("{:?} did not say '{line}' within {limit:?}", command.get_program()),
    }
}

fn own_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name));
        line.and_then(|l| l.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
    };
    field("RssAnon:") + field("RssFile:")
}
