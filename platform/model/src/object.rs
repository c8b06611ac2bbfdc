//! What all objects have in common that somebody wants and that come to be.

use std::fmt::{self, Display};
use std::str::FromStr;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{Amounts, Name};

/// Of what kind something is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A VM.
    Vm,
    /// A disk.
    Disk,
    /// A snapshot of disks.
    Snapshot,
    /// An image.
    Image,
    /// An operation.
    Operation,
    /// A project.
    Project,
    /// A network.
    Network,
    /// A security group.
    SecurityGroup,
    /// A scale set.
    ScaleSet,
    /// A public key for SSH.
    SshKey,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Vm,
        Self::Disk,
        Self::Snapshot,
        Self::Image,
        Self::Operation,
        Self::Project,
        Self::Network,
        Self::SecurityGroup,
        Self::ScaleSet,
        Self::SshKey,
    ];

    /// What people call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vm => "VM",
            Self::Disk => "disk",
            Self::Snapshot => "snapshot",
            Self::Image => "image",
            Self::Operation => "operation",
            Self::Project => "project",
            Self::Network => "network",
            Self::SecurityGroup => "security group",
            Self::ScaleSet => "scale set",
            Self::SshKey => "SSH key",
        }
    }

    /// What all of the kind are called, in paths of the API and in keys of the store.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Vm => "vms",
            Self::Disk => "disks",
            Self::Snapshot => "snapshots",
            Self::Image => "images",
            Self::Operation => "operations",
            Self::Project => "projects",
            Self::Network => "networks",
            Self::SecurityGroup => "security-groups",
            Self::ScaleSet => "scale-sets",
            Self::SshKey => "ssh-keys",
        }
    }
}

impl Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What an object is, whatever its kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Meta<Id> {
    /// Its ID.
    pub id: Id,
    /// What it is called.
    pub name: Name,
    /// Its project.
    pub project: Name,
    /// When it was asked for.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// It is going away.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleting: bool,
}

/// What an object's owner wants.
pub trait Spec: Clone + PartialEq + Send + Sync + Serialize + DeserializeOwned + 'static {
    /// # Errors
    /// When no host can do it.
    fn check(&self) -> Result<(), SpecError>;

    /// The field of `new` that cannot be changed to what it is there, if there is one.
    fn fixed_field(&self, new: &Self) -> Option<&'static str>;

    /// What of its project's quota it takes.
    fn takes(&self) -> Amounts {
        Amounts::default()
    }
}

/// Why a spec is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct SpecError {
    /// Which field.
    pub field: &'static str,
    /// What to do.
    pub message: String,
}

pub(crate) fn refuse<T>(field: &'static str, message: impl Into<String>) -> Result<T, SpecError> {
    Err(SpecError { field, message: message.into() })
}

/// An object with a spec and a status, in a project.
pub trait Object: Clone + Send + Sync + Serialize + DeserializeOwned + 'static {
    /// Its kind.
    const KIND: Kind;
    /// What it is, whatever it is called.
    type Id: Copy
        + Ord
        + Display
        + FromStr
        + Into<Uuid>
        + Default
        + Send
        + Sync
        + Serialize
        + DeserializeOwned
        + 'static;
    /// What is wanted.
    type Spec: Spec;
    /// What is.
    type Status: Clone + PartialEq + Default + Send + Sync + Serialize + DeserializeOwned + 'static;

    /// One of these parts.
    fn of(meta: Meta<Self::Id>, spec: Self::Spec, status: Self::Status) -> Self;
    /// What it is.
    fn meta(&self) -> &Meta<Self::Id>;
    /// What is wanted.
    fn spec(&self) -> &Self::Spec;
    /// What is.
    fn status(&self) -> &Self::Status;
}

/// An object's type: all of a kind that the rest of the platform must be told.
macro_rules! object {
    ($(#[$doc:meta])* $name:ident: $kind:ident, $id:ty, $spec:ty, $status:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        pub struct $name {
            /// What it is.
            #[serde(flatten)]
            pub meta: Meta<$id>,
            /// What is wanted.
            pub spec: $spec,
            /// What is.
            pub status: $status,
        }

        impl $crate::Object for $name {
            const KIND: $crate::Kind = $crate::Kind::$kind;
            type Id = $id;
            type Spec = $spec;
            type Status = $status;

            fn of(meta: $crate::Meta<$id>, spec: $spec, status: $status) -> Self {
                Self { meta, spec, status }
            }

            fn meta(&self) -> &$crate::Meta<$id> {
                &self.meta
            }

            fn spec(&self) -> &$spec {
                &self.spec
            }

            fn status(&self) -> &$status {
                &self.status
            }
        }
    };
}

pub(crate) use object;
