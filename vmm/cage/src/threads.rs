//! Rights that each thread has for itself: all threads give them up.
//!
//! Capabilities and Landlock's rules are a thread's own. So each thread gives up its own, in the handler of a signal,
//! as the C library does to change a process's user. What a thread starts has no more than the thread.
//!
//! UNSAFETY: a signal's handler, which makes system calls only and touches nothing but atomics; and system calls without
//! wrappers.
#![allow(unsafe_code, reason = "signal handlers and system calls without wrappers")]

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Far more than a VM's process has when its cage closes.
const THREADS_MAX: usize = 1024;
/// A thread that has not answered by then hangs in the kernel.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between looks at who has answered.
const LOOK: Duration = Duration::from_micros(50);

/// Landlock's rules, or -1.
static RULES: AtomicI32 = AtomicI32::new(-1);
/// Capabilities stay, for who becomes another user next and loses them by that.
static KEEP: AtomicBool = AtomicBool::new(false);
/// Threads that have given up their rights, in the order they did.
static DONE: [AtomicI32; THREADS_MAX] = [const { AtomicI32::new(0) }; THREADS_MAX];
static COUNT: AtomicUsize = AtomicUsize::new(0);
/// What the host said to one that could not.
static ERROR: AtomicI32 = AtomicI32::new(0);

/// `struct __user_cap_header_struct`, `_LINUX_CAPABILITY_VERSION_3`.
#[repr(C)]
struct CapHeader {
    version: u32,
    pid: libc::c_int,
}

/// Gives up the calling thread's rights. Async-signal-safe.
fn give_up_own(rules: i32) -> Result<(), i32> {
    let header = CapHeader { version: 0x2008_0522, pid: 0 };
    let none = [0u32; 6];
    // SAFETY: the structures live over the calls and have the sizes the kernel expects.
    let refused = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || rules >= 0 && libc::syscall(libc::SYS_landlock_restrict_self, rules, 0) != 0
            || !KEEP.load(Ordering::Acquire)
                && libc::syscall(libc::SYS_capset, &raw const header, &raw const none) != 0
    };
    // SAFETY: errno is always readable.
    if refused { Err(unsafe { *libc::__errno_location() }) } else { Ok(()) }
}

extern "C" fn on_signal(_: libc::c_int) {
    // SAFETY: errno is this thread's, and is put back for whom the signal has interrupted.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let before = unsafe { *errno };
    if let Err(error) = give_up_own(RULES.load(Ordering::Acquire)) {
        ERROR.store(error, Ordering::Release);
    }
    // SAFETY: it takes nothing.
    let tid = unsafe { libc::gettid() };
    if let Some(slot) = DONE.get(COUNT.fetch_add(1, Ordering::AcqRel)) {
        slot.store(tid, Ordering::Release);
    }
    // SAFETY: as above.
    unsafe { *errno = before };
}

/// Has all threads give up their capabilities, all ways to new privileges, and what these rules of Landlock do not allow.
pub(crate) fn give_up(rules: Option<&OwnedFd>, keep_capabilities: bool) -> io::Result<()> {
    KEEP.store(keep_capabilities, Ordering::Release);
    let rules = rules.map_or(-1, |fd| fd.as_raw_fd());
    RULES.store(rules, Ordering::Release);
    let signal = libc::SIGRTMAX();
    let before = handle(signal, on_signal as *const () as usize)?;
    // SAFETY: they take nothing.
    let (process, us) = unsafe { (libc::getpid(), libc::gettid()) };
    let mut told = BTreeSet::from([us]);
    let begin = Instant::now();
    loop {
        let there = threads()?;
        let new: Vec<_> = there.difference(&told).copied().collect();
        for tid in &new {
            // SAFETY: one that has ended meanwhile is no matter.
            unsafe { libc::syscall(libc::SYS_tgkill, process, *tid, signal) };
        }
        let count = COUNT.load(Ordering::Acquire).min(THREADS_MAX);
        let done: BTreeSet<_> = DONE[..count].iter().map(|t| t.load(Ordering::Acquire)).collect();
        told.extend(&new);
        // One that starts another before its turn is seen by a look after it: the last look finds none that is new.
        if new.is_empty() && there.iter().all(|tid| *tid == us || done.contains(tid)) {
            break;
        }
        if begin.elapsed() > PATIENCE || told.len() > THREADS_MAX {
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(LOOK);
    }
    give_up_own(rules).map_err(io::Error::from_raw_os_error)?;
    handle(signal, before)?;
    match ERROR.load(Ordering::Acquire) {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

fn threads() -> io::Result<BTreeSet<i32>> {
    let mut all = BTreeSet::new();
    for entry in std::fs::read_dir("/proc/self/task")? {
        all.extend(entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    Ok(all)
}

/// Sets a signal's handler, and returns the one before.
fn handle(signal: libc::c_int, handler: usize) -> io::Result<usize> {
    // SAFETY: zero is a valid value of every field.
    let (mut new, mut old): (libc::sigaction, libc::sigaction) = unsafe { std::mem::zeroed() };
    new.sa_sigaction = handler;
    new.sa_flags = libc::SA_RESTART;
    // SAFETY: both structures live over the call; the handler is async-signal-safe.
    if unsafe { libc::sigaction(signal, &raw const new, &raw mut old) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(old.sa_sigaction)
}
