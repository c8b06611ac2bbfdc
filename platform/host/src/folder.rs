//! A VM's folder.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use model::VmId;
use rustix::fs::{CWD, FileType, FlockOperation, Mode, flock, mknodat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// A VM's folder.
#[derive(Debug, Clone)]
pub(crate) struct Folder(PathBuf);

/// What is known of a VM's process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Which start it is.
    pub boot: u64,
    /// When it was started.
    pub since: jiff::Timestamp,
    /// Its process ID, once there is one.
    pub pid: Option<u32>,
    /// When that process began, in the kernel's ticks: another process of the same ID began later.
    pub began: Option<u64>,
}

/// How a VM's process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    /// As `trinevm --help` says.
    pub status: u8,
    /// What it said.
    pub message: String,
    /// When.
    pub at: Option<jiff::Timestamp>,
}

impl Folder {
    pub fn of(vms: &Path, id: VmId) -> Self {
        Self(vms.join(id.to_string()))
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn uefi_vars(&self) -> PathBuf {
        self.file("uefi-vars")
    }

    pub fn control(&self) -> PathBuf {
        self.file("control")
    }

    pub fn screen(&self) -> PathBuf {
        self.file("screen")
    }

    pub fn end(&self) -> PathBuf {
        self.file("end")
    }

    /// All of the file system that the VM's process sees: nothing is in it.
    pub fn root(&self) -> PathBuf {
        self.file("root")
    }

    pub fn console_in(&self) -> PathBuf {
        self.file("console.in")
    }

    pub fn console_out(&self) -> PathBuf {
        self.file("console.out")
    }

    /// Makes the folder and the FIFOs in it, if they are not there.
    pub fn make(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        for path in [self.console_in(), self.console_out()] {
            match mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0) {
                Err(Errno::EXIST) => {}
                made => made?,
            }
        }
        Ok(())
    }

    /// The log, locked; `None` when a process has it.
    pub fn lock(&self) -> io::Result<Option<File>> {
        let log = File::options().create(true).append(true).open(self.file("log"))?;
        match flock(&log, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => Ok(None),
            locked => locked.map(|()| Some(log)).map_err(Into::into),
        }
    }

    /// A process lives.
    pub fn is_locked(&self) -> io::Result<bool> {
        let log = match File::open(self.file("log")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            log => log?,
        };
        match flock(&log, FlockOperation::NonBlockingLockShared) {
            Err(Errno::WOULDBLOCK) => Ok(true),
            locked => locked.map(|()| false).map_err(Into::into),
        }
    }

    pub fn record(&self) -> Option<Record> {
        serde_json::from_slice(&fs::read(self.file("process")).ok()?).ok()
    }

    /// The old record or the new one is there, whatever happens.
    pub fn set_record(&self, record: &Record) -> io::Result<()> {
        let text = serde_json::to_vec(record).map_err(io::Error::other)?;
        let partial = self.file("process.partial");
        fs::write(&partial, text)?;
        fs::rename(partial, self.file("process"))
    }

    pub fn read_end(&self) -> Option<End> {
        let text = fs::read_to_string(self.end()).ok()?;
        // The process has made it at its beginning, and fills it at its end.
        let (status, message) = text.strip_suffix('\n')?.split_once('\n')?;
        let at = fs::metadata(self.end()).and_then(|metadata| metadata.modified()).ok();
        let at = at.and_then(|at| jiff::Timestamp::try_from(at).ok());
        Some(End { status: status.parse().ok()?, message: message.trim().to_owned(), at })
    }

    /// The last line of the log, of at most so many bytes.
    pub fn last_words(&self) -> Option<String> {
        const LEN_MAX: usize = 1000;
        let log = fs::read(self.file("log")).ok()?;
        let tail = String::from_utf8_lossy(&log[log.len().saturating_sub(LEN_MAX)..]).into_owned();
        let line = tail.lines().map(str::trim).rfind(|line| !line.is_empty())?;
        Some(line.strip_prefix("trinevm: ").unwrap_or(line).to_owned())
    }
}
