//! Exceptions on their way from an instruction to its delivery.

use x86_state::Exception;

use crate::{Cpu, Env};

/// The instruction did not happen; why is in [`Cpu::fault`].
///
/// Empty, so that a handler's result is one register and its success one test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Fault(());

/// Why an instruction did not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultInfo {
    /// Which exception.
    pub exception: Exception,
    /// Its error code, where it has one.
    pub error_code: u32,
    /// #PF: the linear address for CR2. #DB: bits for DR6.
    pub payload: u64,
}

impl<E: Env> Cpu<E> {
    /// Notes an exception without an error code.
    #[cold]
    pub fn raise(&mut self, exception: Exception) -> Fault {
        debug_assert!(!exception.has_error_code());
        self.fault = FaultInfo { exception, error_code: 0, payload: 0 };
        Fault(())
    }

    /// Notes an exception with an error code.
    #[cold]
    pub fn raise_code(&mut self, exception: Exception, error_code: u32) -> Fault {
        debug_assert!(exception.has_error_code());
        self.fault = FaultInfo { exception, error_code, payload: 0 };
        Fault(())
    }

    /// #GP(0).
    #[cold]
    pub fn gp0(&mut self) -> Fault {
        self.raise_code(Exception::Gp, 0)
    }

    /// #UD.
    #[cold]
    pub fn ud(&mut self) -> Fault {
        self.raise(Exception::Ud)
    }

    /// #PF at this linear address.
    #[cold]
    pub fn page_fault(&mut self, linear: u64, error_code: u32) -> Fault {
        self.fault = FaultInfo { exception: Exception::Pf, error_code, payload: linear };
        Fault(())
    }
}
