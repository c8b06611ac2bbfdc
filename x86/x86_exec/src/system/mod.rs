//! System instructions, segment loads, far transfers, port I/O.

use x86_decode::Insn;

use crate::{Env, Handler};

/// The function that does `insn`, when it is of this family.
pub(crate) fn select<E: Env>(_insn: &Insn) -> Option<Handler<E>> {
    None
}
