//! Why a VM cannot be, or cannot go on.

use std::io;

use board::BuildError;
use engine::{EngineError, EngineKind, Unsupported};
use x86_state::VcpuId;

/// Why a VM cannot be, or cannot go on. Never the guest's doing.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// The engine is not part of this program.
    #[error("this version has no engine '{0}': use one of {1}")]
    NotBuilt(EngineKind, String),
    /// The engine cannot run this VM here.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// The machine cannot be built.
    #[error("the machine cannot be built")]
    Machine(#[source] BuildError),
    /// The engine cannot be brought up, or failed outside a vCPU.
    #[error("engine {engine} fails")]
    Engine {
        /// Which.
        engine: EngineKind,
        /// Why.
        source: EngineError,
    },
    /// The engine failed in a vCPU.
    #[error("vCPU {} fails", vcpu.0)]
    Vcpu {
        /// Which.
        vcpu: VcpuId,
        /// Why.
        source: EngineError,
    },
    /// A vCPU's thread has died: our mistake.
    #[error("the thread of vCPU {} has died: this is a bug of this program", vcpu.0)]
    Thread {
        /// Whose.
        vcpu: VcpuId,
    },
    /// The host has no thread left.
    #[error("the host refuses a thread for {name}: raise the limit on processes (ulimit -u)")]
    NoThread {
        /// What for.
        name: &'static str,
        /// What the host says.
        source: io::Error,
    },
    /// The host refuses something the I/O thread needs.
    #[error("the host refuses to {operation}")]
    Host {
        /// What was tried.
        operation: &'static str,
        /// What it says.
        source: io::Error,
    },
}
