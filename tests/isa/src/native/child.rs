//! The child: what runs code on the host CPU.
//!
//! An INT3's handler replaces the interrupted context by the case's registers; its return starts
//! the case. The case ends at an INT3 of its own or at a fault: that signal's handler takes the
//! registers out of the context and puts the first context back. So every register can have any
//! value, and a fault is an outcome like another.
//!
//! UNSAFETY: maps memory at fixed addresses, edits signal frames, and runs generated user code.
//! After the fork of a process that may have threads: nothing here allocates or takes a lock.
#![allow(unsafe_code, reason = "generated machine code is what this module runs")]

use std::arch::asm;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::state::IMAGE_SIZE;
use crate::{CODE, DATA, DATA_SIZE, End, FLAGS, GS_BASE, PAGE, State};

const STACK_SIZE: usize = 64 << 10;
const SIGNALS: [i32; 5] = [libc::SIGTRAP, libc::SIGSEGV, libc::SIGILL, libc::SIGFPE, libc::SIGBUS];
/// Where the kernel says that a frame's image has a header: `FP_XSTATE_MAGIC1`.
const MAGIC: (usize, u32) = (464, 0x4650_5853);
/// Linux's selectors of user code and data.
const CS_32: i64 = 0x23;
const CS_64: i64 = 0x33;
const DS: u32 = 0x2b;
const BREAKPOINT: u8 = 3;
/// Linux's `asm/prctl.h`.
const ARCH_SET_GS: i32 = 0x1001;

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

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The child's own code runs.
    Own,
    /// The next signal starts the case.
    Enter,
    /// The case runs.
    Inside,
}

/// The case's registers, and the child's meanwhile.
pub(super) struct Exchange {
    pub(super) state: State,
    code_bits: u32,
    phase: Phase,
    vector: u8,
    interrupted: [libc::greg_t; 23],
    interrupted_fp: [u8; IMAGE_SIZE],
}

impl Exchange {
    pub(super) fn begin(&mut self, state: &State, code_bits: u32) {
        self.state = *state;
        self.code_bits = code_bits;
        self.phase = Phase::Own;
    }

    pub(super) fn end(&self) -> End {
        if self.vector == BREAKPOINT { End::Done } else { End::Raised(self.vector) }
    }
}

/// The child's exchange.
static EXCHANGE: AtomicPtr<Exchange> = AtomicPtr::new(ptr::null_mut());

/// What the child is given.
pub(super) struct Child {
    pub(super) memory: i32,
    pub(super) exchange: *mut Exchange,
    pub(super) from: i32,
    pub(super) to: i32,
}

impl Child {
    /// Runs cases until the parent is gone.
    ///
    /// # Safety
    /// To be called in a process that has forked for it.
    pub(super) unsafe fn main(self) -> ! {
        let quit = |why: i32| -> ! {
            // SAFETY: ends the process; where the filter forbids it, by SIGSYS.
            unsafe { libc::_exit(why) }
        };
        // SAFETY: the process is ours alone. The mappings are where no loader puts anything; the
        // handlers have the signature SA_SIGINFO asks for and touch the exchange and the context.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            EXCHANGE.store(self.exchange, Ordering::SeqCst);
            let writable = libc::PROT_READ | libc::PROT_WRITE;
            if !map(CODE, PAGE, libc::PROT_READ | libc::PROT_EXEC, self.memory, 0)
                || !map(DATA, DATA_SIZE, writable, self.memory, PAGE)
                || !catch_signals()
            {
                quit(1);
            }
            libc::syscall(libc::SYS_arch_prctl, ARCH_SET_GS, GS_BASE);
            // 32-bit code needs data segments, which 64-bit processes have empty.
            asm!("mov ds, {0:e}", "mov es, {0:e}", in(reg) DS, options(nomem, nostack));
            if libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT) != 0 {
                quit(2);
            }
            let mut byte = 0_u8;
            while libc::read(self.from, (&raw mut byte).cast(), 1) == 1 {
                (*self.exchange).phase = Phase::Enter;
                asm!("int3");
                if libc::write(self.to, (&raw const byte).cast(), 1) != 1 {
                    break;
                }
            }
            quit(0)
        }
    }
}

