//! The host CPU.
//!
//! Code runs in a child process that can do nothing else: seccomp's strict mode lets it read and
//! write two pipes and return from signals, so code that goes astray kills it or is killed, and is then an outcome
//! ([`End::Died`], [`End::Hung`]) like another. A new child takes its place.
//!
//! UNSAFETY: forks, maps memory shared with the child and reads what the child wrote there.
#![allow(unsafe_code, reason = "processes and shared memory")]

mod child;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use crate::{Case, DATA_SIZE, End, Outcome, PAGE, State, Subject};
use child::{Child, Exchange};

/// No case takes a thousandth of it.
const TIME_LIMIT_MS: i32 = 5_000;

/// What parent and child share. The child has `code` and `data` at [`crate::CODE`] and
/// [`crate::DATA`] besides.
#[repr(C)]
struct Shared {
    code: [u8; PAGE],
    data: [u8; DATA_SIZE],
    exchange: Exchange,
}

/// Whole pages.
const SHARED_SIZE: usize = size_of::<Shared>().next_multiple_of(PAGE);

/// The host CPU, with memory for cases.
pub struct Native {
    shared: *mut Shared,
    memory: OwnedFd,
    process: Option<Process>,
}

struct Process {
    pid: libc::pid_t,
    to: File,
    from: File,
}

impl Default for Native {
    fn default() -> Self {
        // SAFETY: a new descriptor; a new mapping of all of it, unmapped when dropped.
        unsafe {
            let memory = libc::memfd_create(c"isa".as_ptr(), libc::MFD_CLOEXEC);
            assert!(memory >= 0, "{}", std::io::Error::last_os_error());
            let memory = OwnedFd::from_raw_fd(memory);
            assert_eq!(libc::ftruncate(memory.as_raw_fd(), SHARED_SIZE as libc::off_t), 0);
            let shared = libc::mmap(
                ptr::null_mut(),
                SHARED_SIZE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                memory.as_raw_fd(),
                0,
            );
            assert_ne!(shared, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
            Self { shared: shared.cast(), memory, process: None }
        }
    }
}

impl Process {
    fn start(native: &Native) -> Self {
        let pipe = || {
            let mut ends = [0; 2];
            // SAFETY: two new descriptors.
            unsafe {
                assert_eq!(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC), 0);
                ends.map(|end| File::from(OwnedFd::from_raw_fd(end)))
            }
        };
        let ([its_in, to], [from, its_out]) = (pipe(), pipe());
        let child = Child {
            memory: native.memory.as_raw_fd(),
            exchange: ptr::null_mut(),
            from: its_in.as_raw_fd(),
            to: its_out.as_raw_fd(),
        };
        // SAFETY: the child makes system calls only, and never returns.
        unsafe {
            let child = Child { exchange: &raw mut (*native.shared).exchange, ..child };
            let pid = libc::fork();
            assert!(pid >= 0, "{}", std::io::Error::last_os_error());
            if pid == 0 {
                child.main();
            }
            Self { pid, to, from }
        }
    }

    /// Has the child run what is in the shared memory.
    fn turn(&mut self) -> Result<(), End> {
        self.to.write_all(&[0]).map_err(|_| End::Died)?;
        let mut poll = libc::pollfd { fd: self.from.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one descriptor that is open.
        let ready = unsafe { libc::poll(&raw mut poll, 1, TIME_LIMIT_MS) };
        if ready <= 0 {
            return Err(End::Hung);
        }
        self.from.read_exact(&mut [0]).map_err(|_| End::Died)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SAFETY: a child of ours that nobody has waited for.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, ptr::null_mut(), 0);
        }
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        // SAFETY: mapped by `default`.
        unsafe { libc::munmap(self.shared.cast(), SHARED_SIZE) };
    }
}

impl Subject for Native {
    fn name(&self) -> String {
        "the bare CPU".into()
    }

    fn run(&mut self, case: &Case) -> Outcome {
        assert!(case.code.len() < PAGE);
        // SAFETY: mapped while we live; the child leaves it alone until its turn.
        let shared = unsafe { &mut *self.shared };
        shared.code[..case.code.len()].copy_from_slice(&case.code);
        shared.code[case.code.len()..].fill(0xcc);
        shared.data.copy_from_slice(&case.data);
        shared.exchange.begin(&case.state, case.code_bits);
        let mut process = self.process.take().unwrap_or_else(|| Process::start(self));
        let end = match process.turn() {
            Ok(()) => {
                self.process = Some(process);
                shared.exchange.end()
            }
            Err(end) => end,
        };
        let state = match end {
            End::Died | End::Hung => State::default(),
            _ => shared.exchange.state,
        };
        Outcome { end, state, data: shared.data.to_vec() }
    }
}
