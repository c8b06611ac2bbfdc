//! One VM: a board, an engine, and the threads that make them run.
//!
//! ```text
//!                 start                    pause
//!   built ──────────────────► running ───────────────► paused
//!                             │  ▲  ▲ ◄───────────────  │  │
//!                             │  │  │      resume       │  │
//!             reset button,   │  │  └── move (comes back│to where it was)
//!             guest's reset,  └──┘                     └──┘
//!             triple fault                             reset button, move
//!
//!   running, paused ──────────► ended
//!        power-off, debug exit, quit; guest's reset and triple fault when
//!        the VM is not to restart; an engine's failure (as an error)
//! ```
//!
//! *Threads*: one a vCPU (`cpus`), which does as it is told; one that waits for
//! descriptors and machine time ([`Io`]); one that writes console output ([`Output`]); those of
//! the devices' back-ends; and the control thread, the caller of [`Vm::run`], which alone changes
//! run state and engine. Everybody else posts to its [`Inbox`].
//!
//! *Invariants*: the clock runs exactly while the vCPUs may. A move that fails leaves the VM as
//! it was. Nothing the guest does makes a queue here grow.
//!
//! What this crate may not know: HTTP, the store, the terminal.

mod agent;
mod console;
mod cpus;
mod desk;
mod disks;
mod engines;
mod error;
mod firmware;
mod images;
mod inbox;
mod io;
mod launch;
mod moving;
mod networks;
mod output;
mod plugging;
mod proc;
mod spec;
mod viewers;
mod vm;

pub use board::{BootKind, NetModel};
pub use cloud_seed::SeedSpec;
pub use console::Console;
pub use desk::Desk;
pub use disks::{CdromSpec, DiskBus, DiskSpec};
pub use engines::{Chosen, EngineChoice, Engines};
pub use error::VmError;
pub use firmware::{FirmwareError, FirmwareSource, boot_order};
pub use inbox::{Answering, Inbox};
pub use io::{Io, IoThread};
pub use launch::{Launched, launch};
pub use output::Output;
pub use plugging::Plugger;
pub use spec::{ConsoleSpec, ModuleSpec, NetSpec, NetworkSpec, ViewerSpec, VmSpec, VsockSpec};
pub use vm::{OnReset, Outcome, Vm, VmConfig};
pub use x86_state::CpuModel;

/// Name of an engine, on the control socket.
const fn name(kind: engine::EngineKind) -> vmm_rpc::EngineName {
    match kind {
        engine::EngineKind::Hw => vmm_rpc::EngineName::Hw,
        engine::EngineKind::Emu => vmm_rpc::EngineName::Emu,
        engine::EngineKind::Full => vmm_rpc::EngineName::Full,
    }
}

const fn kind(name: vmm_rpc::EngineName) -> engine::EngineKind {
    match name {
        vmm_rpc::EngineName::Hw => engine::EngineKind::Hw,
        vmm_rpc::EngineName::Emu => engine::EngineKind::Emu,
        vmm_rpc::EngineName::Full => engine::EngineKind::Full,
    }
}

#[cfg(test)]
mod fake;
