//! Why a change is refused.

use std::net::IpAddr;

use ipnet::IpNet;
use model::{Meta, Name, Object, OperationId, Overrun, SpecError};
use store::StoreError;

/// Why a change is refused.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// There is none.
    #[error("there is no {kind} '{name}'")]
    Missing {
        /// Of what.
        kind: &'static str,
        /// What was looked for.
        name: String,
    },
    /// There is one.
    #[error("there is a {kind} '{name}' already: choose another name")]
    Exists {
        /// Of what.
        kind: &'static str,
        /// Its name.
        name: Name,
    },
    /// Somebody else was faster.
    #[error("the object has changed since it was read: read it again, and decide anew")]
    Changed,
    /// The spec cannot be.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A field that is decided when an object is made.
    #[error("{0} cannot be changed: make another one")]
    Fixed(&'static str),
    /// It is not to be deleted.
    #[error("VM '{0}' is protected: set spec.protected to false first")]
    Protected(Name),
    /// It runs.
    #[error("VM '{0}' is running: stop it first, or delete it with force")]
    Running(Name),
    /// It does not run.
    #[error("VM '{0}' is not running: start it first")]
    NotRunning(Name),
    /// It is going away.
    #[error("{kind} '{name}' is being deleted")]
    Deleting {
        /// Of what.
        kind: &'static str,
        /// Its name.
        name: Name,
    },
    /// Others need it.
    #[error("{kind} '{name}' is used by {by}: change or delete that first")]
    InUse {
        /// Of what.
        kind: &'static str,
        /// Which.
        name: Name,
        /// By whom.
        by: String,
    },
    /// There is no address left.
    #[error("network '{0}' has no free address: delete VMs, or make a larger network")]
    NetworkFull(Name),
    /// Somebody has it.
    #[error("the address {0} is another VM's: give another one, or none for any that is free")]
    AddressTaken(IpAddr),
    /// It is not the network's.
    #[error("the address {0} is not one of the network's for guests")]
    AddressOutside(IpAddr),
    /// Somebody has it.
    #[error("port {port} of the host leads to VM '{by}' already: give another one")]
    PortTaken {
        /// Which.
        port: u16,
        /// Whose.
        by: Name,
    },
    /// They are others'.
    #[error(
        "addresses of {0} are in use by another network or on the host: give others, or 'auto'"
    )]
    SubnetTaken(IpNet),
    /// All are taken.
    #[error("no subnet is free to be chosen: give one")]
    NoSubnet,
    /// A VM has it.
    #[error("disk '{disk}' is attached to VM '{vm}': detach it first")]
    Attached {
        /// Which disk.
        disk: Name,
        /// Which VM.
        vm: Name,
    },
    /// No VM has it.
    #[error("disk '{0}' is not attached to any VM")]
    NotAttached(Name),
    /// There are snapshots of it.
    #[error(
        "there is a snapshot '{snapshot}' of disk '{disk}': delete that first, or both with force"
    )]
    HasSnapshots {
        /// Which disk.
        disk: Name,
        /// One of them.
        snapshot: Name,
    },
    /// Disks only grow.
    #[error("disk '{disk}' has {size_bytes} bytes: it can only grow")]
    Shrink {
        /// Which disk.
        disk: Name,
        /// Its size.
        size_bytes: u64,
    },
    /// The pool has no room.
    #[error(
        "pool '{pool}' has {left_bytes} bytes left of its quota, and {more_bytes} are asked for: delete disks, or \
         let an administrator raise the quota"
    )]
    Quota {
        /// Which pool.
        pool: Name,
        /// What is asked for.
        more_bytes: u64,
        /// What is left.
        left_bytes: u64,
    },
    /// The project has no room.
    #[error(
        "project '{project}' may have {overrun}: delete some, or let an administrator raise its quota"
    )]
    ProjectQuota {
        /// Which project.
        project: Name,
        /// Of what.
        overrun: Overrun,
    },
    /// There are disks in it, or it must be there.
    #[error("pool '{0}' has disks, or is the default one: it cannot be deleted")]
    PoolInUse(Name),
    /// There is nothing to take a snapshot of.
    #[error("VM '{0}' has no disks")]
    NoDisks(Name),
    /// Disks that do not belong together.
    #[error("disk '{disk}' is not one of VM '{vm}': a snapshot is of disks of one VM")]
    ApartFrom {
        /// Which disk.
        disk: Name,
        /// Of which VM the others are.
        vm: Name,
    },
    /// A snapshot that is not there yet.
    #[error("snapshot '{0}' is not taken yet: wait for it")]
    NotTaken(Name),
    /// Its disk is in use.
    #[error("VM '{0}' runs with a disk of the snapshot: stop it first")]
    RunningDisk(Name),
    /// There is something in it.
    #[error("project '{0}' is not empty: delete what is in it first")]
    NotEmpty(Name),
    /// It is over, or past turning back.
    #[error("operation {0} cannot be cancelled any more")]
    NotCancellable(OperationId),
    /// The store fails.
    #[error("the store fails")]
    Store(#[from] StoreError),
    /// What is in the store is not what was written.
    #[error("'{key}' in the store is damaged, or of a newer version")]
    Damaged {
        /// Where.
        key: String,
        /// How.
        source: serde_json::Error,
    },
}

impl RegistryError {
    pub(crate) fn deleting<O: Object>(meta: &Meta<O::Id>) -> Self {
        Self::Deleting { kind: O::KIND.as_str(), name: meta.name.clone() }
    }
}
