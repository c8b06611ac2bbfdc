//! Faults of translated code: it leaves, and the interpreter finds out what the guest gets.
//!
//! A copied instruction may fault where the guest's would: division, unmasked floating-point
//! exceptions, misaligned vectors; and an address that is not canonical forms one that is not
//! either. The handler changes nothing but where the thread goes on: to [`crate::entry::leave`],
//! with the fault's place in the context.
//!
//! UNSAFETY: installs signal handlers, and changes the interrupted thread's registers.
#![allow(unsafe_code, reason = "signals are how the host tells of faults")]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{io, mem, ptr};

use libc::{c_int, c_void, siginfo_t, ucontext_t};

use crate::context::field;

/// Signals the CPU's faults become.
const SIGNALS: [c_int; 4] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL];
/// Caches of this process: VMs at a time, in tests many.
const RANGES: usize = 64;
/// Bytes of a thread's signal stack: the kernel's frame with all of AVX-512, and the handler.
const STACK_SIZE: usize = 64 << 10;

/// Where translated code is: first and last host address, zero where there is none.
static CODE: [[AtomicU64; 2]; RANGES] = [const { [const { AtomicU64::new(0) }; 2] }; RANGES];
static BEFORE: OnceLock<[libc::sigaction; SIGNALS.len()]> = OnceLock::new();

/// Translated code that faults may come from, for as long as the value lives.
pub(crate) struct Watched(usize);

impl Watched {
    /// Host addresses `first..=last`.
    ///
    /// # Errors
    /// When there are too many, or the host refuses.
    pub(crate) fn new(first: u64, last: u64) -> io::Result<Self> {
        install()?;
        for (index, range) in CODE.iter().enumerate() {
            if range[1].compare_exchange(0, last, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                range[0].store(first, Ordering::Release);
                return Ok(Self(index));
            }
        }
        Err(io::Error::other("too many machines in one process"))
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        CODE[self.0][0].store(0, Ordering::Release);
        CODE[self.0][1].store(0, Ordering::Release);
    }
}

fn is_code(address: u64) -> bool {
    CODE.iter().any(|range| {
        let first = range[0].load(Ordering::Acquire);
        first != 0 && (first..=range[1].load(Ordering::Acquire)).contains(&address)
    })
}

fn install() -> io::Result<()> {
    if BEFORE.get().is_some() {
        return Ok(());
    }
    // SAFETY: all-zero is a valid sigaction, and is overwritten.
    let mut before: [libc::sigaction; SIGNALS.len()] = unsafe { mem::zeroed() };
    for (signal, old) in SIGNALS.iter().zip(&mut before) {
        // SAFETY: as above.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = handle as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        // SAFETY: both point to sigactions; the handler has the form SA_SIGINFO asks for.
        if unsafe { libc::sigaction(*signal, &action, old) } != 0 {
            return Err(io::Error::last_os_error());
        }
        if old.sa_sigaction == action.sa_sigaction {
            // Another thread was first: what it found is what was before.
            return Ok(());
        }
    }
    let _ = BEFORE.set(before);
    Ok(())
}

/// Runs with whatever FS base translated code has: no thread-local storage, no library calls
/// before the fault is known to be the engine's own.
extern "C" fn handle(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel gives a valid context to an SA_SIGINFO handler.
    let registers = unsafe { &mut (*context.cast::<ucontext_t>()).uc_mcontext.gregs };
    let rip = registers[libc::REG_RIP as usize] as u64;
    if is_code(rip) {
        // SAFETY: translated code runs with the GS base of a view, whose context has this field.
        unsafe {
            std::arch::asm!("mov gs:[{fault}], {rip}", fault = const field!(fault),
                rip = in(reg) rip, options(nostack, preserves_flags));
        }
        registers[libc::REG_RIP as usize] = crate::entry::leave as *const () as i64;
        return;
    }
    forward(signal, info, context);
}

/// A fault of anything else goes where it would have gone.
#[cold]
fn forward(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let index = SIGNALS.iter().position(|s| *s == signal);
    let before = index.and_then(|i| BEFORE.get().map(|b| b[i]));
    match before {
        Some(old) if old.sa_sigaction > libc::SIG_IGN && old.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: SA_SIGINFO says that the handler has this form.
            let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) =
                unsafe { mem::transmute(old.sa_sigaction) };
            handler(signal, info, context);
        }
        _ => {
            // SAFETY: puts the default action back; the fault happens again and ends the process.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
}

/// Stack for the signals of one thread, whose own stack pointer may be the guest's.
pub(crate) struct SignalStack {
    memory: Box<[u8]>,
    before: libc::stack_t,
}

impl SignalStack {
    /// For the calling thread.
    ///
    /// # Errors
    /// When the host refuses.
    pub(crate) fn new() -> io::Result<Self> {
        let mut memory = vec![0; STACK_SIZE].into_boxed_slice();
        let stack =
            libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: STACK_SIZE };
        let mut before = libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: 0, ss_size: 0 };
        // SAFETY: the stack is ours until `drop` takes it back.
        if unsafe { libc::sigaltstack(&stack, &mut before) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { memory, before })
    }
}

impl Drop for SignalStack {
    fn drop(&mut self) {
        // SAFETY: puts back what the thread had before; `self.memory` is in use until here.
        unsafe { libc::sigaltstack(&self.before, ptr::null_mut()) };
        debug_assert_eq!(self.memory.len(), STACK_SIZE);
    }
}
