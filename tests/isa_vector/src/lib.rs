//! Single instructions in random states, on the bare CPU and on the interpreter.
//!
//! A [`State`] is what user code can see: registers, flags, x87, SSE and [`DATA_SIZE`] bytes of
//! memory at [`DATA`]. [`Native`] runs the bytes of one instruction on the host from a state, in
//! the process itself: a breakpoint's handler puts the guest's registers into the signal frame,
//! and the next signal (a breakpoint after the instruction, or its fault) takes them out again.
//! [`Emulated`] does the same on [`x86_exec`]. [`forms`] makes instructions of each encoding.
//!
//! What may differ is made equal by the tests before the comparison: what the SDM leaves undefined,
//! and the x87's last-instruction pointers, which AMD's CPUs keep only with a pending exception.

mod emulated;
pub mod forms;
mod native;
mod random;
mod state;

pub use emulated::Emulated;
pub use native::Native;
pub use random::Random;
pub use state::{CODE, DATA, DATA_SIZE, End, State};
