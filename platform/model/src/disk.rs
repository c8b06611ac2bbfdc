//! Disks, and the pools they are in.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::object::{object, refuse};
use crate::vm::check_labels;
use crate::{Amounts, DiskId, Labels, Meta, Name, SnapshotId, Spec, SpecError};

object! {
    /// A disk.
    Disk: Disk, DiskId, DiskSpec, DiskStatus
}

/// What is wanted of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskSpec {
    /// Its size in bytes: whole sectors of 512. It can only grow.
    #[schema(minimum = 512)]
    pub size_bytes: u64,
    /// What it is made of; without that it is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<DiskSource>,
    /// Where it is.
    #[serde(default = "default_pool")]
    #[schema(default = "default")]
    pub pool: Name,
    /// It is deleted with the VM it is attached to.
    #[serde(default)]
    pub delete_with_vm: bool,
    /// The VM it is attached to, or is to be: see attach and detach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(read_only)]
    pub vm: Option<Name>,
    /// The last revert that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(read_only)]
    pub revert: Option<Revert>,
    /// What its owner notes down.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
}

/// Of what a disk is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DiskSource {
    /// An image, which it has in common with others until it is written to.
    Image(ImageRef),
    /// A disk that was sent, by the name under which it waits.
    Upload(ImageRef),
}

/// An image, as it was when somebody meant it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageRef {
    /// What it was called.
    pub name: String,
    /// What it is: a digest of its bytes.
    pub id: String,
}

impl DiskSource {
    /// The image in it.
    pub fn image(&self) -> &ImageRef {
        match self {
            Self::Image(image) | Self::Upload(image) => image,
        }
    }
}

/// A revert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Revert {
    /// To what.
    pub to: SnapshotId,
    /// Which revert of this disk it is: counted up.
    pub number: u64,
}

/// The pool that is there from the beginning.
pub fn default_pool() -> Name {
    Name::try_from("default".to_owned()).unwrap_or_else(|_| unreachable!("it is a name"))
}

/// The largest disk: as much as a layer's tables have room for.
const SIZE_MAX: u64 = 2 << 40;

impl Spec for DiskSpec {
    fn check(&self) -> Result<(), SpecError> {
        if !(512..=SIZE_MAX).contains(&self.size_bytes) || !self.size_bytes.is_multiple_of(512) {
            return refuse("size_bytes", "a disk has 512 bytes to 2 TiB, a multiple of 512");
        }
        check_labels(&self.labels)
    }

    fn fixed_field(&self, new: &Self) -> Option<&'static str> {
        let fields = [
            ("spec.source", self.source == new.source),
            ("spec.pool", self.pool == new.pool),
            ("spec.vm (use attach and detach)", self.vm == new.vm),
            ("spec.revert (use a snapshot's revert)", self.revert == new.revert),
            ("spec.size_bytes (use resize)", self.size_bytes == new.size_bytes),
        ];
        fields.iter().find(|(_, is_same)| !is_same).map(|(field, _)| *field)
    }

    fn takes(&self) -> Amounts {
        Amounts { disk_bytes: self.size_bytes, ..Amounts::default() }
    }
}

/// How a disk is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiskStatus {
    /// In one word.
    pub phase: DiskPhase,
    /// Why, for people, where the word does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How much of it is made, of 100, while it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
    /// Its size.
    #[serde(default)]
    pub size_bytes: u64,
    /// Bytes it takes on the host, with its snapshots and without what it has in common with its image.
    #[serde(default)]
    pub used_bytes: u64,
    /// The VM that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<Name>,
    /// Reverts that are done.
    #[serde(default)]
    pub reverts: u64,
    /// When something that the host refused is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub retry_at: Option<Timestamp>,
}

/// How a disk is, in one word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DiskPhase {
    /// Nothing has been done for it yet.
    #[default]
    Pending,
    /// It is being made.
    Preparing,
    /// It can be used.
    Ready,
    /// It cannot be made.
    Failed,
    /// It is going away.
    Deleting,
}

impl DiskPhase {
    /// Its name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Preparing => "preparing",
            Self::Ready => "ready",
            Self::Failed => "failed",
            Self::Deleting => "deleting",
        }
    }
}

/// A pool: a folder of a host in which disks are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pool {
    /// What it is called.
    pub name: Name,
    /// The folder: an absolute path of the host. The default pool is in the daemon's home.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// How large all its disks together may be; without it, as the medium lets them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_bytes: Option<u64>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
}

impl Pool {
    /// # Errors
    /// When it cannot be used.
    pub fn check(&self) -> Result<(), SpecError> {
        let is_path = |path: &String| path.starts_with('/') && !path.contains([',', '\0', '\n']);
        if !self.path.as_ref().is_none_or(is_path) {
            return refuse("path", "give an absolute path of the host, without ','");
        }
        Ok(())
    }
}
