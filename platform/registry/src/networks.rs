//! Networks, and whose their addresses are.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::{Address, CardStatus, Name, NetworkId, NetworkSpec, Subnet, VirtualNetwork, Vm};
use serde::{Deserialize, Serialize};
use store::{Revision, Txn};

use crate::codec::PutJson;
use crate::objects::{self, TRIES};
use crate::{Asked, Kept, New, Registry, RegistryError};

/// Subnets are chosen from here, by 256 addresses.
const CHOSEN_FROM: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 0);
const CHOICES: u32 = 64 << 8;

/// Written by who makes a network, so that no two get the same addresses.
const SUBNETS: &str = "/network-subnets";

/// Written by who takes an address, so that no network goes meanwhile.
fn uses_key(id: NetworkId) -> String {
    format!("/network-uses/{id}")
}

fn addresses_of(id: NetworkId) -> String {
    format!("/addresses/{id}/")
}

fn address_key(id: NetworkId, number: u16) -> String {
    format!("{}{number:05}", addresses_of(id))
}

/// An address, as it is kept.
#[derive(Serialize, Deserialize)]
struct AddressRecord {
    number: u16,
    #[serde(flatten)]
    address: Address,
}

/// A free subnet.
fn choose_v4(id: NetworkId, taken: &[IpNet]) -> Option<Ipv4Net> {
    // Different hosts choose differently: their networks may meet one day.
    let begin = id.0.as_u128() as u32 % CHOICES;
    let subnets = (0..CHOICES)
        .map(|n| (begin + n) % CHOICES)
        .filter_map(|n| Ipv4Net::new(Ipv4Addr::from(u32::from(CHOSEN_FROM) + (n << 8)), 24).ok());
    let is_free = |subnet: &Ipv4Net| !overlaps((*subnet).into(), taken);
    subnets.into_iter().find(is_free)
}

fn subnets_of(spec: &NetworkSpec) -> impl Iterator<Item = IpNet> + use<> {
    let (v4, v6) = (spec.ipv4.get().map(IpNet::V4), spec.ipv6.get().map(IpNet::V6));
    v4.into_iter().chain(v6)
}

fn overlaps(subnet: IpNet, taken: &[IpNet]) -> bool {
    taken.iter().any(|other| other.contains(&subnet.addr()) || subnet.contains(&other.addr()))
}

/// Of unique local addresses (RFC 4193): 40 random bits of the ID are the site.
fn choose_v6(id: NetworkId) -> Option<Ipv6Net> {
    let site = id.0.as_u128() & 0xff_ffff_ffff;
    Ipv6Net::new(Ipv6Addr::from(0xfd << 120 | site << 80), 64).ok()
}

impl Registry {
    /// Makes a network. `taken` are subnets that the host has otherwise.
    ///
    /// # Errors
    /// When it cannot be, its addresses are others', the name is taken, or the store fails.
    pub fn create_network(
        &self,
        new: New<VirtualNetwork>,
        taken: &[IpNet],
        asked: &Asked,
    ) -> Result<Kept<VirtualNetwork>, RegistryError> {
        for _ in 0..TRIES {
            let mut network = new.clone().object(asked)?;
            // Who makes another one meanwhile writes this, and has perhaps the same subnet.
            let subnets = self.store.get(SUBNETS)?.0.map_or(Revision::NONE, |key| key.modified);
            let mut all = taken.to_vec();
            for other in self.all::<VirtualNetwork>(None)?.0.iter() {
                all.extend(subnets_of(&other.spec));
            }
            let (id, spec) = (network.meta.id, &mut network.spec);
            if spec.ipv4 == Subnet::Auto {
                spec.ipv4 = Subnet::Of(choose_v4(id, &all).ok_or(RegistryError::NoSubnet)?);
            }
            if spec.ipv6 == Subnet::Auto {
                spec.ipv6 = Subnet::Of(choose_v6(id).ok_or(RegistryError::NoSubnet)?);
            }
            if let Some(subnet) = subnets_of(spec).find(|own| overlaps(*own, &all)) {
                return Err(RegistryError::SubnetTaken(subnet));
            }
            let txn = Txn::new().if_modified(SUBNETS, subnets).put_json(SUBNETS, &id)?;
            if let Some(revision) = self.commit(&self.put_new(txn, &network)?)? {
                return Ok(Kept { object: network, revision });
            }
        }
        Err(RegistryError::Changed)
    }

