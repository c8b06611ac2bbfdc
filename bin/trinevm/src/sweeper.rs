//! Who takes away the sockets of a VM's process when that has ended, however it ends: the process itself can
//! remove nothing any more.
//!
//! It is this program once more, told the sockets before the guest runs. Its standard input is a pipe on which nothing
//! comes but the end.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

/// The first word of its command line.
const WORD: &str = "--sweep";

/// A sweeper that waits. Dropping it has it sweep, and waits until it has.
pub struct Sweeper(Option<Child>);

impl Sweeper {
    /// Starts one for these sockets, if there are any.
    ///
    /// # Errors
    /// When the host refuses a process.
    pub fn start(sockets: &[PathBuf]) -> io::Result<Self> {
        if sockets.is_empty() {
            return Ok(Self(None));
        }
        let mut command = Command::new("/proc/self/exe");
        command.arg0("trinevm").arg(WORD);
        for socket in sockets {
            let (device, inode) = identity(socket)?;
            command.arg(format!("{device}:{inode}")).arg(std::path::absolute(socket)?);
        }
        // A terminal's signals are not for it.
        let command = command.process_group(0).current_dir("/").stdin(Stdio::piped());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(Self(Some(child)))
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Sweeps, when this is what this process is for.
pub fn main() -> Option<ExitCode> {
    let mut words = std::env::args_os().skip(1);
    if words.next().as_deref() != Some(OsStr::new(WORD)) {
        return None;
    }
    let sockets: Vec<OsString> = words.collect();
    // Nothing comes; at the end, or an error, the VM's process has gone.
    let _ = io::stdin().read_to_end(&mut Vec::new());
    for socket in sockets.chunks_exact(2) {
        let there =
            identity(Path::new(&socket[1])).ok().map(|(device, inode)| format!("{device}:{inode}"));
        // What another has put there meanwhile stays.
        if there.is_some_and(|there| socket[0] == OsStr::new(&there)) {
            let _ = fs::remove_file(&socket[1]);
        }
    }
    Some(ExitCode::SUCCESS)
}
