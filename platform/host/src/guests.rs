//! What can be seen of guests from beside: their screens, and what they take of the host.

use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use model::VmId;

use crate::folder::Folder;
use crate::process;

/// Guests that run, or do not.
#[derive(Debug, Clone)]
pub struct Guests {
    vms: PathBuf,
}

/// What a VM's process has taken so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Time of the host's CPUs, in milliseconds.
    pub cpu_ms: u64,
    /// Memory that is its now, guest memory included, in bytes.
    pub memory_bytes: u64,
    /// Bytes read from disks.
    pub read_bytes: u64,
    /// Bytes written to disks.
    pub written_bytes: u64,
}

impl Guests {
    /// Those in this folder.
    pub fn of(vms: &Path) -> Self {
        Self { vms: vms.to_owned() }
    }

    /// A new viewer's connection to a guest's screen; RFB is spoken there.
    ///
    /// # Errors
    /// When it has no screen, or does not run.
    pub fn screen(&self, id: VmId) -> io::Result<UnixStream> {
        UnixStream::connect(Folder::of(&self.vms, id).screen())
    }

    /// What it takes; `None` when it does not run.
    pub fn usage(&self, id: VmId) -> Option<Usage> {
        let record = Folder::of(&self.vms, id).record()?;
        let pid = record.pid?;
        // Another process may have its ID by now.
        if record.began.is_none() || process::began(pid) != record.began {
            return None;
        }
        usage(pid)
    }
}

fn usage(pid: u32) -> Option<Usage> {
    let read = |name| fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
    // Fields 14 and 15 of `proc_pid_stat(5)`, of which the 3rd is the first after the name.
    let stat = read("stat")?;
    let (_, after) = stat.rsplit_once(')')?;
    let ticks: u64 =
        after.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum();
    let status = read("status")?;
    // What the kernel does not tell us of another user's process counts as nothing.
    let io = read("io").unwrap_or_default();
    Some(Usage {
        cpu_ms: ticks * 1000 / rustix::param::clock_ticks_per_second(),
        memory_bytes: field(&status, "VmRSS:") * 1024,
        read_bytes: field(&io, "read_bytes:"),
        written_bytes: field(&io, "write_bytes:"),
    })
}

fn field(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    value.and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_takes_time_and_memory() {
        let own = std::process::id();
        let begin = usage(own).unwrap();
        assert!(begin.memory_bytes > 100 << 10);
        while usage(own).unwrap().cpu_ms < begin.cpu_ms + 20 {
            std::hint::black_box((0..100_000).sum::<u64>());
        }
        assert_eq!(usage(u32::MAX), None);
    }
}
