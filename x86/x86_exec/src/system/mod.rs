//! System instructions, segment loads, far transfers, port I/O.

use x86_decode::Insn;

use crate::{Env, Handler};

/// The function that does `insn`, when it is of this family.
pub(crate) fn select<E: Env>(_insn: &Insn) -> Option<Handler<E>> {
    None
}

/// The CPU shuts down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TripleFault;

impl<E: Env> crate::Cpu<E> {
    /// Delivers the exception in [`crate::Cpu::fault`].
    ///
    /// # Errors
    /// On shutdown.
    pub fn deliver_fault(&mut self) -> Result<(), TripleFault> {
        Err(TripleFault)
    }
}
