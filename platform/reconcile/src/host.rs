//! What runs VMs, as seen from here.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    Cage, Disk, DiskId, Engine, Name, NetworkId, Pool, Revert, Snapshot, SnapshotId, Vm, VmEnd,
    VmId,
};

use crate::{Offer, SeenDisk, WantedNetworks};

/// A host. None of its methods waits for a guest: what they begin is seen in [`Host::see`].
pub trait Host: Send + Sync {
    /// Which hosts there are behind this one, and what they have for VMs.
    ///
    /// # Errors
    /// When the host cannot tell.
    fn offers(&self) -> Result<Vec<Offer>, HostError>;

    /// All there is, of whatever VMs; or what there is of these.
    ///
    /// # Errors
    /// When the host cannot tell.
    fn see(&self, of: Option<&BTreeSet<VmId>>) -> Result<Vec<Seen>, HostError>;

    /// Begins to run a VM that does not run, on the host that its status names, with these disks, which are ready. That it cannot run is seen as its
    /// end.
    ///
    /// # Errors
    /// When the host refuses.
    fn start(&self, vm: &Vm, disks: &[Disk]) -> Result<(), HostError>;

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

    /// Gives a running VM CPUs, and RAM, so that it has so many, and so much, in all.
    ///
    /// # Errors
    /// When it does not run, or the host refuses.
    fn grow(&self, vm: &Vm, cpus: Option<u32>, memory_bytes: Option<u64>) -> Result<(), HostError>;

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

    /// All disks there are in these pools; or those of them that are there.
    ///
    /// # Errors
    /// When the host cannot tell.
    fn see_disks(
        &self,
        pools: &[Pool],
        of: Option<&BTreeSet<DiskId>>,
    ) -> Result<Vec<SeenDisk>, HostError>;

    /// Begins to make a disk. Done again it goes on, or begins anew.
    ///
    /// # Errors
    /// When the host refuses.
    fn make_disk(&self, disk: &Disk) -> Result<(), HostError>;

    /// Makes a disk larger, which this VM runs with.
    ///
    /// # Errors
    /// When the host refuses.
    fn grow_disk(&self, disk: &Disk, vm: Option<VmId>) -> Result<(), HostError>;

    /// Begins to take a snapshot of these disks, with which this VM runs, or stands.
    ///
    /// # Errors
    /// When the host refuses.
    fn take_snapshot(
        &self,
        snapshot: &Snapshot,
        disks: &[Disk],
        vm: Option<(VmId, bool)>,
    ) -> Result<(), HostError>;

    /// Makes a disk that nobody uses what it was. What is done already is not done again.
    ///
    /// # Errors
    /// When the host refuses.
    fn revert_disk(&self, disk: &Disk, revert: &Revert) -> Result<(), HostError>;

    /// Forgets all snapshots of a disk but these, and begins to give back what they took.
    ///
    /// # Errors
    /// When the host refuses.
    fn tidy_disk(&self, disk: &Disk, keep: &[SnapshotId]) -> Result<(), HostError>;

    /// Takes away all there is of a disk that nobody uses.
    ///
    /// # Errors
    /// When the host refuses.
    fn remove_disk(&self, disk: DiskId) -> Result<(), HostError>;

    /// Gives a running VM a disk.
    ///
    /// # Errors
    /// When the host refuses.
    fn attach(&self, vm: VmId, disk: &Disk) -> Result<(), HostError>;

    /// Asks the guest of a running VM to let a disk go.
    ///
    /// # Errors
    /// When the host refuses.
    fn detach(&self, vm: VmId, disk: &Name) -> Result<(), HostError>;
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
    /// What runs it.
    pub process: Process,
}

/// The CPUs and RAM of a VM that runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// CPUs that its guest has.
    pub cpus: u32,
    /// CPUs that it can have before its next start.
    pub cpus_max: u32,
    /// RAM that its guest has, in bytes.
    pub memory_bytes: u64,
    /// RAM that it can have before its next start, in bytes.
    pub memory_max_bytes: u64,
    /// RAM comes in steps of so many bytes.
    pub memory_step_bytes: u64,
}

impl Size {
    /// The RAM that it gets when so much is wanted: whole steps, and not less than there is.
    pub fn memory_for(&self, wanted_bytes: u64) -> u64 {
        let more = wanted_bytes.saturating_sub(self.memory_bytes);
        let steps = more.checked_next_multiple_of(self.memory_step_bytes).unwrap_or(more);
        self.memory_bytes.saturating_add(steps).min(self.memory_max_bytes.max(self.memory_bytes))
    }
}

/// How far what a VM starts with is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It is being made; so much of 100 is done.
    Making(u8),
    /// It cannot be made: why.
    Failed(String),
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
        /// The CPUs and RAM that it has, and can have.
        size: Size,
        /// The disks that the guest has.
        disks: Vec<Name>,
    },
    /// It has ended.
    Ended(VmEnd),
}
