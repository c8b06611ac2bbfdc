//! What networks are to be on the host: all that is wanted, at once, as a function of what is asked for.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use model::{
    Cidr, Direction, Forward, Name, NetworkId, NetworkPhase, NetworkSpec, NetworkStatus, Peer,
    Ports, RuleProtocol, SecurityGroup, SecurityGroupId, VirtualNetwork, Vm,
};

/// All networks of a host. What is not in it is not to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WantedNetworks {
    /// They.
    pub networks: Vec<WantedNetwork>,
    /// Addresses of the security groups' members.
    pub groups: BTreeMap<SecurityGroupId, Vec<IpAddr>>,
}

/// A network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedNetwork {
    /// Which.
    pub id: NetworkId,
    /// What it is called.
    pub name: Name,
    /// What is wanted of it.
    pub spec: NetworkSpec,
    /// Who is on it.
    pub cards: Vec<WantedCard>,
}

/// A card of a VM on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedCard {
    /// What the VM is called.
    pub vm: Name,
    /// The host's end of it.
    pub interface: String,
    /// Its Ethernet address.
    pub mac: String,
    /// Its IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// What is let through.
    pub rules: Vec<WantedRule>,
    /// Ports of the host that lead to it.
    pub ports: Vec<Forward>,
}

/// What is let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedRule {
    /// To the card, or from it.
    pub direction: Direction,
    /// What.
    pub protocol: RuleProtocol,
    /// To which ports.
    pub ports: Option<Ports>,
    /// From or to whom.
    pub peer: WantedPeer,
}

/// From or to whom something is let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WantedPeer {
    /// Everybody.
    Anybody,
    /// Who has one of these addresses.
    Addresses(IpNet),
    /// Members of this group.
    Group(SecurityGroupId),
}

/// What is wanted for these objects. Who names what is not there has that much less.
pub fn wanted<'a>(
    networks: &[Arc<VirtualNetwork>],
    groups: &[Arc<SecurityGroup>],
    vms: impl Iterator<Item = &'a Vm>,
) -> WantedNetworks {
    let mut members: BTreeMap<SecurityGroupId, Vec<IpAddr>> =
        groups.iter().map(|group| (group.meta.id, Vec::new())).collect();
    let mut cards: BTreeMap<NetworkId, Vec<WantedCard>> = BTreeMap::new();
    for vm in vms {
        for (card, has) in vm.spec.networks.iter().zip(&vm.status.networks) {
            let project = &vm.meta.project;
            let mut rules = Vec::new();
            for group in card.security_groups.iter().filter_map(|name| find(groups, project, name))
            {
                let addresses =
                    has.ipv4.map(IpAddr::V4).into_iter().chain(has.ipv6.map(IpAddr::V6));
                members.entry(group.meta.id).or_default().extend(addresses);
                rules.extend(group.spec.rules.iter().filter_map(|rule| {
                    let peer = match &rule.peer {
                        Peer::Anybody => WantedPeer::Anybody,
                        Peer::Cidr(Cidr(addresses)) => WantedPeer::Addresses(*addresses),
                        Peer::Group(name) => {
                            WantedPeer::Group(find(groups, project, name)?.meta.id)
                        }
                    };
                    let (direction, protocol, ports) = (rule.direction, rule.protocol, rule.ports);
                    Some(WantedRule { direction, protocol, ports, peer })
                }));
            }
            cards.entry(has.network_id).or_default().push(WantedCard {
                vm: vm.meta.name.clone(),
                interface: has.interface.clone(),
                mac: has.mac.clone(),
                ipv4: has.ipv4,
                ipv6: has.ipv6,
                rules,
                ports: card.ports.clone(),
            });
        }
    }
    let network = |network: &Arc<VirtualNetwork>| WantedNetwork {
        id: network.meta.id,
        name: network.meta.name.clone(),
        spec: network.spec.clone(),
        cards: cards.remove(&network.meta.id).unwrap_or_default(),
    };
    WantedNetworks { networks: networks.iter().map(network).collect(), groups: members }
}

fn find<'a>(
    groups: &'a [Arc<SecurityGroup>],
    project: &Name,
    name: &Name,
) -> Option<&'a SecurityGroup> {
    groups
        .iter()
        .map(|group| &**group)
        .find(|group| group.meta.project == *project && group.meta.name == *name)
}

/// Cards that a group holds for.
pub(crate) fn members<'a>(group: &SecurityGroup, vms: impl Iterator<Item = &'a Vm>) -> u32 {
    let of_project = vms.filter(|vm| vm.meta.project == group.meta.project);
    let cards = of_project.flat_map(|vm| &vm.spec.networks);
    let has = |card: &&model::Card| card.security_groups.contains(&group.meta.name);
    u32::try_from(cards.filter(has).count()).unwrap_or(u32::MAX)
}

/// How a network is, by what the host says of it.
pub(crate) fn status(wanted: &WantedNetwork, seen: Option<&Result<(), String>>) -> NetworkStatus {
    let (phase, reason) = match seen {
        Some(Ok(())) => (NetworkPhase::Ready, None),
        Some(Err(reason)) => (NetworkPhase::Failed, Some(reason.clone())),
        None => (NetworkPhase::Pending, None),
    };
    NetworkStatus {
        phase,
        reason,
        bridge: (phase == NetworkPhase::Ready).then(|| wanted.id.bridge()),
        domain: Some(domain(&wanted.name)),
        cards: u32::try_from(wanted.cards.len()).unwrap_or(u32::MAX),
    }
}

/// The domain of names on a network.
pub fn domain(network: &Name) -> String {
    format!("{network}.internal")
}
