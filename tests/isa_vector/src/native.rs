//! The bare CPU.

// UNSAFETY: runs bytes as code, and edits signal frames to switch to and from it.
#![allow(unsafe_code, reason = "the host CPU runs the instruction in this process")]

use std::arch::asm;
use std::mem::zeroed;
use std::ptr;
use std::sync::{Mutex, MutexGuard};

use crate::state::{ARITHMETIC, DATA_SIZE};
use crate::{CODE, DATA, End, State};

/// Bytes of the FXSAVE image in a signal frame.
const FX_SIZE: usize = 512;
/// RFLAGS while the instruction runs, the arithmetic flags apart.
const FLAGS_FIXED: u64 = 0x202;
/// Encoding order of the general registers in `gregs`.
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

/// What the handler and [`Native::run`] share.
struct Exchange {
    phase: Phase,
    state: State,
    code_size: u64,
    end: End,
    host_gregs: [i64; 23],
    host_fx: [u8; FX_SIZE],
}

#[derive(PartialEq)]
enum Phase {
    Host,
    Enter,
    Guest,
}

static ONE: Mutex<()> = Mutex::new(());
static mut EXCHANGE: *mut Exchange = ptr::null_mut();

/// The host CPU; one at a time in a process.
pub struct Native {
    exchange: Box<Exchange>,
    _one: MutexGuard<'static, ()>,
}

impl Default for Native {
    fn default() -> Self {
        let one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut exchange = Box::new(Exchange {
            phase: Phase::Host,
            state: State::default(),
            code_size: 0,
            end: End::Done,
            host_gregs: [0; 23],
            host_fx: [0; FX_SIZE],
        });
        // SAFETY: the mappings are new (NOREPLACE) or ours from before; the handler runs on a
        // stack of its own and touches the exchange only, which lives as long as `one` is held.
        unsafe {
            EXCHANGE = &raw mut *exchange;
            map(CODE, 4096, libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC);
            map(DATA, DATA_SIZE, libc::PROT_READ | libc::PROT_WRITE);
            install_handlers();
        }
        Self { exchange, _one: one }
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        // SAFETY: unmaps what `default` mapped; the handler does nothing without an exchange.
        unsafe {
            EXCHANGE = ptr::null_mut();
            libc::munmap(CODE as *mut _, 4096);
            libc::munmap(DATA as *mut _, DATA_SIZE);
        }
    }
}

unsafe fn map(at: u64, size: usize, prot: i32) {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: NOREPLACE touches nothing that is there.
    let mapped = unsafe { libc::mmap(at as *mut _, size, prot, flags, -1, 0) };
    assert_eq!(mapped as u64, at, "the test's addresses are free");
}

unsafe fn install_handlers() {
    // SAFETY: plain system calls; the alternate stack is leaked, so it outlives every signal.
    unsafe {
        let stack = Box::leak(vec![0_u8; 128 << 10].into_boxed_slice());
        let mut alternate: libc::stack_t = zeroed();
        alternate.ss_sp = stack.as_mut_ptr().cast();
        alternate.ss_size = stack.len();
        assert_eq!(libc::sigaltstack(&alternate, ptr::null_mut()), 0);
        for signal in [libc::SIGTRAP, libc::SIGFPE, libc::SIGSEGV, libc::SIGILL, libc::SIGBUS] {
            let mut action: libc::sigaction = zeroed();
            action.sa_sigaction = handler as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            assert_eq!(libc::sigaction(signal, &action, ptr::null_mut()), 0);
        }
    }
}

