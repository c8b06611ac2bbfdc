//! How much the objects of a project take together, and may.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Something that is counted, with what it is called and what is to be done where there is no more.
macro_rules! counted {
    ($($field:ident: $what:literal, $doc:literal;)*) => {
        /// How much of each thing.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        pub struct Amounts {
            $(#[doc = $doc] #[serde(default)] pub $field: u64,)*
        }

        /// How much of each thing there may be; without a number, as much as the host has.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        #[serde(deny_unknown_fields)]
        pub struct Quota {
            $(
                #[doc = $doc]
                #[serde(default, skip_serializing_if = "Option::is_none")]
                pub $field: Option<u64>,
            )*
        }

        impl Amounts {
            /// These, with `less` taken away and `more` added.
            #[must_use]
            pub fn changed(self, less: Self, more: Self) -> Self {
                Self { $($field: self.$field.saturating_sub(less.$field).saturating_add(more.$field),)* }
            }

            /// These and those.
            #[must_use]
            pub fn with(self, more: Self) -> Self {
                self.changed(Self::default(), more)
            }
        }

        impl Quota {
            /// What would be too much after a change. What does not grow is let through: a quota that was made
            /// smaller takes nothing away.
            pub fn overrun(&self, before: Amounts, after: Amounts) -> Option<Overrun> {
                $(
                    if let Some(limit) = self.$field.filter(|limit| after.$field > *limit)
                        && after.$field > before.$field
                    {
                        let more = after.$field - before.$field;
                        return Some(Overrun { what: $what, limit, used: before.$field, more });
                    }
                )*
                None
            }
        }
    };
}

counted! {
    vms: "VMs", "VMs, running or not.";
    cpus: "CPUs", "CPUs of all VMs.";
    memory_bytes: "bytes of memory", "RAM of all VMs, in bytes.";
    disk_bytes: "bytes of disks", "Sizes of all disks, in bytes.";
    addresses: "addresses", "Addresses on networks: cards of all VMs.";
    snapshots: "snapshots", "Snapshots of disks.";
}

/// What a quota does not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overrun {
    /// Of what.
    pub what: &'static str,
    /// How much there may be.
    pub limit: u64,
    /// How much there is.
    pub used: u64,
    /// How much more was asked for.
    pub more: u64,
}

impl fmt::Display for Overrun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, limit, used, more } = self;
        write!(f, "{limit} {what}, {used} are taken and {more} more are asked for")
    }
}
