//! What runs VMs, as seen from here.

use std::collections::BTreeMap;

use model::{Cage, Engine, NetworkId, Vm, VmEnd, VmId};

use crate::WantedNetworks;

/// A host. None of its methods waits for a guest: what they begin is seen in [`Host::see`].
pub trait Host: Send + Sync {
    /// All there is, of whatever VMs.
    ///
    /// # Errors
    /// When the host cannot tell.
    fn see(&self) -> Result<Vec<Seen>, HostError>;

    /// Begins to make what the VM needs before its first start. Done again it goes on, or begins anew.
    ///
    /// # Errors
    /// When the host refuses.
    fn prepare(&self, vm: &Vm) -> Result<(), HostError>;

    /// Begins to run a VM that is ready and does not run. That it cannot run is seen as its end.
    ///
    /// # Errors
    /// When the host refuses.
    fn start(&self, vm: &Vm) -> Result<(), HostError>;

    /// Makes a VM's CPUs and clock stand.
    ///
    /// # Errors
    /// When it does not run, or the host refuses.
    fn pause(&self, vm: VmId) -> Result<(), HostError>;

    /// Lets it go on.
    ///
    /// # Errors
    /// When it does not run, or the host refuses.
    fn resume(&self, vm: VmId) -> Result<(), HostError>;

    /// Asks the guest to shut down.
    ///
    /// # Errors
    /// When it does not run, or the host refuses.
    fn press_power_button(&self, vm: VmId) -> Result<(), HostError>;

    /// Ends a VM at once.
    ///
    /// # Errors
    /// When the host refuses.
    fn end(&self, vm: VmId) -> Result<(), HostError>;

    /// Makes the networks that are wanted, and takes away all others of ours. What of each is wrong, if anything;
    /// what cannot be is tried again with the next call.
    ///
    /// # Errors
    /// When the host cannot tell.
    fn network(
        &self,
        wanted: &WantedNetworks,
    ) -> Result<BTreeMap<NetworkId, Result<(), String>>, HostError>;

    /// Begins to take away all there is of a VM that does not run.
    ///
    /// # Errors
    /// When the host refuses.
    fn remove(&self, vm: VmId) -> Result<(), HostError>;
}

/// Why a host does not do it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct HostError(pub String);

/// What there is of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Which.
    pub id: VmId,
    /// What it starts with.
    pub disk: Disk,
    /// What runs it.
    pub process: Process,
}

/// How far what a VM needs is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disk {
    /// Nothing is made, nor being made.
    None,
    /// It is being made; so much of 100 is done.
    Making(u8),
    /// It could not be made for this boot: why.
    Failed(u64, String),
    /// It is there.
    Ready,
}

/// How what runs a VM is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Process {
    /// There was none yet.
    None,
    /// It is there and says nothing yet.
    Starting {
        /// Which start it is.
        boot: u64,
        /// Its process ID, if that is known.
        pid: Option<u32>,
    },
    /// The guest is in it.
    Live {
        /// Which start it is.
        boot: u64,
        /// Its process ID.
        pid: u32,
        /// The engine.
        engine: Engine,
        /// Why that one.
        engine_reason: String,
        /// What keeps it to its own files.
        cage: Cage,
        /// CPUs and clock stand.
        is_paused: bool,
    },
    /// It has ended.
    Ended(VmEnd),
}
