//! Why a VM cannot be, or cannot go on.

use std::io;
use std::path::PathBuf;

use board::{BuildError, StartError};
use engine::{EngineError, EngineKind, Unsupported};
use net::NetError;
use rfb::RfbError;
use storage::OpenError;
use vsock::VsockError;
use x86_state::{ProfileError, VcpuId};

use crate::FirmwareError;

/// Why a VM cannot be, or cannot go on. Never the guest's doing.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// A file cannot be used.
    #[error("cannot open {what} {}; {}", path.display(), remedy(source))]
    File {
        /// What it was to be.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the host says.
        source: io::Error,
    },
    /// Something that is there, but no file.
    #[error("{what} {} is not a file", path.display())]
    NotAFile {
        /// What it was to be.
        what: &'static str,
        /// It.
        path: PathBuf,
    },
    /// A disk cannot be used.
    #[error(transparent)]
    Disk(#[from] OpenError),
    /// There is no such image.
    #[error(transparent)]
    Image(#[from] ::images::ImageError),
    /// The guest cannot be told what it is to be told.
    #[error(transparent)]
    Seed(#[from] cloud_seed::SeedError),
    /// Firmware cannot be used.
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    /// What is to come to a running VM is not said as it must be.
    #[error("{0}")]
    Plugged(String),
    /// It cannot come, or go.
    #[error(transparent)]
    Plug(#[from] board::PlugError),
    /// A network cannot be used.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The screen cannot be shown.
    #[error(transparent)]
    Viewers(#[from] RfbError),
    /// There is nothing in a password file.
    #[error("the first line of {} is empty: it is to be the password", .0.display())]
    NoPassword(PathBuf),
    /// The guest's sockets cannot be.
    #[error(transparent)]
    Vsock(#[from] VsockError),
    /// The CPUs cannot be.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The guest cannot be loaded.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A repeatable run on an engine that has none.
    #[error("a deterministic run needs the engine that counts instructions: use --engine emu")]
    NotDeterministic,
    /// A network, which no two runs see alike, in a repeatable one.
    #[error("a deterministic run has no network: say --net none, and no --vsock")]
    DeterministicNet,
    /// More memory than the host will ever have.
    #[error(
        "the VM is to have {asked_mib} MiB of memory, but the host has {has_mib} MiB in all: give it \
         less"
    )]
    HostMemory {
        /// Asked for.
        asked_mib: u64,
        /// RAM and swap.
        has_mib: u64,
    },
    /// The engine is not part of this program.
    #[error("this version has no engine '{0}': use one of {1}")]
    NotBuilt(EngineKind, String),
    /// The engine cannot run this VM here.
    #[error(transparent)]
    Unsupported(Unsupported),
    /// The machine cannot be built.
    #[error(transparent)]
    Machine(#[from] BuildError),
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

/// What to do about a file that cannot be opened.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "check the path",
        io::ErrorKind::PermissionDenied => "change its mode, or run as another user",
        _ => "the host refuses it",
    }
}

impl VmError {
    /// What was asked for cannot be, on any host: a wrong file or number.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::File { .. }
            | Self::NotAFile { .. }
            | Self::Image(_)
            | Self::Seed(_)
            | Self::Disk(_)
            | Self::Vsock(_)
            | Self::Firmware(_)
            | Self::Profile(_)
            | Self::Plugged(_)
            | Self::Plug(_)
            | Self::Start(StartError::Boot(_))
            | Self::NoPassword(_)
            | Self::Viewers(RfbError::Open(_) | RfbError::Listen { .. } | RfbError::InUse(_))
            | Self::NotDeterministic
            | Self::DeterministicNet
            | Self::NotBuilt(..)
            | Self::Machine(
                BuildError::Layout(_) | BuildError::Disks(_) | BuildError::Places { .. },
            ) => true,
            Self::Net(error) => error.is_usage(),
            Self::HostMemory { .. }
            | Self::Viewers(_)
            | Self::Unsupported(_)
            | Self::Machine(_)
            | Self::Start(_)
            | Self::Engine { .. }
            | Self::Vcpu { .. }
            | Self::Thread { .. }
            | Self::NoThread { .. }
            | Self::Host { .. } => false,
        }
    }
}
