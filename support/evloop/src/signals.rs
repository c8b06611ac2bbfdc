//! Signals as something to wait for.
//!
//! UNSAFETY: blocks signals and makes a signalfd, for which there is no safe wrapper.
#![allow(unsafe_code, reason = "signal masks have no safe wrapper")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

/// A signal a process can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
#[allow(missing_docs, reason = "named as in signal(7)")]
pub enum Signal {
    Hup = libc::SIGHUP,
    Int = libc::SIGINT,
    Quit = libc::SIGQUIT,
    Term = libc::SIGTERM,
    Cont = libc::SIGCONT,
    Ttou = libc::SIGTTOU,
    Winch = libc::SIGWINCH,
    Child = libc::SIGCHLD,
}

impl Signal {
    const ALL: [Self; 8] = [
        Self::Hup,
        Self::Int,
        Self::Quit,
        Self::Term,
        Self::Cont,
        Self::Ttou,
        Self::Winch,
        Self::Child,
    ];

    /// Its number, as in an exit status.
    pub const fn number(self) -> i32 {
        self as i32
    }

    fn is_ignored(self) -> bool {
        let mut action = MaybeUninit::<libc::sigaction>::uninit();
        // SAFETY: without a new action the call only writes to `action`, which is read when it
        // says that it did.
        unsafe {
            libc::sigaction(self.number(), std::ptr::null(), action.as_mut_ptr()) == 0
                && action.assume_init().sa_sigaction == libc::SIG_IGN
        }
    }

    /// Lets the signal, taken over before, have its default action on this process: for most, to
    /// end it, so that a parent sees what ended it. Returns when that is not to end it.
    pub fn die_of(self) {
        // A dump of the process would be of no use to anyone.
        let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
        let _ = rustix::process::setrlimit(rustix::process::Resource::Core, none);
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: `set` is initialised by `sigemptyset` before it is read; the number is that of
        // a real signal, whose default action runs no code of ours.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            libc::sigaddset(set.as_mut_ptr(), self.number());
            libc::signal(self.number(), libc::SIG_DFL);
            libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), std::ptr::null_mut());
            libc::raise(self.number());
        }
    }
}

/// A signalfd.
#[derive(Debug)]
pub struct Signals(OwnedFd);

impl Signals {
    /// Takes `signals` away from their handlers and default actions, in this thread and those it
    /// makes from now on: call it before there are others. One that the process was started to
    /// ignore (by nohup(1), say) stays ignored.
    ///
    /// # Errors
    /// When the host has no descriptor left.
    pub fn take_over(signals: &[Signal]) -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: `set` is initialised by `sigemptyset` before it is read; all pointers are to
        // it or null where null is allowed. The numbers are those of real signals.
        let fd = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in signals.iter().filter(|signal| !signal.is_ignored()) {
                libc::sigaddset(set.as_mut_ptr(), signal.number());
            }
            let error = libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
            if error != 0 {
                return Err(io::Error::from_raw_os_error(error));
            }
            libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The next signal that has come.
    pub fn take(&self) -> Option<Signal> {
        let mut info = [0; size_of::<libc::signalfd_siginfo>()];
        rustix::io::read(&self.0, &mut info).ok()?;
        // signalfd(2): the number is the first field, `ssi_signo`.
        let number = i32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
        Signal::ALL.into_iter().find(|signal| signal.number() == number)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_read_instead_of_delivered() {
        let signals = Signals::take_over(&[Signal::Term]).unwrap();
        assert_eq!(signals.take(), None);
        // SAFETY: the signal goes to this thread, where it is blocked.
        unsafe { libc::raise(Signal::Term.number()) };
        assert_eq!(signals.take(), Some(Signal::Term));
        assert_eq!(signals.take(), None);
    }
}
