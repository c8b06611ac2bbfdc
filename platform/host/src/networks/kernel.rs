//! What the kernel does with packets of ours, by its settings.
//!
//! Settings of our own bridges are ours. Forwarding is the host's: where it was off, it is turned on while there are
//! networks; the interfaces there were then still forward nothing to each other (`rules`), and it is turned off
//! with the last network. IPv6 routers do not listen to others: who learned a router's address goes on doing so.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use reconcile::WantedNetwork;
use serde::{Deserialize, Serialize};

use super::links;

const SETTINGS: &str = "/proc/sys/net";
const V4: &str = "ipv4/ip_forward";
const V6: &str = "ipv6/conf/all/forwarding";

/// What was changed of what is not ours, to be changed back.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Forwarding {
    /// Settings that were off.
    settings: Vec<String>,
    /// The interfaces that there were.
    pub strangers: Vec<String>,
    /// Those of them that learn routers' addresses.
    learning: Vec<String>,
}

fn set(setting: &str, value: &str) -> Result<(), String> {
    let path = Path::new(SETTINGS).join(setting);
    fs::write(&path, value).map_err(|error| format!("cannot set {}: {error}", path.display()))
}

fn get(setting: &str) -> Option<String> {
    let text = fs::read_to_string(Path::new(SETTINGS).join(setting)).ok()?;
    Some(text.trim().to_owned())
}

fn learns(interface: &str) -> String {
    format!("ipv6/conf/{interface}/accept_ra")
}

impl Forwarding {
    fn file(folder: &Path) -> PathBuf {
        folder.join("forwarding")
    }

    /// What was changed before, by whoever did.
    pub fn load(folder: &Path) -> Self {
        let text = fs::read(Self::file(folder)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Turns forwarding on where it is off. That it was off is written down first.
    pub fn turn_on(&mut self, folder: &Path) -> Result<(), String> {
        let is_off = |setting: &&&str| get(setting).as_deref() == Some("0");
        let off: Vec<_> = [V4, V6].iter().filter(is_off).map(|name| (*name).to_owned()).collect();
        if off.is_empty() {
            return Ok(());
        }
        let failed = |error: io::Error| format!("cannot write {}: {error}", folder.display());
        if self.settings.is_empty() {
            let names = links::all().map_err(failed)?;
            let is_strange = |name: &String| name != "lo" && !links::is_ours(name);
            self.strangers = names.into_iter().filter(is_strange).collect();
        }
        if off.iter().any(|setting| setting == V6) {
            let learn = |name: &&String| get(&learns(name)).as_deref() == Some("1");
            self.learning = self.strangers.iter().filter(learn).cloned().collect();
        }
        self.settings.extend(off.iter().cloned());
        let text = serde_json::to_vec(&self).map_err(io::Error::other).map_err(failed)?;
        fs::write(Self::file(folder), text).map_err(failed)?;
        for name in &self.learning {
            set(&learns(name), "2")?;
        }
        off.iter().try_for_each(|setting| set(setting, "1"))
    }

    /// Turns off what was off.
    pub fn turn_back(&mut self, folder: &Path) {
        for setting in &self.settings {
            // A host without it has nothing to be turned off.
            let _ = set(setting, "0");
        }
        for name in &self.learning {
            let _ = set(&learns(name), "1");
        }
        let _ = fs::remove_file(Self::file(folder));
        *self = Self::default();
    }
}

/// Settings of a network's own bridge and cards.
pub(crate) fn set_up(network: &WantedNetwork) -> Result<(), String> {
    let bridge = network.id.bridge();
    if network.spec.ipv4.get().is_some() {
        for (setting, value) in [
            ("forwarding", "1"),
            // Cards reach each other by the host (RFC 3069), which says so at once.
            ("proxy_arp_pvlan", "1"),
            // Ports of the host's loopback lead to cards; `rules` keeps cards from the loopback.
            ("route_localnet", "1"),
        ] {
            set(&format!("ipv4/conf/{bridge}/{setting}"), value)?;
        }
        set(&format!("ipv4/neigh/{bridge}/proxy_delay"), "0")?;
    }
    // A host without IPv6 has none of these.
    if !Path::new(SETTINGS).join("ipv6").exists() {
        return Ok(());
    }
    let is_off = if network.spec.ipv6.get().is_some() { "0" } else { "1" };
    set(&format!("ipv6/conf/{bridge}/disable_ipv6"), is_off)?;
    set(&format!("ipv6/conf/{bridge}/accept_ra"), "0")?;
    for card in &network.cards {
        // The host has addresses on the bridge alone.
        set(&format!("ipv6/conf/{}/disable_ipv6", card.interface), "1")?;
    }
    Ok(())
}
