//! What the platform manages, as people and programs see it: VMs, scale sets, networks, security groups, operations,
//! projects and their quotas, users, tokens, SSH keys.
//!
//! Every object has *metadata* (what it is), a *spec* (what its owner wants) and, where something comes of
//! that, a *status* (what is). They are written by different parties and kept apart. The types are those of
//! API v1 and of the store at once: a field may be added, with a default, and none is taken away.
//!
//! *Invariants*: an ID is never used again. A name is unique in its project among objects of its kind that
//! are there. What [`VmSpec::check`] lets through can be tried; whether the host can do it, the status tells.
//!
//! What this crate may not know: where objects are kept, how VMs run, HTTP.

mod disk;
mod ids;
mod name;
mod network;
mod object;
mod operation;
mod project;
mod quota;
mod rights;
mod scale_set;
mod security;
mod snapshot;
mod ssh_key;
mod token;
mod user;
mod vm;

pub use disk::{
    Disk, DiskPhase, DiskSource, DiskSpec, DiskStatus, ImageRef, Pool, Revert, default_pool,
};
pub use ids::{
    DiskId, NetworkId, OperationId, ProjectId, ScaleSetId, SecurityGroupId, SnapshotId, SshKeyId,
    TokenId, UserId, VmId,
};
pub use name::{Name, NameError};
pub use network::{
    Address, BRIDGES, CARDS, CardStatus, GATEWAY, NetworkPhase, NetworkSpec, NetworkStatus, Subnet,
    VirtualNetwork,
};
pub use object::{Kind, Meta, Object, Spec, SpecError};
pub use operation::{Failure, Operation, OperationState, Requestor, Target, Verb};
pub use project::{Project, ProjectStatus};
pub use quota::{Amounts, Overrun, Quota};
pub use rights::{Rights, Role};
pub use scale_set::{
    Autoscale, Membership, ScaleSet, ScaleSetPhase, ScaleSetSpec, ScaleSetStatus,
    check_scale_set_name,
};
pub use security::{
    Cidr, Direction, Peer, Ports, Rule, RuleProtocol, SecurityGroup, SecurityGroupSpec,
    SecurityGroupStatus,
};
pub use snapshot::{Consistency, Snapshot, SnapshotPhase, SnapshotSpec, SnapshotStatus};
pub use ssh_key::{SshKey, SshKeySpec, SshKeyStatus};
pub use token::Token;
pub use user::{Provided, User};
pub use vm::{
    Boot, Cage, Card, CardModel, CloudInit, Display, Engine, Firmware, Forward, KernelBoot, Labels,
    Network, OnEnd, Phase, Power, Protocol, Vm, VmEnd, VmMeta, VmSpec, VmStatus,
};

#[cfg(test)]
mod tests;
