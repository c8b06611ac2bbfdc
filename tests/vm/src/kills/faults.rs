//! What fails, and the means to have it fail.
//!
//! UNSAFETY: a lock on a part of a file has no safe wrapper.
#![allow(unsafe_code, reason = "a lock on a part of a file")]

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use super::luck::Luck;

/// A fault. Some are over at once, others last until they are mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// SIGKILL, and the service manager starts it again.
    DaemonKilled,
    /// SIGKILL, and nobody starts it for a while.
    DaemonGone,
    /// It is stopped as for an upgrade, and started.
    DaemonReplaced,
    VmKilled,
    /// A VM's process hangs for a while.
    VmHangs,
    /// For a while.
    DiskFull,
    /// For a while, by somebody else.
    StoreLocked,
    /// Found at the next start, and put right from a copy.
    StoreTruncated,
    /// The host's clock is set, for a while.
    ClockJumps,
}

impl Fault {
    pub const ALL: &[Self] = &[
        Self::DaemonKilled,
        Self::DaemonKilled,
        Self::DaemonGone,
        Self::DaemonReplaced,
        Self::VmKilled,
        Self::VmKilled,
        Self::VmHangs,
        Self::DiskFull,
        Self::StoreLocked,
        Self::StoreTruncated,
        Self::ClockJumps,
    ];
}

/// Sends a signal to a process, which may have ended.
pub(super) fn signal(pid: u32, name: &str) -> anyhow::Result<()> {
    Command::new("kill").args(["-s", name, &pid.to_string()]).output()?;
    Ok(())
}

/// A file system of its own, so that it can be full: for root.
pub(super) struct Medium(PathBuf);

impl Medium {
    pub fn mount(folder: &Path, mib: u32) -> anyhow::Result<Self> {
        let size = format!("size={mib}M,mode=700");
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(folder)
            .output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(Self(folder.to_owned()))
    }
}

impl Drop for Medium {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Takes all the room that is left. Dropping it gives it back.
pub(super) struct Hog(PathBuf);

impl Hog {
    pub fn fill(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("hog");
        let mut file = File::create(&path)?;
        // In ever smaller pieces: none of them fits any more.
        for size in [1 << 20, 4096, 512] {
            let piece = vec![0u8; size];
            while file.write_all(&piece).is_ok() {}
        }
        Ok(Self(path))
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The store's right to write, in somebody else's hands.
pub(super) struct StoreLock(#[expect(dead_code, reason = "open, it is the lock")] File);

/// Where SQLite locks who writes (`WAL_WRITE_LOCK`, <https://sqlite.org/walformat.html>, 2.3.1).
const WRITE_LOCK_AT: i64 = 120;

impl StoreLock {
    /// `None` when the daemon is just writing.
    pub fn take(home: &Path) -> anyhow::Result<Option<Self>> {
        let path = home.join("state/store.sqlite-shm");
        let file = File::options().read(true).write(true).open(&path);
        let file = file.with_context(|| path.display().to_string())?;
        // SAFETY: zero is a valid value of every field.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        lock.l_type = libc::F_WRLCK as libc::c_short;
        (lock.l_start, lock.l_len) = (WRITE_LOCK_AT, 1);
        // SAFETY: the structure lives over the call.
        let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
        Ok((result == 0).then_some(Self(file)))
    }
}

/// Cuts the store's file, of which no daemon is there, somewhere. Returns where it can be put right from.
pub(super) fn truncate(home: &Path, aside: &Path, luck: &mut Luck) -> anyhow::Result<u64> {
    let (state, copy) = (home.join("state"), aside.join("state"));
    if copy.exists() {
        fs::remove_dir_all(&copy)?;
    }
    fs::create_dir(&copy)?;
    for entry in fs::read_dir(&state)? {
        let entry = entry?;
        fs::copy(entry.path(), copy.join(entry.file_name()))?;
    }
    let file = File::options().write(true).open(state.join("store.sqlite"))?;
    let length = file.metadata()?.len();
    let left = if luck.one_in(3) { 0 } else { luck.below(length.max(1)) };
    file.set_len(left)?;
    Ok(left)
}

/// Puts the store right.
pub(super) fn restore(home: &Path, aside: &Path) -> anyhow::Result<()> {
    let (state, copy) = (home.join("state"), aside.join("state"));
    fs::remove_dir_all(&state)?;
    fs::create_dir(&state)?;
    for entry in fs::read_dir(&copy)? {
        let entry = entry?;
        fs::copy(entry.path(), state.join(entry.file_name()))?;
    }
    Ok(())
}

/// What sets a clock for one process (Debian's package `faketime`).
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// The host's clock, as the daemon sees it.
pub(super) struct Clock(PathBuf);

impl Clock {
    /// `None` where there is no means.
    pub fn new(aside: &Path) -> anyhow::Result<Option<Self>> {
        if !Path::new(LIBRARY).exists() {
            return Ok(None);
        }
        let clock = Self(aside.join("clock"));
        clock.set(0)?;
        Ok(Some(clock))
    }

    /// Sets it so many seconds wrong.
    pub fn set(&self, offset_s: i64) -> anyhow::Result<()> {
        // Read at any time: whole, or not at all.
        let new = self.0.with_extension("new");
        fs::write(&new, format!("{offset_s:+}"))?;
        Ok(fs::rename(new, &self.0)?)
    }

    pub fn set_up(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", LIBRARY)
            .env("FAKETIME_TIMESTAMP_FILE", &self.0)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("FAKETIME_DONT_RESET", "1")
            .env("NO_FAKE_STAT", "1");
    }
}
