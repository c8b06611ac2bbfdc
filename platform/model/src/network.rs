//! Networks that VMs share: a bridge of the host, with addresses, names and a way out.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{Ipv4Net, Ipv6Net};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::object::{object, refuse};
use crate::{Labels, Meta, Name, NetworkId, Spec, SpecError, VmId};

object! {
    /// A network. Names of those on it are in the domain `NAME.internal`.
    VirtualNetwork: Network, NetworkId, NetworkSpec, NetworkStatus
}

/// What is wanted of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkSpec {
    /// Its IPv4 addresses, as `10.20.30.0/24`; `auto`: what is free is chosen when it is made; `none`.
    #[serde(default)]
    #[schema(value_type = String, default = "auto", example = "10.20.30.0/24")]
    pub ipv4: Subnet<Ipv4Net>,
    /// Its IPv6 addresses, a /64; `auto`: an own one is chosen when it is made; `none`.
    #[serde(default)]
    #[schema(value_type = String, default = "auto", example = "fd00:1:2:3::/64")]
    pub ipv6: Subnet<Ipv6Net>,
    /// What leaves it has the host's address. Without, others must have a route to it.
    #[serde(default = "yes")]
    pub nat: bool,
    /// What its owner notes down.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
}

fn yes() -> bool {
    true
}

impl Default for NetworkSpec {
    fn default() -> Self {
        Self { ipv4: Subnet::Auto, ipv6: Subnet::Auto, nat: true, labels: Labels::new() }
    }
}

/// Addresses that are wished for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Subnet<N> {
    /// Whichever are free.
    #[default]
    Auto,
    /// None.
    None,
    /// These.
    Of(N),
}

impl<N: Copy> Subnet<N> {
    /// Those that are given, or have been chosen.
    pub fn get(&self) -> Option<N> {
        match self {
            Self::Of(subnet) => Some(*subnet),
            Self::Auto | Self::None => None,
        }
    }
}

impl<N: fmt::Display> fmt::Display for Subnet<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::None => f.write_str("none"),
            Self::Of(subnet) => subnet.fmt(f),
        }
    }
}

impl<N: FromStr> FromStr for Subnet<N> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "none" => Ok(Self::None),
            text => text.parse().map(Self::Of).map_err(|_| {
                format!("'{text}' is no subnet: give an address and a length, 'auto' or 'none'")
            }),
        }
    }
}

impl<N: fmt::Display> Serialize for Subnet<N> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, N: FromStr> Deserialize<'de> for Subnet<N> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What the host's end of a network has; guests begin after it.
pub const GATEWAY: u16 = 1;

impl Spec for NetworkSpec {
    fn check(&self) -> Result<(), SpecError> {
        if self.ipv4 == Subnet::None && self.ipv6 == Subnet::None {
            return refuse("ipv4", "a network has IPv4 or IPv6 addresses, or both");
        }
        if let Subnet::Of(subnet) = self.ipv4 {
            let address = subnet.network();
            if !(16..=29).contains(&subnet.prefix_len()) || subnet.addr() != address {
                return refuse("ipv4", "give a network's first address and a length of 16 to 29");
            }
            if address.is_loopback() || address.is_multicast() || address.octets()[0] == 0 {
                return refuse("ipv4", "these addresses are not hosts'");
            }
        }
        if let Subnet::Of(subnet) = self.ipv6 {
            if subnet.prefix_len() != 64 || subnet.addr() != subnet.network() {
                return refuse("ipv6", "give a network's first address and the length 64");
            }
            let first = subnet.addr().segments()[0];
            if first & 0xe000 != 0x2000 && first & 0xfe00 != 0xfc00 {
                return refuse("ipv6", "give addresses of 2000::/3 or fc00::/7");
            }
        }
        crate::vm::check_labels(&self.labels)
    }

    fn fixed_field(&self, new: &Self) -> Option<&'static str> {
        let same = (self.ipv4, self.ipv6) == (new.ipv4, new.ipv6);
        (!same).then_some("a network's subnet")
    }
}

impl NetworkSpec {
    /// The numbers that guests' addresses may have.
    pub fn numbers(&self) -> std::ops::RangeInclusive<u16> {
        let last = match self.ipv4.get() {
            // The last one is for all.
            Some(subnet) => ((1u32 << (32 - subnet.prefix_len())) - 2) as u16, // of 16 bits at most
            None => u16::MAX - 1,
        };
        GATEWAY + 1..=last
    }

    /// The addresses of this number.
    pub fn addresses(&self, number: u16) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
        let v4 = self.ipv4.get().map(|subnet| u32::from(subnet.addr()) + u32::from(number));
        let v6 = self.ipv6.get().map(|subnet| u128::from(subnet.addr()) + u128::from(number));
        (v4.map(Ipv4Addr::from), v6.map(Ipv6Addr::from))
    }

    /// The number of this address, if it is one of the network's for guests.
    pub fn number(&self, address: IpAddr) -> Option<u16> {
        let offset = match address {
            IpAddr::V4(address) => {
                let first = u32::from(self.ipv4.get()?.addr());
                u128::from(u32::from(address).checked_sub(first)?)
            }
            IpAddr::V6(address) => {
                u128::from(address).checked_sub(u128::from(self.ipv6.get()?.addr()))?
            }
        };
        u16::try_from(offset).ok().filter(|number| self.numbers().contains(number))
    }
}

/// What a network is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkStatus {
    /// In one word.
    pub phase: NetworkPhase,
    /// Why, and what to do, where the word does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The host's interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// The domain of guests' names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Cards of VMs that have addresses of it.
    #[serde(default)]
    pub cards: u32,
}

/// What a network is doing, in one word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkPhase {
    /// Nothing has been done for it yet.
    #[default]
    Pending,
    /// It is there.
    Ready,
    /// The host cannot do it, or not now.
    Failed,
}

impl NetworkPhase {
    /// Its name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Ready => "ready",
            Self::Failed => "failed",
        }
    }
}

impl NetworkId {
    /// The host's interface of this network.
    pub fn bridge(self) -> String {
        format!("{BRIDGES}{:08x}", self.tail())
    }

    /// The Ethernet address of what has this number in it: locally administered, and the only one of this number.
    pub fn mac(self, number: u16) -> String {
        let ([_, a, b, c], [d, e]) = (self.tail().to_be_bytes(), number.to_be_bytes());
        format!("02:{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}")
    }

    fn tail(self) -> u32 {
        self.0.as_u128() as u32 // the random end of an ID
    }
}

impl VmId {
    /// The host's interface of a card of this VM.
    pub fn interface(self, card: usize) -> String {
        let tail = self.0.as_u128() as u32; // the random end of an ID
        format!("{CARDS}{tail:08x}-{card}")
    }
}

/// With what the names of all bridges of ours begin.
pub const BRIDGES: &str = "trb-";
/// With what the names of all cards' interfaces begin.
pub const CARDS: &str = "trt-";

/// What a VM's card has on its network. It stays until the VM is deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CardStatus {
    /// The network.
    pub network: Name,
    /// Its ID.
    pub network_id: NetworkId,
    /// Its Ethernet address.
    pub mac: String,
    /// Its IPv4 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = Ipv4)]
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = Ipv6)]
    pub ipv6: Option<Ipv6Addr>,
    /// The host's end of it.
    pub interface: String,
}

/// An address that somebody has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Address {
    /// Its project.
    pub project: Name,
    /// Which of its VM's cards has it.
    pub card: u32,
    /// Whose.
    pub vm: VmId,
    /// What that VM is called.
    pub vm_name: Name,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// What it is.
    #[serde(flatten)]
    pub of: CardStatus,
}
