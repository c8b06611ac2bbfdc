//! Rules of nftables: the text of one table for IP and one for bridges, replaced together, or not at all.
//!
//! Cards are told apart by their interfaces in the bridge's table, which lets nothing through that is not from the
//! card's own addresses. So the table of IP knows cards by their addresses. No frame goes from card to card: the ports
//! of a bridge are isolated, and the host routes between them, through the chain `forward`.

use std::fmt::{self, Write};
use std::net::IpAddr;

use ipnet::IpNet;
use model::{CARDS, Direction, Forward, Protocol, RuleProtocol, SecurityGroupId};
use reconcile::{WantedCard, WantedNetwork, WantedNetworks, WantedPeer, WantedRule};

/// Takes all away.
pub(crate) const NONE: &str = "table inet trine {}\ndelete table inet trine\n\
    table bridge trine {}\ndelete table bridge trine\n";

/// What guests may ask of the host itself: addresses, names, and whether it is there.
const OF_HOST: &str = "
    ct state established,related accept
    ip daddr 127.0.0.0/8 drop
    udp dport { 53, 67, 547 } accept
    tcp dport 53 accept
    icmp type echo-request accept
    icmpv6 type { echo-request, nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit } accept
    drop";

/// The script that makes it so. `strangers` are interfaces of the host between which nothing was forwarded
/// before there were networks, and nothing is.
pub(crate) fn script(wanted: &WantedNetworks, strangers: &[String]) -> String {
    let mut text = NONE.to_owned();
    if !wanted.networks.is_empty() {
        // Writing to a string does not fail.
        let _ = inet(wanted, strangers, &mut text).and_then(|()| bridge(wanted, &mut text));
    }
    text
}

fn cards(wanted: &WantedNetworks) -> impl Iterator<Item = &WantedCard> {
    wanted.networks.iter().flat_map(|network| &network.cards)
}

