//! Processes: switches, births and deaths.
//!
//! UNSAFETY: fork(2) in a process with one thread, whose child uses nothing but system calls.
#![allow(unsafe_code, reason = "fork is what is measured, and no safe call does it alone")]

use std::ffi::{CStr, c_int};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::process::Command;
use std::ptr;

use anyhow::ensure;

use super::{Made, Place, mix};

const EXIT_CODE: c_int = 7;
const US: &CStr = c"/proc/self/exe";
const SCRIPT: &str = "$0 echo one two three | $0 cat | $0 wc";

/// Keeps this process, and those it starts, on the last CPU it may use: switches between processes
/// are then the CPU's work, and nothing wakes another.
pub fn stay_on_one_cpu() -> anyhow::Result<()> {
    // SAFETY: a set of CPUs is plain bits; the calls are told its size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        let size = size_of::<libc::cpu_set_t>();
        ensure!(libc::sched_getaffinity(0, size, &raw mut set) == 0, io::Error::last_os_error());
        let last = (0..libc::CPU_SETSIZE as usize).rev().find(|cpu| libc::CPU_ISSET(*cpu, &set));
        libc::CPU_ZERO(&mut set);
        libc::CPU_SET(last.unwrap_or(0), &mut set);
        ensure!(libc::sched_setaffinity(0, size, &raw const set) == 0, io::Error::last_os_error());
    }
    Ok(())
}

/// A child, which runs `work` and ends.
fn child(work: impl FnOnce() -> c_int) -> libc::pid_t {
    // SAFETY: this process has one thread, so that the child may do what it could.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", io::Error::last_os_error());
    if pid == 0 {
        let code = work();
        // SAFETY: ends the child, without what the parent would do at its own end.
        unsafe { libc::_exit(code) };
    }
    pid
}

/// Waits for a child's end; its exit code.
fn wait(pid: libc::pid_t) -> u64 {
    let mut status = 0;
    // SAFETY: the status is filled in.
    let ended = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert!(ended == pid && libc::WIFEXITED(status), "a child ended with status {status:#x}");
    libc::WEXITSTATUS(status) as u64
}

/// A process that sends back what it gets, plus one.
struct Echo {
    pid: libc::pid_t,
    pipes: Option<(PipeWriter, PipeReader)>,
}

impl Echo {
    fn start() -> io::Result<Self> {
        let (mut from_us, to_child) = io::pipe()?;
        let (from_child, mut to_us) = io::pipe()?;
        let mut ours = Some((to_child, from_child));
        let pid = child(|| {
            ours = None;
            let mut byte = [0];
            while let Ok(1) = from_us.read(&mut byte) {
                byte[0] = byte[0].wrapping_add(1);
                if to_us.write_all(&byte).is_err() {
                    break;
                }
            }
            0
        });
        Ok(Self { pid, pipes: ours })
    }

    fn send(&mut self, byte: u8) -> io::Result<u8> {
        let (to_child, from_child) = self.pipes.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        to_child.write_all(&[byte])?;
        let mut answer = [0];
        from_child.read_exact(&mut answer)?;
        Ok(answer[0])
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.pipes = None;
        wait(self.pid);
    }
}

/// A byte to another process and back.
pub fn pipe(_: &Place) -> Made {
    let mut echo = Echo::start()?;
    Ok(Some(Box::new(move |rounds| {
        (0..rounds).fold(0, |sum, round| {
            let answer = echo.send(round as u8).map_or(u64::MAX, u64::from);
            mix(sum, answer)
        })
    })))
}

/// fork(2), _exit(2), waitpid(2).
pub fn fork(_: &Place) -> Made {
    Ok(Some(Box::new(|rounds| (0..rounds).fold(0, |sum, _| sum + wait(child(|| EXIT_CODE))))))
}

/// fork(2), execve(2) of this program, its end.
pub fn fork_exec(_: &Place) -> Made {
    let arguments = [US.as_ptr(), c"--nothing".as_ptr(), ptr::null()];
    let exec = move || {
        // SAFETY: the arguments end with a null pointer, each of them with a zero.
        unsafe { libc::execv(US.as_ptr(), arguments.as_ptr()) };
        EXIT_CODE
    };
    Ok(Some(Box::new(move |rounds| (0..rounds).fold(0, |sum, _| sum + wait(child(exec)) + 1))))
}

/// A shell that starts three processes in a pipeline.
pub fn pipeline(place: &Place) -> Made {
    let busybox = place.root.join("bin/busybox");
    let run = move || Command::new(&busybox).args(["sh", "-c", SCRIPT]).arg(&busybox).output();
    run()?;
    Ok(Some(Box::new(move |rounds| {
        let output = |_| run().map(|done| done.stdout).unwrap_or_default();
        (0..rounds).flat_map(output).fold(0, |sum, byte| mix(sum, u64::from(byte)))
    })))
}
