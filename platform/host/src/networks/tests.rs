//! What the host is told, as text; what becomes of it: `tests/vm/tests/networks.rs`.

use std::collections::BTreeSet;
use std::path::Path;

use model::{
    Direction, Forward, NetworkId, NetworkSpec, Protocol, RuleProtocol, SecurityGroupId, Subnet,
};
use reconcile::{WantedCard, WantedNetwork, WantedNetworks, WantedPeer, WantedRule};

use super::{Networks, links, program, rules, service};

fn rule(direction: Direction, peer: WantedPeer) -> WantedRule {
    WantedRule { direction, protocol: RuleProtocol::Any, ports: None, peer }
}

fn wanted() -> WantedNetworks {
    let id: NetworkId = "01890000-0000-7000-8000-0000aabbccdd".parse().unwrap();
    let group = SecurityGroupId("01890000-0000-7000-8000-000000000001".parse().unwrap());
    let web = WantedRule {
        protocol: RuleProtocol::Tcp,
        ports: Some("80-81".parse().unwrap()),
        ..rule(Direction::In, WantedPeer::Addresses("192.0.2.0/24".parse().unwrap()))
    };
    let port =
        Forward { protocol: Protocol::Tcp, host_address: None, host_port: 8080, guest_port: 80 };
    let everywhere =
        Forward { host_address: Some("0.0.0.0".parse().unwrap()), host_port: 8081, ..port.clone() };
    let spec = NetworkSpec {
        ipv4: Subnet::Of("10.1.2.0/24".parse().unwrap()),
        ipv6: Subnet::Of("fd00:1:2:3::/64".parse().unwrap()),
        ..NetworkSpec::default()
    };
    let (ipv4, ipv6) = spec.addresses(5);
    let card = WantedCard {
        vm: "web".parse().unwrap(),
        interface: "trt-00000001-0".into(),
        mac: id.mac(5),
        ipv4,
        ipv6,
        rules: vec![
            rule(Direction::Out, WantedPeer::Anybody),
            rule(Direction::In, WantedPeer::Group(group)),
            web,
        ],
        ports: vec![port, everywhere],
    };
    let members = vec!["10.1.2.5".parse().unwrap(), "fd00:1:2:3::5".parse().unwrap()];
    WantedNetworks {
        networks: vec![WantedNetwork { id, name: "lan".parse().unwrap(), spec, cards: vec![card] }],
        groups: [(group, members)].into(),
    }
}

#[track_caller]
fn has(text: &str, line: &str) {
    assert!(text.lines().any(|other| other.trim() == line), "no '{line}' in\n{text}");
}

#[test]
fn rules_let_through_what_a_cards_groups_do_and_nothing_else() {
    let text = rules::script(&wanted(), &["eth0".to_owned()]);
    let out = "chain o_trt_00000001_0 {\n    return\n    drop\n  }";
    assert!(text.contains(out), "{text}");
    let set = "g_01890000000070008000000000000001";
    let into = format!(
        "chain i_trt_00000001_0 {{\n    ip saddr @{set}_4 return\n    ip6 saddr @{set}_6 return\n    \
         ip saddr 192.0.2.0/24 tcp dport 80-81 return\n    drop\n  }}"
    );
    assert!(text.contains(&into), "{text}");
    has(&text, &format!("set {set}_4 {{ type ipv4_addr; elements = {{ 10.1.2.5 }}; }}"));
    has(&text, "ip daddr vmap { 10.1.2.5 : goto i_trt_00000001_0 }");
    has(&text, "iifname { \"eth0\" } oifname { \"eth0\" } drop");
}

#[test]
fn a_card_sends_from_its_own_addresses_and_is_no_server_of_addresses() {
    let text = rules::script(&wanted(), &[]);
    has(&text, "ether saddr != 02:bb:cc:dd:00:05 drop");
    has(&text, "udp sport { 67, 547 } drop");
    has(&text, "ip saddr 10.1.2.5 accept");
    has(&text, "iifname vmap { \"trt-00000001-0\" : goto f_trt_00000001_0 }");
    has(&text, "iifname \"trt-*\" drop");
}

#[test]
fn ports_of_the_loopback_are_led_on_for_the_host_itself_alone() {
    let text = rules::script(&wanted(), &[]);
    let loopback = "ip daddr 127.0.0.1 tcp dport 8080 dnat ip to 10.1.2.5:80";
    assert_eq!(text.matches(loopback).count(), 1, "{text}");
    let all = "meta nfproto ipv4 fib daddr type local tcp dport 8081 dnat ip to 10.1.2.5:80";
    assert_eq!(text.matches(all).count(), 2, "{text}");
    has(&text, "ip saddr 10.1.2.0/24 oifname != @bridges masquerade");
}

#[test]
fn without_networks_rules_only_go() {
    assert_eq!(rules::script(&WantedNetworks::default(), &[]), rules::NONE);
}

#[test]
fn nft_understands_the_rules() {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root || program::find("nft").is_none() {
        return println!("NOT RUN: nft with the rules: it wants root, and nftables");
    }
    let text = rules::script(&wanted(), &["eth0".to_owned()]);
    program::run("nft", &["-c", "-f", "-"], &text).unwrap();
}

#[test]
fn links_are_made_once_and_set_again() {
    let wanted = wanted();
    let network = &wanted.networks[0];
    let fresh = links::make(network, &BTreeSet::new());
    has(&fresh, "link add trb-aabbccdd address 02:bb:cc:dd:00:01 type bridge mcast_snooping 0");
    has(&fresh, "tuntap add dev trt-00000001-0 mode tap multi_queue");
    has(&fresh, "addr replace 10.1.2.1/24 dev trb-aabbccdd");
    let again = links::make(network, &links::wanted(&wanted));
    assert!(!again.contains(" add "), "{again}");
    has(&again, "link set trt-00000001-0 type bridge_slave isolated on");
    has(&again, "neigh replace 10.1.2.5 lladdr 02:bb:cc:dd:00:05 dev trb-aabbccdd nud permanent");
}

#[test]
fn guests_get_the_addresses_and_names_they_have() {
    let text = service::configuration(&wanted().networks[0], Path::new("/x"));
    has(&text, "dhcp-range=10.1.2.0,static,255.255.255.0,1h");
    has(&text, "dhcp-range=fd00:1:2:3::,static,off-link,64,1h");
    has(&text, "dhcp-host=02:bb:cc:dd:00:05,10.1.2.5,[fd00:1:2:3::5],web");
    has(&text, "host-record=web.lan.internal,web,10.1.2.5,fd00:1:2:3::5");
}

#[test]
fn who_is_not_root_is_told_what_to_do() {
    if rustix::process::geteuid().is_root() {
        return println!("NOT RUN: networks without privilege: this is root");
    }
    let folder = tempfile::tempdir().unwrap();
    let mut networks = Networks::open(folder.path().to_owned());
    let wanted = wanted();
    let seen = networks.apply(&wanted);
    let why = seen[&wanted.networks[0].id].clone().unwrap_err();
    assert!(why.contains("run trined as root"), "{why}");
}
