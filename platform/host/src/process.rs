//! Processes that are nobody's children.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use jiff::Timestamp;
use model::{Vm, VmEnd};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::folder::{End, Folder, Record};
use crate::{arguments, cage};

/// Starts a VM's process. `None`: one is there already.
///
/// The record is written before there is a process, and its ID afterwards: a record without one is of
/// a start that was cut off, or of a process that will be asked for its ID.
pub(crate) fn start(
    program: &Path,
    vm: &Vm,
    disks: &[String],
    folder: &Folder,
) -> io::Result<Option<Child>> {
    folder.make()?;
    let Some(log) = folder.lock()? else { return Ok(None) };
    log.set_len(0)?;
    for left in [folder.end(), folder.control(), folder.screen()] {
        match fs::remove_file(left) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
    }
    let mut record = Record { boot: vm.spec.boot, since: Timestamp::now(), pid: None, began: None };
    folder.set_record(&record)?;
    // Opened for both: neither end waits for the other, and neither sees an end of file.
    let fifo = |path| File::options().read(true).write(true).open(path);
    let child = Command::new(program)
        .args(arguments::of(vm, disks, folder)?)
        .args(cage::arguments(vm, folder)?)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .current_dir(folder.path())
        // A terminal's signals to this process are not for VMs.
        .process_group(0)
        .stdin(fifo(folder.console_in())?)
        .stdout(fifo(folder.console_out())?)
        .stderr(Stdio::from(log))
        .spawn()?;
    record.pid = Some(child.id());
    record.began = began(child.id());
    folder.set_record(&record)?;
    Ok(Some(child))
}

/// When a process began, in ticks since the host did: field 22 of `proc_pid_stat(5)`.
pub(crate) fn began(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may have anything in it.
    let (_, after) = stat.rsplit_once(')')?;
    after.split_whitespace().nth(19)?.parse().ok()
}

/// Kills the process of a record, if it is still the same.
pub(crate) fn kill(record: &Record) -> io::Result<()> {
    let pid = record.pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    let (Some(pid), Some(then)) = (pid, record.began) else { return Ok(()) };
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(()) };
    // The descriptor holds on to one process; is it the one?
    if began(pid.as_raw_nonzero().get().unsigned_abs()) == Some(then) {
        pidfd_send_signal(process, Signal::KILL)?;
    }
    Ok(())
}

/// How a run ended.
pub(crate) fn end(record: &Record, end: Option<End>, folder: &Folder) -> VmEnd {
    let now = Timestamp::now();
    let at = end.as_ref().and_then(|end| end.at).unwrap_or(now);
    let ran_s = at.duration_since(record.since).as_secs().max(0).unsigned_abs();
    let (is_orderly, how) = match end {
        Some(End { status: 0, .. }) => (true, "the guest powered off".to_owned()),
        Some(End { status: 6, .. }) => (true, "it was ended".to_owned()),
        Some(End { status, message, .. }) if message.is_empty() => {
            (false, format!("its process ended with status {status}"))
        }
        Some(End { message, .. }) => (false, message),
        None => {
            let words = folder.last_words().map(|words| format!(": {words}")).unwrap_or_default();
            (false, format!("its process was killed{words}"))
        }
    };
    VmEnd { boot: record.boot, is_orderly, how, ran_s }
}
