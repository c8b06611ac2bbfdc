//! Security groups: what VMs may send and be sent.

use std::fmt;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::object::{object, refuse};
use crate::vm::check_labels;
use crate::{Labels, Meta, Name, SecurityGroupId, Spec, SpecError};

const RULES_MAX: usize = 256;

object! {
    /// A security group. What no rule of a card's groups lets through is refused; answers are let through.
    SecurityGroup: SecurityGroup, SecurityGroupId, SecurityGroupSpec, SecurityGroupStatus
}

/// Who is in a security group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecurityGroupStatus {
    /// Cards of VMs that it holds for.
    #[serde(default)]
    pub cards: u32,
}

/// What is wanted of a security group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecurityGroupSpec {
    /// What is let through. Without any, nothing is.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// What its owner notes down.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
}

/// What is let through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// To the VM, or from it.
    pub direction: Direction,
    /// What.
    #[serde(default)]
    pub protocol: RuleProtocol,
    /// To which ports, of TCP or UDP: `80`, `8000-8999`; without it, to all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "8000-8999")]
    pub ports: Option<Ports>,
    /// From or to whom.
    #[serde(default)]
    pub peer: Peer,
}

/// To the VM, or from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// To the VM.
    In,
    /// From the VM.
    Out,
}

/// What a rule is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RuleProtocol {
    /// Everything.
    #[default]
    Any,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP and ICMPv6.
    Icmp,
}

/// Whom a rule is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Peer {
    /// Everybody.
    #[default]
    Anybody,
    /// Who has one of these addresses: `192.0.2.0/24`.
    Cidr(Cidr),
    /// VMs of this security group.
    Group(Name),
}

/// Addresses that begin alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String, example = "192.0.2.0/24")]
pub struct Cidr(pub IpNet);

/// Ports from the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => self.first.fmt(f),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let ports = first.parse().ok().zip(last.parse().ok());
        let ports = ports.map(|(first, last)| Self { first, last });
        let bad = || format!("'{text}' is no port and no range of them: 80, 8000-8999");
        ports.filter(|ports| ports.first > 0 && ports.first <= ports.last).ok_or_else(bad)
    }
}

impl Serialize for Ports {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Ports {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl SecurityGroupSpec {
    /// What the group of this name has that is there from the beginning: its VMs may send anything to
    /// everybody, and are sent what others of the group send.
    pub fn first(name: &Name) -> Self {
        let rule =
            |direction, peer| Rule { direction, protocol: RuleProtocol::Any, ports: None, peer };
        let rules = vec![
            rule(Direction::Out, Peer::Anybody),
            rule(Direction::In, Peer::Group(name.clone())),
        ];
        Self { rules, labels: Labels::new() }
    }
}

impl Spec for SecurityGroupSpec {
    fn check(&self) -> Result<(), SpecError> {
        if self.rules.len() > RULES_MAX {
            return refuse("rules", "256 rules are the limit");
        }
        let has_ports =
            |rule: &Rule| matches!(rule.protocol, RuleProtocol::Tcp | RuleProtocol::Udp);
        if self.rules.iter().any(|rule| rule.ports.is_some() && !has_ports(rule)) {
            return refuse("rules", "ports are those of the protocols tcp and udp: name one");
        }
        check_labels(&self.labels)
    }

    fn fixed_field(&self, _: &Self) -> Option<&'static str> {
        None
    }
}
