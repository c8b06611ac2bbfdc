//! IDs: one type a kind, so that none stands in another's place.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

macro_rules! id {
    ($name:ident, $what:literal) => {
        #[doc = concat!("What ", $what, " is, whatever it is called: a UUID, ordered by the time it was made.")]
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
        )]
        #[serde(transparent)]
        #[schema(value_type = Uuid)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new one.
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new()
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

id!(VmId, "a VM");
id!(DiskId, "a disk");
id!(SnapshotId, "a snapshot");
id!(OperationId, "an operation");
id!(ProjectId, "a project");
id!(TokenId, "a token");
id!(UserId, "a user");
id!(SshKeyId, "an SSH key");
id!(NetworkId, "a network");
id!(SecurityGroupId, "a security group");
id!(ScaleSetId, "a scale set");