fn quoted(names: impl Iterator<Item = String>) -> String {
    names.map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

fn set_name(group: SecurityGroupId, is_v4: bool) -> String {
    format!("g_{}_{}", group.0.simple(), if is_v4 { 4 } else { 6 })
}

fn chain_of(card: &WantedCard) -> String {
    card.interface.replace('-', "_")
}

/// `key : goto PREFIX_CARD` of all cards that have such a key.
fn verdicts(
    wanted: &WantedNetworks,
    prefix: &str,
    key: impl Fn(&WantedCard) -> Option<String>,
) -> Option<String> {
    let verdict =
        |card: &WantedCard| Some(format!("{} : goto {prefix}_{}", key(card)?, chain_of(card)));
    let all: Vec<_> = cards(wanted).filter_map(verdict).collect();
    (!all.is_empty()).then(|| format!("vmap {{ {} }}", all.join(", ")))
}

fn inet(wanted: &WantedNetworks, strangers: &[String], text: &mut String) -> fmt::Result {
    writeln!(text, "table inet trine {{")?;
    let bridges = quoted(wanted.networks.iter().map(|network| network.id.bridge()));
    writeln!(text, "  set bridges {{ type ifname; elements = {{ {bridges} }}; }}")?;
    for (group, members) in &wanted.groups {
        for is_v4 in [true, false] {
            let members = members.iter().filter(|address| address.is_ipv4() == is_v4);
            let members: Vec<_> = members.map(IpAddr::to_string).collect();
            let kind = if is_v4 { "ipv4_addr" } else { "ipv6_addr" };
            write!(text, "  set {} {{ type {kind};", set_name(*group, is_v4))?;
            if !members.is_empty() {
                write!(text, " elements = {{ {} }};", members.join(", "))?;
            }
            writeln!(text, " }}")?;
        }
    }
    for card in cards(wanted) {
        for (direction, prefix) in [(Direction::Out, "o"), (Direction::In, "i")] {
            writeln!(text, "  chain {prefix}_{} {{", chain_of(card))?;
            for rule in card.rules.iter().filter(|rule| rule.direction == direction) {
                for line in lines(rule) {
                    writeln!(text, "    {line}return")?;
                }
            }
            writeln!(text, "    drop\n  }}")?;
        }
    }
    for (chain, prefix, side) in [("out", "o", "saddr"), ("in", "i", "daddr")] {
        writeln!(text, "  chain {chain} {{")?;
        let v4 = verdicts(wanted, prefix, |card| card.ipv4.map(|ip| ip.to_string()));
        let v6 = verdicts(wanted, prefix, |card| card.ipv6.map(|ip| ip.to_string()));
        for (family, verdicts) in [("ip", v4), ("ip6", v6)] {
            if let Some(verdicts) = verdicts {
                writeln!(text, "    {family} {side} {verdicts}")?;
            }
        }
        writeln!(text, "    drop\n  }}")?;
    }
    forward(strangers, text)?;
    writeln!(text, "  chain host {{{OF_HOST}\n  }}")?;
    writeln!(text, "  chain input {{\n    type filter hook input priority filter; policy accept;")?;
    writeln!(text, "    iifname @bridges jump host\n  }}")?;
    // Guests reach each other by the host, and are not to hear of a shorter way.
    writeln!(
        text,
        "  chain output {{\n    type filter hook output priority filter; policy accept;"
    )?;
    writeln!(text, "    oifname @bridges icmp type redirect drop")?;
    writeln!(text, "    oifname @bridges icmpv6 type nd-redirect drop\n  }}")?;
    nat(wanted, text)?;
    writeln!(text, "}}")
}

fn forward(strangers: &[String], text: &mut String) -> fmt::Result {
    writeln!(
        text,
        "  chain forward {{\n    type filter hook forward priority filter; policy accept;"
    )?;
    if !strangers.is_empty() {
        let strangers = quoted(strangers.iter().cloned());
        writeln!(text, "    iifname {{ {strangers} }} oifname {{ {strangers} }} drop")?;
    }
    writeln!(text, "    iifname != @bridges oifname != @bridges accept")?;
    writeln!(text, "    ct state established,related accept")?;
    writeln!(text, "    ct state invalid drop")?;
    writeln!(text, "    iifname @bridges jump out")?;
    writeln!(text, "    ct status dnat accept")?;
    writeln!(text, "    oifname @bridges jump in\n  }}")
}

/// What a rule matches; a line for each family of addresses that it is about.
fn lines(rule: &WantedRule) -> Vec<String> {
    let side = match rule.direction {
        Direction::In => "saddr",
        Direction::Out => "daddr",
    };
    let peers = match rule.peer {
        WantedPeer::Anybody => vec![String::new()],
        WantedPeer::Addresses(IpNet::V4(net)) => vec![format!("ip {side} {} ", net.trunc())],
        WantedPeer::Addresses(IpNet::V6(net)) => vec![format!("ip6 {side} {} ", net.trunc())],
        WantedPeer::Group(group) => vec![
            format!("ip {side} @{} ", set_name(group, true)),
            format!("ip6 {side} @{} ", set_name(group, false)),
        ],
    };
    let what = match (rule.protocol, rule.ports) {
        (RuleProtocol::Any, _) => String::new(),
        (RuleProtocol::Icmp, _) => "meta l4proto { icmp, ipv6-icmp } ".to_owned(),
        (RuleProtocol::Tcp, None) => "meta l4proto tcp ".to_owned(),
        (RuleProtocol::Udp, None) => "meta l4proto udp ".to_owned(),
        (RuleProtocol::Tcp, Some(ports)) => format!("tcp dport {ports} "),
        (RuleProtocol::Udp, Some(ports)) => format!("udp dport {ports} "),
    };
    peers.into_iter().map(|peer| peer + &what).collect()
}

fn nat(wanted: &WantedNetworks, text: &mut String) -> fmt::Result {
    let led = |is_own: bool| -> Vec<String> {
        let each = |card: &WantedCard| -> Vec<String> {
            card.ports.iter().filter_map(|port| port_line(card, port, is_own)).collect()
        };
        cards(wanted).flat_map(each).collect()
    };
    // What comes to the host, and what it says to itself.
    for (hook, priority, is_own) in [("prerouting", "dstnat", false), ("output", "-100", true)] {
        writeln!(text, "  chain nat_{hook} {{")?;
        writeln!(text, "    type nat hook {hook} priority {priority}; policy accept;")?;
        led(is_own).iter().try_for_each(|line| writeln!(text, "    {line}"))?;
        writeln!(text, "  }}")?;
    }
    writeln!(text, "  chain nat_postrouting {{")?;
    writeln!(text, "    type nat hook postrouting priority srcnat; policy accept;")?;
    // A guest could not answer this address.
    writeln!(text, "    oifname @bridges ip saddr 127.0.0.0/8 masquerade")?;
    for network in &wanted.networks {
        for (family, subnet) in subnets(network) {
            let own = format!("{family} saddr {subnet}");
            writeln!(text, "    {own} {family} daddr {subnet} ct status dnat masquerade")?;
            if network.spec.nat {
                writeln!(text, "    {own} oifname != @bridges masquerade")?;
            }
        }
    }
    writeln!(text, "  }}")
}

fn subnets(network: &WantedNetwork) -> impl Iterator<Item = (&'static str, String)> {
    let v4 = network.spec.ipv4.get().map(|subnet| ("ip", subnet.to_string()));
    let v6 = network.spec.ipv6.get().map(|subnet| ("ip6", subnet.to_string()));
    v4.into_iter().chain(v6)
}

/// A port of the host that leads to a card. Those of the loopback are reached by the host itself alone.
fn port_line(card: &WantedCard, port: &Forward, is_own: bool) -> Option<String> {
    let address = port.host_address.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
    if address.is_loopback() && !is_own {
        return None;
    }
    let (family, to) = match address {
        IpAddr::V4(_) => ("ip", card.ipv4?.to_string()),
        IpAddr::V6(_) => ("ip6", format!("[{}]", card.ipv6?)),
    };
    let at = match (address, address.is_unspecified()) {
        (IpAddr::V4(_), true) => "meta nfproto ipv4 fib daddr type local".to_owned(),
        (IpAddr::V6(_), true) => "meta nfproto ipv6 fib daddr type local".to_owned(),
        (address, false) => format!("{family} daddr {address}"),
    };
    let protocol = match port.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    let (host, guest) = (port.host_port, port.guest_port);
    Some(format!("{at} {protocol} dport {host} dnat {family} to {to}:{guest}"))
}

fn bridge(wanted: &WantedNetworks, text: &mut String) -> fmt::Result {
    writeln!(text, "table bridge trine {{")?;
    for card in cards(wanted) {
        writeln!(text, "  chain f_{} {{", chain_of(card))?;
        writeln!(text, "    ether saddr != {} drop", card.mac)?;
        // It gives no addresses and is no router.
        writeln!(text, "    udp sport {{ 67, 547 }} drop")?;
        writeln!(text, "    icmpv6 type {{ nd-router-advert, nd-redirect }} drop")?;
        if let Some(ip) = card.ipv4 {
            writeln!(
                text,
                "    arp saddr ether {} arp saddr ip {{ 0.0.0.0, {ip} }} accept",
                card.mac
            )?;
            writeln!(text, "    ip saddr {ip} accept")?;
            writeln!(text, "    ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp dport 67 accept")?;
        }
        if let Some(ip) = card.ipv6 {
            writeln!(text, "    ip6 saddr {{ fe80::/64, {ip} }} accept")?;
            writeln!(text, "    ip6 saddr :: icmpv6 type nd-neighbor-solicit accept")?;
        }
        writeln!(text, "    drop\n  }}")?;
    }
    writeln!(text, "  chain prerouting {{")?;
    writeln!(text, "    type filter hook prerouting priority -300; policy accept;")?;
    if let Some(verdicts) = verdicts(wanted, "f", |card| Some(format!("\"{}\"", card.interface))) {
        writeln!(text, "    iifname {verdicts}")?;
    }
    writeln!(text, "    iifname \"{CARDS}*\" drop\n  }}")?;
    writeln!(text, "  chain forward {{")?;
    writeln!(text, "    type filter hook forward priority -200; policy accept;")?;
    // Ports are isolated; this is for those that somebody has made otherwise.
    writeln!(text, "    iifname \"{CARDS}*\" oifname \"{CARDS}*\" drop\n  }}\n}}")
}