/// # Safety
/// Nothing may be at this address.
unsafe fn map(at: u64, size: usize, protection: i32, memory: i32, offset: usize) -> bool {
    let flags = libc::MAP_SHARED | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: the kernel refuses when something is there.
    let mapped =
        unsafe { libc::mmap(at as *mut _, size, protection, flags, memory, offset as libc::off_t) };
    mapped as u64 == at
}

/// # Safety
/// To be called once a process.
unsafe fn catch_signals() -> bool {
    // SAFETY: a new mapping for the stack; a zeroed sigaction is valid.
    unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let stack = libc::mmap(ptr::null_mut(), STACK_SIZE, protection, flags, -1, 0);
        let stack = libc::stack_t { ss_sp: stack, ss_flags: 0, ss_size: STACK_SIZE };
        let mut fine = libc::sigaltstack(&stack, ptr::null_mut()) == 0;
        for signal in SIGNALS {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_signal as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            fine &= libc::sigaction(signal, &action, ptr::null_mut()) == 0;
        }
        fine
    }
}

extern "C" fn on_signal(signal: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel's context; nobody else uses the exchange in the child's turn. A fault of
    // the child's own has the default action, which ends it, when its instruction begins again.
    unsafe {
        let machine = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext;
        let image = std::slice::from_raw_parts_mut(machine.fpregs.cast::<u8>(), IMAGE_SIZE);
        match EXCHANGE.load(Ordering::SeqCst).as_mut() {
            Some(exchange) if exchange.phase == Phase::Enter => {
                enter(exchange, &mut machine.gregs, image);
            }
            Some(exchange) if exchange.phase == Phase::Inside => {
                leave(exchange, &mut machine.gregs, image);
            }
            _ => {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
    }
}

fn enter(exchange: &mut Exchange, gregs: &mut [libc::greg_t; 23], image: &mut [u8]) {
    let (at, magic) = MAGIC;
    assert_eq!(image[at..at + 4], magic.to_le_bytes(), "the host has no XSAVE");
    exchange.interrupted = *gregs;
    exchange.interrupted_fp.copy_from_slice(image);
    for (slot, value) in GREGS.iter().zip(exchange.state.gpr) {
        gregs[*slot as usize] = value as i64;
    }
    gregs[libc::REG_RIP as usize] = CODE as i64;
    let flags = &mut gregs[libc::REG_EFL as usize];
    *flags = *flags & !(FLAGS as i64) | (exchange.state.flags & FLAGS) as i64;
    let cs = if exchange.code_bits == 32 { CS_32 } else { CS_64 };
    let segments = &mut gregs[libc::REG_CSGSFS as usize];
    *segments = *segments & !0xffff | cs;
    exchange.state.put_image(image);
    exchange.phase = Phase::Inside;
}

fn leave(exchange: &mut Exchange, gregs: &mut [libc::greg_t; 23], image: &mut [u8]) {
    for (slot, value) in GREGS.iter().zip(&mut exchange.state.gpr) {
        *value = gregs[*slot as usize] as u64;
    }
    exchange.vector = gregs[libc::REG_TRAPNO as usize] as u8;
    exchange.state.flags = gregs[libc::REG_EFL as usize] as u64 & FLAGS;
    exchange.state.rip = gregs[libc::REG_RIP as usize] as u64;
    if exchange.vector == BREAKPOINT {
        exchange.state.rip -= 1; // behind the INT3
    }
    exchange.state.take_image(image);
    *gregs = exchange.interrupted;
    image.copy_from_slice(&exchange.interrupted_fp);
    exchange.phase = Phase::Own;
}
