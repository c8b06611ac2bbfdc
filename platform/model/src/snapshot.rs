//! Snapshots of disks.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::object::{object, refuse};
use crate::vm::check_labels;
use crate::{Amounts, DiskId, Labels, Meta, Name, SnapshotId, Spec, SpecError};

object! {
    /// A snapshot: what disks were at one moment.
    Snapshot: Snapshot, SnapshotId, SnapshotSpec, SnapshotStatus
}

/// What is wanted of a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotSpec {
    /// Of which disks; of all that the VM has, if none is named.
    #[serde(default)]
    pub disks: Vec<Name>,
    /// What these disks are, whatever is called so later.
    #[serde(default)]
    #[schema(read_only)]
    pub disk_ids: Vec<DiskId>,
    /// The VM whose disks they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<Name>,
    /// What its owner notes down.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
}

impl Spec for SnapshotSpec {
    fn check(&self) -> Result<(), SpecError> {
        if self.disks.is_empty() {
            return refuse("disks", "name a disk, or a VM that has one");
        }
        if self.disks.len() > DISKS_MAX {
            return refuse("disks", "32 disks are the limit");
        }
        check_labels(&self.labels)
    }

    fn fixed_field(&self, new: &Self) -> Option<&'static str> {
        let is_same = self.disks == new.disks && self.disk_ids == new.disk_ids && self.vm == new.vm;
        (!is_same).then_some("spec.disks")
    }

    fn takes(&self) -> Amounts {
        Amounts { snapshots: 1, ..Amounts::default() }
    }
}

/// A VM has no more.
pub(crate) const DISKS_MAX: usize = 32;

/// How a snapshot is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotStatus {
    /// In one word.
    pub phase: SnapshotPhase,
    /// Why, for people, where the word does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How far the guest was when it was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consistency: Option<Consistency>,
    /// How large the disks were, together.
    #[serde(default)]
    pub size_bytes: u64,
}

/// How a snapshot is, in one word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotPhase {
    /// It is being taken.
    #[default]
    Pending,
    /// It is there.
    Ready,
    /// It is going away.
    Deleting,
}

impl SnapshotPhase {
    /// Its name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Ready => "ready",
            Self::Deleting => "deleting",
        }
    }
}

/// In what state a guest's file systems are in a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Consistency {
    /// Nobody was using them.
    Stopped,
    /// At rest: the guest's agent has seen to that.
    Filesystem,
    /// As after a power cut.
    Crash,
}
