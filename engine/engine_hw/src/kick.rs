//! Getting a vCPU's thread out of the kernel, without ever losing a kick.
//!
//! Three words, always touched in this order:
//!
//! - the kicker stores `kicked`, then the run page's `immediate_exit`, then looks whether a
//!   thread is inside `run`, and signals it if so;
//! - the vCPU's thread stores its ID, then enters the kernel. Whenever the kernel returns EINTR
//!   it clears `immediate_exit`, *then* takes `kicked`.
//!
//! So a kick that the taking of `kicked` missed has not yet stored `immediate_exit`: its store
//! comes after the clearing, and the next entry returns at once. A kicker that sees no thread
//! comes before the thread's entry, which then sees `immediate_exit`. A signal that comes between
//! that look of the kernel's and guest mode is pending there, and the kernel checks. All accesses
//! are sequentially consistent.
//!
//! UNSAFETY: installs a signal handler and signals threads.
#![allow(unsafe_code, reason = "signals have no safe wrapper")]

use std::io;
use std::mem::zeroed;
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::SeqCst};

use kvm_ioctls::VcpuFd;

use crate::raw::{RunPage, set_signal_mask};

thread_local! {
    // SAFETY: the call has no preconditions.
    static THREAD: i32 = unsafe { libc::gettid() };
}

/// The signal: real-time ones are nobody's by default.
fn signal() -> libc::c_int {
    libc::SIGRTMIN()
}

extern "C" fn nothing(_: libc::c_int) {}

/// Installs the handler, once. It does nothing: that the signal was delivered is enough.
fn install_handler() -> io::Result<()> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    let installed = INSTALLED.get_or_init(|| {
        // SAFETY: all-zero is a valid `sigaction`; the handler is async-signal-safe. SA_RESTART
        // keeps a late signal from disturbing other calls; KVM_RUN returns EINTR all the same.
        let done = unsafe {
            let mut action: libc::sigaction = zeroed();
            action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
            action.sa_flags = libc::SA_RESTART;
            libc::sigaction(signal(), &raw const action, null_mut())
        };
        if done == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL))
        }
    });
    installed.map_err(io::Error::from_raw_os_error)
}

/// See [`Kicker::begin_rounds`]: our signal alone, and the mask to restore.
pub(crate) struct Rounds {
    set: libc::sigset_t,
    before: libc::sigset_t,
}

/// What reaches a vCPU from other threads.
pub(crate) struct Kicker {
    page: RunPage,
    kicked: AtomicBool,
    /// The thread inside `run`; 0 when there is none.
    thread: AtomicI32,
}

impl Kicker {
    /// For this vCPU.
    pub(crate) fn new(vcpu: &VcpuFd) -> io::Result<Self> {
        install_handler()?;
        let page = RunPage::map(vcpu)?;
        Ok(Self { page, kicked: AtomicBool::new(false), thread: AtomicI32::new(0) })
    }

    /// The vCPU's run page.
    pub(crate) fn page(&self) -> &RunPage {
        &self.page
    }

    /// Makes `run` return.
    pub(crate) fn kick(&self) {
        self.kicked.store(true, SeqCst);
        self.poke();
    }

    /// Makes the vCPU's thread look at what changed; `run` goes on.
    pub(crate) fn poke(&self) {
        self.page.set_immediate_exit(true);
        let thread = self.thread.load(SeqCst);
        if thread != 0 && thread != THREAD.with(|t| *t) {
            // SAFETY: a signal whose handler does nothing, to a thread of this process. If it has
            // ended meanwhile the call fails, and nobody needs the signal any more.
            unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal()) };
        }
    }

    /// This thread is about to run the vCPU.
    pub(crate) fn enter(&self) {
        thread_local! {
            static UNBLOCKED: () = {
                // SAFETY: changes only this thread's mask, by a set made right here.
                unsafe {
                    let mut set: libc::sigset_t = zeroed();
                    libc::sigemptyset(&raw mut set);
                    libc::sigaddset(&raw mut set, signal());
                    libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, null_mut());
                }
            };
        }
        // A thread made by one that blocks signals inherits the blocked one.
        UNBLOCKED.with(|()| ());
        self.thread.store(THREAD.with(|t| *t), SeqCst);
    }

    /// It no longer runs it.
    pub(crate) fn leave(&self) {
        self.thread.store(0, SeqCst);
    }

    /// Has every entry into the kernel until [`Kicker::end_rounds`] go round the run loop once
    /// without executing anything: a signal is pending all the while. (An immediate exit does not
    /// go round; what the guest has caused may then still be on its way inside the kernel.)
    pub(crate) fn begin_rounds(&self, vcpu: &VcpuFd) -> io::Result<Rounds> {
        self.page.set_immediate_exit(false);
        // SAFETY: changes only this thread's mask, by sets that outlive the calls, and signals
        // this very thread.
        unsafe {
            let mut set: libc::sigset_t = zeroed();
            let mut before: libc::sigset_t = zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, signal());
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, &raw mut before);
            libc::syscall(libc::SYS_tgkill, libc::getpid(), THREAD.with(|t| *t), signal());
            // In the kernel it is not blocked, so it is pending there.
            libc::sigdelset(&raw mut before, signal());
            set_signal_mask(vcpu, Some(&before))?;
            Ok(Rounds { set, before })
        }
    }

    /// Ends that. A kick that came meanwhile is seen by the next entry.
    pub(crate) fn end_rounds(&self, vcpu: &VcpuFd, rounds: &Rounds) -> io::Result<()> {
        // SAFETY: as above; waiting for no time takes the pending signal.
        unsafe {
            let no_time: libc::timespec = zeroed();
            while libc::sigtimedwait(&raw const rounds.set, null_mut(), &raw const no_time) > 0 {}
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const rounds.before, null_mut());
        }
        if self.kicked.load(SeqCst) {
            self.page.set_immediate_exit(true);
        }
        set_signal_mask(vcpu, None)
    }

    /// The kernel returned EINTR: was it a kick? Takes it.
    pub(crate) fn take(&self) -> bool {
        self.page.set_immediate_exit(false);
        self.kicked.swap(false, SeqCst)
    }
}