    /// Takes a network away that no card is on.
    ///
    /// # Errors
    /// When there is none, it is used, it is no longer of the revision that is given, or the store fails.
    pub fn delete_network(
        &self,
        project: &Name,
        name_or_id: &str,
        revision: Option<Revision>,
    ) -> Result<(), RegistryError> {
        let parts = self.parts::<VirtualNetwork>(project, name_or_id)?;
        if revision.is_some_and(|revision| revision != parts.spec) {
            return Err(RegistryError::Changed);
        }
        let id = parts.object.meta.id;
        let uses = self.store.get(&uses_key(id))?.0.map_or(Revision::NONE, |uses| uses.modified);
        let (addresses, _) = self.read_all::<AddressRecord>(&addresses_of(id), None)?;
        if let Some(Kept { object, .. }) = addresses.first() {
            let by = format!("VM '{}'", object.address.vm_name);
            let name = parts.object.meta.name;
            return Err(RegistryError::InUse { kind: "network", name, by });
        }
        let txn = parts.unchanged(Txn::new().if_modified(uses_key(id), uses));
        let txn = objects::delete(txn, &parts.object).delete(uses_key(id));
        self.commit(&txn)?.map(|_| ()).ok_or(RegistryError::Changed)
    }

    /// All addresses that somebody has, and the revision they are of.
    ///
    /// # Errors
    /// When the revision is compacted, or the store fails.
    pub fn addresses(
        &self,
        at: Option<Revision>,
    ) -> Result<(Vec<Address>, Revision), RegistryError> {
        let (all, revision) = self.read_all::<AddressRecord>("/addresses/", at)?;
        Ok((all.into_iter().map(|kept| kept.object.address).collect(), revision))
    }

    /// Gives the cards of a new VM addresses, within `txn`: it fails when somebody else takes one of them first.
    pub(crate) fn take_addresses(
        &self,
        vm: &Vm,
        mut txn: Txn,
    ) -> Result<(Vec<CardStatus>, Txn), RegistryError> {
        let mut cards: Vec<CardStatus> = Vec::new();
        let mut touched: Vec<NetworkId> = Vec::new();
        for (index, card) in vm.spec.networks.iter().enumerate() {
            let network = self.parts::<VirtualNetwork>(&vm.meta.project, card.network.as_ref())?;
            let (id, name) = (network.object.meta.id, network.object.meta.name.clone());
            let spec = &network.object.spec;
            let uses = self.store.get(&uses_key(id))?.0;
            let (taken, _) = self.read_all::<AddressRecord>(&addresses_of(id), None)?;
            let mut taken: Vec<u16> = taken.iter().map(|kept| kept.object.number).collect();
            taken.extend(cards.iter().filter(|other| other.network_id == id).filter_map(number));
            let number = match card.address {
                None => spec.numbers().find(|number| !taken.contains(number)),
                Some(address) => {
                    let number = spec.number(address);
                    let number = number.ok_or(RegistryError::AddressOutside(address))?;
                    if taken.contains(&number) {
                        return Err(RegistryError::AddressTaken(address));
                    }
                    Some(number)
                }
            };
            let number = number.ok_or_else(|| RegistryError::NetworkFull(name.clone()))?;
            let (ipv4, ipv6) = spec.addresses(number);
            let status = CardStatus {
                network: name,
                network_id: id,
                mac: id.mac(number),
                ipv4,
                ipv6,
                interface: vm.meta.id.interface(index),
            };
            let record = AddressRecord {
                number,
                address: Address {
                    project: vm.meta.project.clone(),
                    card: index as u32, // of a few
                    vm: vm.meta.id,
                    vm_name: vm.meta.name.clone(),
                    created: vm.meta.created,
                    of: status.clone(),
                },
            };
            let key = address_key(id, number);
            txn = txn.if_absent(&key).put_json(&key, &record)?;
            if !touched.contains(&id) {
                touched.push(id);
                let revision = uses.map_or(Revision::NONE, |uses| uses.modified);
                txn = network.unchanged(txn).if_modified(uses_key(id), revision);
                txn = txn.put_json(uses_key(id), &vm.meta.id)?;
            }
            cards.push(status);
        }
        Ok((cards, txn))
    }
}

/// The number of a card's address: the last two bytes of its Ethernet address are.
fn number(card: &CardStatus) -> Option<u16> {
    let mut bytes = card.mac.rsplit(':').map(|byte| u16::from_str_radix(byte, 16).ok());
    let (low, high) = (bytes.next()??, bytes.next()??);
    Some(high << 8 | low)
}

/// What takes a card's address away.
pub(crate) fn release(txn: Txn, card: &CardStatus) -> Txn {
    match number(card) {
        Some(number) => txn.delete(address_key(card.network_id, number)),
        None => txn,
    }
}
