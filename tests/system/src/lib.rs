//! Bare-metal guests that make every kind of system event, run unchanged by `trine run` on
//! engines `emu` and `full` and by QEMU's TCG or Bochs, and the records they send compared.
//! `SYSTEM_ENGINE` restricts the engines to one.
//!
//! A guest is a row of *cases*: a few instructions each, begun in one known state, ended by the
//! first exception or by [`REPORT`]. Whatever ends a case, the handler sends what it found (the
//! pushed frame, registers, CR2, DR6, the test page's entry) through the serial port and begins
//! the next case, so a guest cannot get lost unless a CPU is wrong.
//!
//! What this crate may not know: our crates. It tests the program `trine`.
//!
//! Follows the SDM, volume 3A. Where an oracle is known to be wrong, the record is masked in one place
//! (`Layout::forgive`), by name.

mod bochs;
mod image;
mod long;
mod oracle;
mod protected;
mod random;
mod real;
mod record;

pub use image::{Case, REPORT};
pub use long::Long;
pub use oracle::{Oracle, Outcome, check, compare};
pub use protected::Protected;
pub use random::{Random, setting};
pub use record::{Layout, Record};

/// What making a guest can fail with: code that has no encoding.
pub type Asm = Result<(), iced_x86::IcedError>;
