//! Scale sets: as many VMs of one template as are wanted, or as their load asks for.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::object::{object, refuse};
use crate::vm::check_labels;
use crate::{Labels, Meta, Name, Network, Power, ScaleSetId, Spec, SpecError, VmSpec};

/// VMs of a set at most.
const SIZE_MAX: u32 = 1000;
/// A VM's name is the set's, a dash and a number.
const NAME_LEN_MAX: usize = 50;

object! {
    /// A scale set.
    ScaleSet: ScaleSet, ScaleSetId, ScaleSetSpec, ScaleSetStatus
}

/// What is wanted of a scale set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScaleSetSpec {
    /// What its VMs are. Those made of an earlier one are replaced, some at a time.
    pub template: VmSpec,
    /// How many VMs. With `autoscale`, how many at first.
    #[serde(default)]
    #[schema(maximum = 1000)]
    pub size: u32,
    /// Let their load decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscale: Option<Autoscale>,
    /// How many are replaced at a time.
    #[serde(default = "one")]
    #[schema(minimum = 1)]
    pub replace_at_once: u32,
    /// What its owner notes down.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
}

/// How many VMs there are for how much load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Autoscale {
    /// Never fewer.
    #[schema(minimum = 1)]
    pub min: u32,
    /// Never more.
    #[schema(maximum = 1000)]
    pub max: u32,
    /// What VMs shall use of their CPUs, on average, in percent.
    #[schema(minimum = 1, maximum = 100)]
    pub cpu_percent: u32,
    /// How long a change is left alone before there is another, in seconds.
    #[serde(default = "five_minutes")]
    #[schema(minimum = 1, maximum = 86400)]
    pub cool_down_s: u32,
}

fn one() -> u32 {
    1
}

fn five_minutes() -> u32 {
    300
}

impl ScaleSetSpec {
    /// How many VMs there are to be, if the load's word on it is `wanted`.
    pub fn size_of(&self, wanted: Option<u32>) -> u32 {
        match &self.autoscale {
            None => self.size,
            Some(scale) => wanted.unwrap_or(self.size).clamp(scale.min, scale.max),
        }
    }

    fn check_template(&self) -> Result<(), SpecError> {
        let template = &self.template;
        template.check()?;
        if !template.disks.is_empty() {
            return refuse("template.disks", "VMs of a set share no disk: name an image");
        }
        if template.power != Power::On {
            return refuse("template.power", "VMs of a set run: set the size to 0 for none");
        }
        if template.protected {
            return refuse("template.protected", "VMs of a set come and go");
        }
        let has_ports = template.networks.iter().any(|card| !card.ports.is_empty());
        let forwards = matches!(&template.network, Network::User(ports) if !ports.is_empty());
        if has_ports || forwards {
            return refuse("template", "a port of the host leads to one VM: publish none");
        }
        if template.networks.iter().any(|card| card.address.is_some()) {
            return refuse("template.networks", "an address is one VM's: give none");
        }
        Ok(())
    }
}

impl Spec for ScaleSetSpec {
    fn check(&self) -> Result<(), SpecError> {
        self.check_template()?;
        if self.size > SIZE_MAX {
            return refuse("size", "1000 VMs are the limit");
        }
        if self.replace_at_once == 0 {
            return refuse("replace_at_once", "give 1 or more");
        }
        if let Some(scale) = &self.autoscale {
            if scale.min == 0 || scale.min > scale.max || scale.max > SIZE_MAX {
                return refuse("autoscale", "give bounds with 1 <= min <= max <= 1000");
            }
            if !(1..=100).contains(&scale.cpu_percent) {
                return refuse("autoscale.cpu_percent", "give 1 to 100");
            }
            if !(1..=86400).contains(&scale.cool_down_s) {
                return refuse("autoscale.cool_down_s", "give 1 second to a day");
            }
        }
        check_labels(&self.labels)
    }

    fn fixed_field(&self, _new: &Self) -> Option<&'static str> {
        None
    }
}

/// How a scale set is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScaleSetStatus {
    /// In one word.
    pub phase: ScaleSetPhase,
    /// Why, for people, where the word does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How many VMs there are to be now.
    #[serde(default)]
    pub wanted: u32,
    /// VMs that there are, also those that go.
    #[serde(default)]
    pub vms: u32,
    /// VMs that run.
    #[serde(default)]
    pub running: u32,
    /// VMs of the template as it is.
    #[serde(default)]
    pub current: u32,
    /// What they use of their CPUs, on average, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<u32>,
    /// When their load last changed how many there are to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub scaled: Option<Timestamp>,
}

/// How a scale set is, in one word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ScaleSetPhase {
    /// VMs come or go.
    #[default]
    Changing,
    /// It is as wanted.
    Ready,
    /// Some of its VMs cannot be made or do not run.
    Failed,
    /// It is going away.
    Deleting,
}

impl ScaleSetPhase {
    /// Its name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Changing => "changing",
            Self::Ready => "ready",
            Self::Failed => "failed",
            Self::Deleting => "deleting",
        }
    }
}

/// Of which set a VM is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    /// The set.
    pub name: Name,
    /// Which template it was made of: a digest.
    pub template: String,
}

/// Why a set cannot have this name.
///
/// # Errors
/// When the names of its VMs would be too long.
pub fn check_scale_set_name(name: &Name) -> Result<(), SpecError> {
    if AsRef::<str>::as_ref(name).len() > NAME_LEN_MAX {
        return refuse("name", "50 letters are the limit of a scale set's name");
    }
    Ok(())
}
