//! Networks of this host: bridges, cards' interfaces, rules, and who gives addresses and names.
//!
//! All of it is made from what is wanted, at once, and what is ours and not wanted is taken away: so a process that is
//! killed anywhere leaves nothing that the next one does not find. Interfaces are known to be ours by their
//! names, rules by their tables' name, processes by their command lines. Of two daemons in one network namespace the first
//! has the networks.
//!
//! Order: rules are there before the interfaces that they are about.

mod kernel;
mod links;
mod program;
mod routes;
mod rules;
mod service;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use model::NetworkId;
use reconcile::{WantedNetwork, WantedNetworks};

use kernel::Forwarding;
pub use routes::subnets_in_use;
use service::Service;

/// What networks are made with.
const PROGRAMS: [(&str, &str); 3] =
    [("ip", "iproute2"), ("nft", "nftables"), ("dnsmasq", "dnsmasq-base")];
/// Who has this name in a network namespace has Trine's networks there. The kernel frees it with the process.
const OWNER: &[u8] = b"trine/networks";
/// Others may change rules and settings: so often they are made anew.
const AGAIN: Duration = Duration::from_secs(60);

/// How the networks that are wanted are.
pub(crate) type Seen = BTreeMap<NetworkId, Result<(), String>>;

/// The networks of this host.
pub(crate) struct Networks {
    folder: PathBuf,
    owner: Option<UnixListener>,
    /// What was made, and when; nothing when something was wrong.
    made: Option<(WantedNetworks, Instant)>,
    services: BTreeMap<NetworkId, Service>,
    forwarding: Forwarding,
}

impl Networks {
    /// With files in this folder.
    pub fn open(folder: PathBuf) -> Self {
        let forwarding = Forwarding::load(&folder);
        Self { folder, owner: None, made: None, services: BTreeMap::new(), forwarding }
    }

    /// Makes what is wanted, and says how it is.
    pub fn apply(&mut self, wanted: &WantedNetworks) -> Seen {
        let none_was = self.made.as_ref().is_some_and(|(made, _)| made.networks.is_empty());
        if wanted.networks.is_empty() && (none_was || self.able().is_err()) {
            return Seen::new();
        }
        let each = |why: &String| -> Seen {
            wanted.networks.iter().map(|network| (network.id, Err(why.clone()))).collect()
        };
        if let Err(why) = self.able() {
            return each(&why);
        }
        match self.make(wanted) {
            Ok(mut seen) => {
                for network in &wanted.networks {
                    let folder = self.folder.join(network.id.to_string());
                    let service = self.services.entry(network.id);
                    let service = service.or_insert_with(|| Service::of(folder.clone()));
                    if seen.get(&network.id).is_some_and(Result::is_ok) {
                        let text = service::configuration(network, &folder);
                        seen.insert(network.id, service.run(&text));
                    }
                }
                seen
            }
            Err(why) => {
                self.made = None;
                each(&why)
            }
        }
    }

    /// Whether this process can make networks, or what to do.
    fn able(&mut self) -> Result<(), String> {
        if !rustix::process::geteuid().is_root() {
            return Err("networks are made by root: run trined as root, or launch VMs without \
                        networks"
                .to_owned());
        }
        for (name, package) in PROGRAMS {
            if program::find(name).is_none() {
                return Err(format!("{name} is missing: install {package}"));
            }
        }
        if self.owner.is_none() {
            let bound = SocketAddr::from_abstract_name(OWNER)
                .and_then(|name| UnixListener::bind_addr(&name));
            self.owner = Some(bound.map_err(|_| {
                "another trined has the networks of this host: ask that one, or stop it".to_owned()
            })?);
        }
        Ok(())
    }

    fn make(&mut self, wanted: &WantedNetworks) -> Result<Seen, String> {
        let all = links::all().map_err(|error| format!("cannot list interfaces: {error}"))?;
        let there: BTreeSet<String> = all.into_iter().filter(|name| links::is_ours(name)).collect();
        let named = links::wanted(wanted);
        let is_made = self
            .made
            .as_ref()
            .is_some_and(|(made, at)| made == wanted && at.elapsed() < AGAIN && there == named);
        if is_made {
            return Ok(wanted.networks.iter().map(|network| (network.id, Ok(()))).collect());
        }
        fs::create_dir_all(&self.folder)
            .map_err(|error| format!("cannot make {}: {error}", self.folder.display()))?;
        if wanted
            .networks
            .iter()
            .any(|network| network.spec.nat || network.spec.ipv6.get().is_some())
        {
            self.forwarding.turn_on(&self.folder)?;
        }
        program::run("nft", &["-f", "-"], &rules::script(wanted, &self.forwarding.strangers))?;
        let surplus: Vec<&String> = there.difference(&named).collect();
        if !surplus.is_empty() {
            // One may have gone by itself: the rest goes, too.
            let text = links::remove(surplus.into_iter());
            program::run("ip", &["-force", "-batch", "-"], &text)?;
        }
        self.sweep(wanted);
        let in_use = subnets_in_use();
        let make = |network: &WantedNetwork| (network.id, make(network, &there, &in_use));
        let seen: Seen = wanted.networks.iter().map(make).collect();
        let is_well = seen.values().all(Result::is_ok);
        if wanted.networks.is_empty() {
            self.forwarding.turn_back(&self.folder);
        }
        self.made = is_well.then(|| (wanted.clone(), Instant::now()));
        Ok(seen)
    }

    /// Ends the services of networks that are not wanted.
    fn sweep(&mut self, wanted: &WantedNetworks) {
        let is_wanted = |id: NetworkId| wanted.networks.iter().any(|network| network.id == id);
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let id = |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
        for id in entries.filter_map(id).filter(|id| !is_wanted(*id)) {
            let folder = self.folder.join(id.to_string());
            let service = self.services.remove(&id).unwrap_or_else(|| Service::of(folder));
            // What stays is found again.
            let _ = service.remove();
        }
    }
}

fn make(
    network: &WantedNetwork,
    there: &BTreeSet<String>,
    in_use: &[ipnet::IpNet],
) -> Result<(), String> {
    let own = [
        network.spec.ipv4.get().map(ipnet::IpNet::V4),
        network.spec.ipv6.get().map(ipnet::IpNet::V6),
    ];
    let meets = |a: &ipnet::IpNet, b: &ipnet::IpNet| a.contains(&b.addr()) || b.contains(&a.addr());
    for own in own.into_iter().flatten() {
        if let Some(other) = in_use.iter().find(|other| meets(&own, other)) {
            return Err(format!(
                "{own} is in use: the host has a route to {other}; make another network"
            ));
        }
    }
    program::run("ip", &["-batch", "-"], &links::make(network, there))?;
    kernel::set_up(network)
}

/// Whether a card's interface is there, to be opened by its VM.
pub(crate) fn has_interface(name: &str) -> bool {
    links::all().is_ok_and(|all| all.contains(name))
}