extern "C" fn handler(signal: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid frame, whose x87 and SSE part is always there in 64-bit
    // processes; nobody else touches the exchange while the thread is here.
    unsafe {
        let context = &mut *context.cast::<libc::ucontext_t>();
        let machine = &mut context.uc_mcontext;
        let fx = &mut *machine.fpregs.cast::<[u8; FX_SIZE]>();
        let Some(exchange) = EXCHANGE.as_mut().filter(|e| e.phase != Phase::Host) else {
            libc::signal(signal, libc::SIG_DFL);
            return;
        };
        if exchange.phase == Phase::Enter {
            exchange.host_gregs = machine.gregs;
            exchange.host_fx = *fx;
            load(&exchange.state, &mut machine.gregs, fx);
            exchange.phase = Phase::Guest;
            return;
        }
        let trap = machine.gregs[libc::REG_TRAPNO as usize] as u8;
        let rip = machine.gregs[libc::REG_RIP as usize] as u64;
        // The breakpoint after the instruction: RIP is after that.
        let done = trap == 3 && rip == CODE + exchange.code_size + 1;
        exchange.end = if done { End::Done } else { End::Exception(trap) };
        save(&mut exchange.state, &machine.gregs, fx);
        machine.gregs = exchange.host_gregs;
        *fx = exchange.host_fx;
        exchange.phase = Phase::Host;
    }
}

fn load(state: &State, gregs: &mut [i64; 23], fx: &mut [u8; FX_SIZE]) {
    for (at, value) in GREGS.into_iter().zip(state.gpr) {
        gregs[at as usize] = value as i64;
    }
    gregs[libc::REG_RIP as usize] = CODE as i64;
    gregs[libc::REG_EFL as usize] = (state.flags | FLAGS_FIXED) as i64;
    fx[0..2].copy_from_slice(&state.fcw.to_le_bytes());
    fx[2..4].copy_from_slice(&state.fsw.to_le_bytes());
    fx[4] = state.in_use;
    fx[24..28].copy_from_slice(&state.mxcsr.to_le_bytes());
    for (i, value) in state.st.into_iter().enumerate() {
        fx[32 + 16 * i..][..16].copy_from_slice(&value.to_le_bytes());
    }
    for (i, value) in state.xmm.into_iter().enumerate() {
        fx[160 + 16 * i..][..16].copy_from_slice(&value.to_le_bytes());
    }
}

fn save(state: &mut State, gregs: &[i64; 23], fx: &[u8; FX_SIZE]) {
    let word = |at: usize| u16::from_le_bytes([fx[at], fx[at + 1]]);
    let vector = |at: usize| {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&fx[at..at + 16]);
        u128::from_le_bytes(bytes)
    };
    state.gpr = GREGS.map(|at| gregs[at as usize] as u64);
    state.flags = gregs[libc::REG_EFL as usize] as u64 & ARITHMETIC;
    state.fcw = word(0);
    state.fsw = word(2);
    state.in_use = fx[4];
    state.mxcsr = u32::from(word(24)) | u32::from(word(26)) << 16;
    state.st = std::array::from_fn(|i| vector(32 + 16 * i) & ((1 << 80) - 1));
    state.xmm = std::array::from_fn(|i| vector(160 + 16 * i));
}

impl Native {
    /// Runs one instruction, which must not jump.
    pub fn run(&mut self, code: &[u8], state: &State) -> (End, State) {
        let exchange = &raw mut *self.exchange;
        // SAFETY: both areas are mapped and ours. The breakpoint enters the handler, which
        // switches to the code and back to the instruction after the breakpoint with all
        // registers as they were; the code can write the data area only, or faults.
        unsafe {
            ptr::copy_nonoverlapping(state.data.as_ptr(), DATA as *mut u8, DATA_SIZE);
            ptr::copy_nonoverlapping(code.as_ptr(), CODE as *mut u8, code.len());
            ((CODE + code.len() as u64) as *mut u8).write(0xcc);
            (*exchange).state.clone_from(state);
            (*exchange).code_size = code.len() as u64;
            (*exchange).phase = Phase::Enter;
            asm!("int3");
            let mut after = (*exchange).state.clone();
            ptr::copy_nonoverlapping(DATA as *const u8, after.data.as_mut_ptr(), DATA_SIZE);
            ((*exchange).end, after)
        }
    }
}
