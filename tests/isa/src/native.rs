//! Runs instructions on the host CPU.
//!
//! A signal handler replaces the interrupted context by the test's registers; its return starts
//! the test. The test ends at an INT3 behind it, or at a fault: that signal's handler takes the
//! registers out of the context and puts the first context back. So every register can have any
//! value, and a fault is an outcome like another.
//!
//! UNSAFETY: maps memory at fixed addresses, installs signal handlers, and runs generated user
//! code that touches that memory and registers only.
#![allow(unsafe_code, reason = "generated machine code is what this module runs")]

use std::arch::asm;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use x86_state::Exception;

use crate::{CODE, DATA, DATA_SIZE, Outcome, State, X87};

const PAGE: usize = 4096;
const STACK_SIZE: usize = 64 << 10;
/// The signal that starts a test.
const START: i32 = libc::SIGUSR1;
const ENDS: [i32; 5] = [libc::SIGTRAP, libc::SIGSEGV, libc::SIGILL, libc::SIGFPE, libc::SIGBUS];
/// Flags a test may set and see: the arithmetic ones and DF.
pub(crate) const FLAGS: u64 = 0xcd5;
/// Legacy area and header of an XSAVE image.
const FP_SIZE: usize = 576;
const XSTATE_BV: usize = 512;
/// Where the kernel says that a frame's image has a header: `FP_XSTATE_MAGIC1`.
const MAGIC: (usize, u32) = (464, 0x4650_5853);
/// Linux's selector of 32-bit user code.
const CS_32: i64 = 0x23;
const CS_64: i64 = 0x33;

/// ucontext's order of registers, by encoding number.
const GREGS: [i32; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

static BUSY: Mutex<()> = Mutex::new(());
static JOB: AtomicPtr<Job> = AtomicPtr::new(ptr::null_mut());

struct Job {
    state: State,
    code_bits: u32,
    outcome: Outcome,
    interrupted: [libc::greg_t; 23],
    interrupted_fp: [u8; FP_SIZE],
}

/// The host CPU, with memory for tests. One at a time: a second waits.
pub struct Native {
    _stack: Box<[u8]>,
    _busy: MutexGuard<'static, ()>,
}

impl Native {
    /// Maps memory and takes over signals, for this thread.
    ///
    /// # Panics
    /// When the host refuses.
    #[allow(clippy::new_without_default, reason = "it waits for another to end")]
    pub fn new() -> Self {
        let busy = BUSY.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stack = vec![0; STACK_SIZE].into_boxed_slice();
        map(CODE, PAGE, libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC);
        map(DATA, DATA_SIZE, libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: the stack lives as long as the value; handlers have the signature SA_SIGINFO
        // asks for and touch only the job and the context.
        unsafe {
            let alternate = libc::stack_t {
                ss_sp: stack.as_mut_ptr().cast(),
                ss_flags: 0,
                ss_size: STACK_SIZE,
            };
            assert_eq!(libc::sigaltstack(&alternate, ptr::null_mut()), 0);
            handle(START, on_start);
            for signal in ENDS {
                handle(signal, on_end);
            }
            // 32-bit code needs data segments, which 64-bit processes have empty.
            asm!("mov ds, {0:e}", "mov es, {0:e}", in(reg) 0x2b, options(nomem, nostack));
        }
        Self { _stack: stack, _busy: busy }
    }

    /// Data memory.
    pub fn data(&mut self) -> &mut [u8] {
        // SAFETY: mapped in `new` and never unmapped; `self` is the only one of its kind.
        unsafe { std::slice::from_raw_parts_mut(DATA as *mut u8, DATA_SIZE) }
    }

    /// Runs `code`, 64 or 32 bits, from [`CODE`]. RIP in `state` is set to where it ended.
    pub fn run(&mut self, code: &[u8], code_bits: u32, state: &mut State) -> Outcome {
        assert!(code.len() < PAGE);
        let mut job = Job {
            state: *state,
            code_bits,
            outcome: Outcome::Done,
            // SAFETY: integers.
            interrupted: unsafe { std::mem::zeroed() },
            interrupted_fp: [0; FP_SIZE],
        };
        // SAFETY: the page is ours and writable; the handlers use the job before `raise`
        // returns, which is while it lives. Code that jumps away ends in a fault: nothing else
        // is mapped below the host's own images, and tests do not compute their addresses.
        unsafe {
            let page = std::slice::from_raw_parts_mut(CODE as *mut u8, PAGE);
            page[..code.len()].copy_from_slice(code);
            page[code.len()..].fill(0xcc);
            JOB.store(&raw mut job, Ordering::SeqCst);
            assert_eq!(libc::raise(START), 0);
            JOB.store(ptr::null_mut(), Ordering::SeqCst);
        }
        *state = job.state;
        job.outcome
    }
}

fn map(address: u64, size: usize, protection: i32) {
    // SAFETY: below everything a process has of its own; MAP_FIXED only repeats our own mapping.
    let at = unsafe {
        libc::mmap(
            address as *mut libc::c_void,
            size,
            protection,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
            -1,
            0,
        )
    };
    assert_eq!(at as u64, address, "{}", std::io::Error::last_os_error());
}

type Handler = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);

/// # Safety
/// `handler` must be fit for the signal.
unsafe fn handle(signal: i32, handler: Handler) {
    // SAFETY: a zeroed sigaction is valid, and the caller vouches for the handler.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        assert_eq!(libc::sigaction(signal, &action, ptr::null_mut()), 0);
    }
}

