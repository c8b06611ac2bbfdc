//! System calls, the clock, signals, atomics.
//!
//! UNSAFETY: system calls with pointers to variables, and a signal handler that only adds to a number.
#![allow(unsafe_code, reason = "the calls themselves are what is measured, without wrappers")]

use std::ffi::{CString, c_int};
use std::hint::black_box;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::ensure;

use super::{Made, Place};

/// Atomic additions in a round.
pub const ADDS: u64 = 1000;

static SIGNALS: AtomicU64 = AtomicU64::new(0);

/// The shortest system call.
pub fn getppid(_: &Place) -> Made {
    // SAFETY: takes nothing.
    let call = || unsafe { libc::getppid() };
    let parent = call();
    Ok(Some(Box::new(move |rounds| (0..rounds).filter(|_| call() == parent).count() as u64)))
}

/// The clock, which the vDSO reads without a system call if it can.
pub fn clock_gettime(_: &Place) -> Made {
    let mut last = 0;
    Ok(Some(Box::new(move |rounds| {
        let forwards = |_: &u64| {
            let now = now();
            let is_forwards = now >= last;
            last = now;
            is_forwards
        };
        (0..rounds).filter(forwards).count() as u64
    })))
}

fn now() -> i64 {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the call fills in the time, or fails, which the monotonic clock does not.
    let time = unsafe {
        assert_eq!(libc::clock_gettime(libc::CLOCK_MONOTONIC, time.as_mut_ptr()), 0);
        time.assume_init()
    };
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// stat(2) of a folder.
pub fn stat(place: &Place) -> Made {
    let path = CString::new(place.scratch.as_os_str().as_bytes())?;
    Ok(Some(Box::new(move |rounds| {
        let is_folder = |_: &u64| {
            let mut stat = MaybeUninit::<libc::stat>::uninit();
            // SAFETY: the path ends with a zero; what was not filled in is not looked at.
            unsafe {
                libc::stat(path.as_ptr(), stat.as_mut_ptr()) == 0
                    && stat.assume_init_ref().st_mode & libc::S_IFMT == libc::S_IFDIR
            }
        };
        (0..rounds).filter(is_folder).count() as u64
    })))
}

extern "C" fn count_signal(_: c_int) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

/// A signal to the process itself.
pub fn signal(_: &Place) -> Made {
    let handler: extern "C" fn(c_int) = count_signal;
    // SAFETY: the handler only adds to an atomic number.
    let before = unsafe { libc::signal(libc::SIGUSR1, handler as libc::sighandler_t) };
    ensure!(before != libc::SIG_ERR, io::Error::last_os_error());
    // SAFETY: takes nothing.
    let us = unsafe { libc::getpid() };
    Ok(Some(Box::new(move |rounds| {
        let begin = SIGNALS.load(Ordering::Relaxed);
        for _ in 0..rounds {
            // SAFETY: takes numbers only; the signal has a handler.
            unsafe { libc::kill(us, libc::SIGUSR1) };
        }
        SIGNALS.load(Ordering::Relaxed) - begin
    })))
}

/// LOCK ADD, or what is made of it.
pub fn lock_add(_: &Place) -> Made {
    let number = AtomicU64::new(0);
    Ok(Some(Box::new(move |rounds| {
        for round in 0..rounds * ADDS {
            black_box(&number).fetch_add(round, Ordering::SeqCst);
        }
        number.load(Ordering::Relaxed)
    })))
}
