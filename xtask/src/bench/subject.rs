//! One VMM's run of a guest, watched from outside.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use guests::host;

/// What a VMM is to run, with one CPU and a serial port.
pub struct Vm {
    /// The kernel's image.
    pub kernel: PathBuf,
    /// Its initial RAM disk.
    pub initrd: PathBuf,
    /// The guest's memory.
    pub memory_mib: u64,
    /// The kernel's command line.
    pub cmdline: String,
}

impl Vm {
    /// On an engine of ours.
    pub fn trine(&self, engine: &str) -> anyhow::Result<Command> {
        let mut command = Command::new(host::release_program("trine")?);
        command.args(["run", "--engine", engine, "--memory", &format!("{}M", self.memory_mib)]);
        command.arg("--kernel").arg(&self.kernel).arg("--initrd").arg(&self.initrd);
        command.args(["--cmdline", &self.cmdline]);
        Ok(command)
    }

    /// On QEMU TCG.
    pub fn qemu(&self, cpu: &str) -> Command {
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-accel", "tcg", "-cpu", cpu, "-m", &self.memory_mib.to_string()]);
        command.args(["-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"]);
        command.arg("-kernel").arg(&self.kernel).arg("-initrd").arg(&self.initrd);
        command.args(["-append", &self.cmdline]);
        command
    }
}

/// Runs `command` until its output has a line that contains `line`, then kills it. Returns how
/// long that took, in seconds.
///
/// `look` gets the process ID whenever `interval` has passed, and when the line has come.
pub fn measure(
    mut command: Command,
    line: &str,
    limit: Duration,
    interval: Duration,
    look: &mut dyn FnMut(u32),
) -> anyhow::Result<f64> {
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
    let seconds = loop {
        match wait.recv_timeout(interval) {
            Ok(elapsed) => break Some(elapsed.as_secs_f64()),
            Err(RecvTimeoutError::Timeout) if begin.elapsed() < limit => look(child.id()),
            Err(_) => break None,
        }
    };
    if seconds.is_some() {
        look(child.id());
    }
    let _ = child.kill();
    child.wait()?;
    let _ = reader.join();
    let program = command.get_program();
    match seconds {
        Some(seconds) => Ok(seconds),
        None => bail!("{program:?} did not say '{line}' within {limit:?}"),
    }
}

/// Resident memory of a process that is not its guest's, in KiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OwnMemory {
    /// All of it.
    pub kib: u64,
    /// What is not of files, and so not shared with other VMs.
    pub anonymous_kib: u64,
}

impl OwnMemory {
    /// The process's, whose guest's memory is in mappings of at least `guest_kib`.
    pub fn of(pid: u32, guest_kib: u64) -> Self {
        let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap_or_default();
        Self::parse(&smaps, guest_kib)
    }

    fn parse(smaps: &str, guest_kib: u64) -> Self {
        let mut own = Self::default();
        let mut of_guest = false;
        for line in smaps.lines() {
            let mut words = line.split_whitespace();
            let (Some(field), Some(value)) = (words.next(), words.next()) else { continue };
            let kib = value.parse().unwrap_or(0);
            match field {
                "Size:" => of_guest = kib >= guest_kib,
                "Rss:" if !of_guest => own.kib += kib,
                "Anonymous:" if !of_guest => own.anonymous_kib += kib,
                _ => {}
            }
        }
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_as_large_as_the_guest_are_its() {
        let smaps = "7f00-7f10 rw-s 00000000 00:01 1 /memfd:ram\nSize: 262144 kB\nRss: 81920 kB\n\
                     Anonymous: 0 kB\n5500-5600 r-xp 00000000 08:01 7 /bin/trinevm\n\
                     Size: 3000 kB\nRss: 2000 kB\nAnonymous: 0 kB\n\
                     7ffe-7fff rw-p 00000000 00:00 0 [heap]\nSize: 400 kB\nRss: 300 kB\n\
                     Anonymous: 300 kB\n";
        let own = OwnMemory::parse(smaps, 262_144);
        assert_eq!(own, OwnMemory { kib: 2300, anonymous_kib: 300 });
    }
}