extern "C" fn on_start(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel's context, and the job of the thread that raised the signal.
    unsafe {
        let context = &mut *context.cast::<libc::ucontext_t>();
        let Some(job) = JOB.load(Ordering::SeqCst).as_mut() else { return };
        let gregs = &mut context.uc_mcontext.gregs;
        let fp = fp_image(context.uc_mcontext.fpregs);
        job.interrupted = *gregs;
        job.interrupted_fp.copy_from_slice(fp);
        for (slot, value) in GREGS.iter().zip(job.state.gpr) {
            gregs[*slot as usize] = value as i64;
        }
        gregs[libc::REG_RIP as usize] = CODE as i64;
        let flags = &mut gregs[libc::REG_EFL as usize];
        *flags = *flags & !(FLAGS as i64) | (job.state.flags & FLAGS) as i64;
        let cs = if job.code_bits == 32 { CS_32 } else { CS_64 };
        let segments = &mut gregs[libc::REG_CSGSFS as usize];
        *segments = *segments & !0xffff | cs;
        put_fp(fp, &job.state);
    }
}

extern "C" fn on_end(signal: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: as above. Without a job, the fault is the process's own: the default action then
    // ends it when the instruction is begun again.
    unsafe {
        let context = &mut *context.cast::<libc::ucontext_t>();
        let Some(job) = JOB.load(Ordering::SeqCst).as_mut() else {
            libc::signal(signal, libc::SIG_DFL);
            return;
        };
        let gregs = &mut context.uc_mcontext.gregs;
        let fp = fp_image(context.uc_mcontext.fpregs);
        for (slot, value) in GREGS.iter().zip(&mut job.state.gpr) {
            *value = gregs[*slot as usize] as u64;
        }
        job.state.flags = gregs[libc::REG_EFL as usize] as u64 & FLAGS;
        job.state.rip = gregs[libc::REG_RIP as usize] as u64;
        job.outcome = match signal {
            libc::SIGTRAP => {
                job.state.rip -= 1; // behind the INT3
                Outcome::Done
            }
            libc::SIGILL => Outcome::Raised(Exception::Ud),
            libc::SIGFPE => Outcome::Raised(Exception::De),
            libc::SIGBUS => Outcome::Raised(Exception::Ac),
            _ => Outcome::Raised(Exception::Gp),
        };
        get_fp(fp, &mut job.state);
        *gregs = job.interrupted;
        fp.copy_from_slice(&job.interrupted_fp);
    }
}

/// # Safety
/// `fpregs` must be of a signal frame.
unsafe fn fp_image<'a>(fpregs: *mut libc::_libc_fpstate) -> &'a mut [u8] {
    // SAFETY: every CPU with XSAVE has frames at least as large; `put_fp` checks that it is one.
    unsafe { std::slice::from_raw_parts_mut(fpregs.cast::<u8>(), FP_SIZE) }
}

fn put_fp(fp: &mut [u8], state: &State) {
    let magic =
        u32::from_le_bytes([fp[MAGIC.0], fp[MAGIC.0 + 1], fp[MAGIC.0 + 2], fp[MAGIC.0 + 3]]);
    assert_eq!(magic, MAGIC.1, "the host has no XSAVE");
    fp[0..2].copy_from_slice(&state.x87.control.to_le_bytes());
    fp[2..4].copy_from_slice(&state.x87.status.to_le_bytes());
    fp[4..6].copy_from_slice(&[state.x87.in_use, 0]);
    fp[24..28].copy_from_slice(&state.mxcsr.to_le_bytes());
    for (slot, value) in fp[32..160].chunks_exact_mut(16).zip(state.x87.st) {
        slot.copy_from_slice(&value.to_le_bytes());
    }
    for (slot, value) in fp[160..416].chunks_exact_mut(16).zip(state.xmm) {
        slot.copy_from_slice(&value.to_le_bytes());
    }
    fp[XSTATE_BV] |= 3; // both are in the image
}

fn get_fp(fp: &[u8], state: &mut State) {
    let word = |at: usize| u16::from_le_bytes([fp[at], fp[at + 1]]);
    let wide = |at: usize| {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&fp[at..at + 16]);
        u128::from_le_bytes(bytes)
    };
    state.x87 = X87::default();
    if fp[XSTATE_BV] & 1 != 0 {
        let st = std::array::from_fn(|i| wide(32 + 16 * i) & ((1 << 80) - 1));
        state.x87 = X87 { control: word(0), status: word(2), in_use: fp[4], st };
    }
    let sse = fp[XSTATE_BV] & 2 != 0;
    state.xmm = std::array::from_fn(|i| if sse { wide(160 + 16 * i) } else { 0 });
    state.mxcsr = u32::from(word(24)) | u32::from(word(26)) << 16;
}
