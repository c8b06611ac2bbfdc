//! Bridges and cards' interfaces.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::io;

use model::{BRIDGES, CARDS, GATEWAY};
use reconcile::{WantedNetwork, WantedNetworks};

const LINKS: &str = "/proc/net/dev";

/// All interfaces of this process' network namespace: what is in `/sys` may be another's.
pub(crate) fn all() -> io::Result<BTreeSet<String>> {
    let text = fs::read_to_string(LINKS)?;
    // Two lines of head, then `  name: numbers`.
    let names = text.lines().skip(2).filter_map(|line| line.split_once(':'));
    Ok(names.map(|(name, _)| name.trim().to_owned()).collect())
}

/// It is one of ours.
pub(crate) fn is_ours(name: &str) -> bool {
    name.starts_with(BRIDGES) || name.starts_with(CARDS)
}

/// All that the networks have.
pub(crate) fn wanted(networks: &WantedNetworks) -> BTreeSet<String> {
    networks.networks.iter().flat_map(of).collect()
}

fn of(network: &WantedNetwork) -> impl Iterator<Item = String> {
    let cards = network.cards.iter().map(|card| card.interface.clone());
    std::iter::once(network.id.bridge()).chain(cards)
}

/// What `ip -batch` is told to make a network of these links. Done again it changes nothing.
pub(crate) fn make(network: &WantedNetwork, there: &BTreeSet<String>) -> String {
    let (bridge, mac) = (network.id.bridge(), network.id.mac(GATEWAY));
    let mut text = String::new();
    let mut say = |line: String| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{line}");
    };
    if !there.contains(&bridge) {
        say(format!("link add {bridge} address {mac} type bridge mcast_snooping 0"));
    }
    let (v4, v6) = network.spec.addresses(GATEWAY);
    if let (Some(address), Some(subnet)) = (v4, network.spec.ipv4.get()) {
        say(format!("addr replace {address}/{} dev {bridge}", subnet.prefix_len()));
    }
    if let Some(address) = v6 {
        say(format!("addr replace {address}/64 dev {bridge} nodad"));
    }
    say(format!("link set {bridge} up"));
    for card in &network.cards {
        let (name, mac) = (&card.interface, &card.mac);
        if !there.contains(name) {
            say(format!("tuntap add dev {name} mode tap multi_queue"));
        }
        // A port from which nothing goes to another port.
        say(format!("link set {name} master {bridge}"));
        say(format!("link set {name} type bridge_slave isolated on"));
        // Whoever claims another's address is not believed.
        if let Some(ip) = card.ipv4 {
            say(format!("neigh replace {ip} lladdr {mac} dev {bridge} nud permanent"));
        }
        if let Some(ip) = card.ipv6 {
            say(format!("neigh replace {ip} lladdr {mac} dev {bridge} nud permanent"));
        }
        say(format!("link set {name} up"));
    }
    text
}

/// What `ip -batch` is told to take links away.
pub(crate) fn remove<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.fold(String::new(), |text, name| text + &format!("link del {name}\n"))
}
