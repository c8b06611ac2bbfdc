//! What can go wrong in an engine.

use crate::EngineKind;

/// The engine cannot run a profile on this host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("engine {engine} cannot run this VM here: {reason}; {remedy}")]
pub struct Unsupported {
    /// The engine.
    pub engine: EngineKind,
    /// What is missing.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

/// The engine or the host has failed. Never the guest's doing.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The profile cannot run here.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// The host refuses an operation.
    #[error("the host refuses to {operation}")]
    Host {
        /// What was tried.
        operation: &'static str,
        /// What it says.
        source: std::io::Error,
    },
    /// State that no CPU of this profile can have.
    #[error("vCPU state is impossible: {0}")]
    State(String),
    /// The host's kernel cannot go on with the guest.
    #[error("the vCPU cannot go on: {0}")]
    Stuck(String),
}
