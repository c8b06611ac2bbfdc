//! Security groups.

use jiff::Timestamp;
use model::{
    Forward, Meta, Name, Object, Peer, SecurityGroup, SecurityGroupId, SecurityGroupSpec,
    SecurityGroupStatus, Vm, VmSpec,
};
use store::{Revision, Txn};

use crate::{Asked, Kept, New, Registry, RegistryError, objects};

/// The group that a project has from the beginning.
pub(crate) fn first(project: &Name, now: Timestamp) -> SecurityGroup {
    let name = Name::default_name();
    let spec = SecurityGroupSpec::first(&name);
    let id = SecurityGroupId::new();
    let meta = Meta { id, name, project: project.clone(), created: now, deleting: false };
    SecurityGroup::of(meta, spec, SecurityGroupStatus::default())
}

impl Registry {
    /// Makes a security group.
    ///
    /// # Errors
    /// When it cannot be, the name is taken, there is no such project, or the store fails.
    pub fn create_security_group(
        &self,
        new: New<SecurityGroup>,
        asked: &Asked,
    ) -> Result<Kept<SecurityGroup>, RegistryError> {
        let object = new.object(asked)?;
        self.create(object)
    }

    /// Takes a security group away that nobody names. Who names one that is gone is let through less.
    ///
    /// # Errors
    /// When there is none, it is used, it is no longer of the revision that is given, or the store fails.
    pub fn delete_security_group(
        &self,
        project: &Name,
        name_or_id: &str,
        revision: Option<Revision>,
    ) -> Result<(), RegistryError> {
        let parts = self.parts::<SecurityGroup>(project, name_or_id)?;
        if revision.is_some_and(|revision| revision != parts.spec) {
            return Err(RegistryError::Changed);
        }
        let Meta { id, name, .. } = &parts.object.meta;
        let in_use = |by| RegistryError::InUse { kind: "security group", name: name.clone(), by };
        if *name == Name::default_name() {
            return Err(in_use("cards that name no other".to_owned()));
        }
        for vm in self.all::<Vm>(None)?.0.iter() {
            let mut groups = vm.spec.networks.iter().flat_map(|card| &card.security_groups);
            if vm.meta.project == *project && groups.any(|group| group == name) {
                return Err(in_use(format!("VM '{}'", vm.meta.name)));
            }
        }
        for other in self.all::<SecurityGroup>(None)?.0.iter() {
            let names = |peer: &Peer| matches!(peer, Peer::Group(group) if group == name);
            let is_other = other.meta.project == *project && other.meta.id != *id;
            if is_other && other.spec.rules.iter().any(|rule| names(&rule.peer)) {
                return Err(in_use(format!("security group '{}'", other.meta.name)));
            }
        }
        let txn = objects::delete(parts.unchanged(Txn::new()), &parts.object);
        self.commit(&txn)?.map(|_| ()).ok_or(RegistryError::Changed)
    }

    /// Refuses cards whose security groups are not there, or whose ports of the host lead to other VMs.
    ///
    /// # Errors
    /// As it says, and when the store fails.
    pub fn check_cards(
        &self,
        spec: &VmSpec,
        project: &Name,
        own: Option<&str>,
    ) -> Result<(), RegistryError> {
        for group in spec.networks.iter().flat_map(|card| &card.security_groups) {
            self.get::<SecurityGroup>(project, group.as_ref())?;
        }
        let ports = |spec: &VmSpec| -> Vec<Forward> {
            spec.networks.iter().flat_map(|card| card.ports.clone()).collect()
        };
        let wanted = ports(spec);
        if wanted.is_empty() {
            return Ok(());
        }
        let own = own.map(|own| self.get::<Vm>(project, own)).transpose()?;
        let own = own.map(|own| own.object.meta.id);
        for vm in self.all::<Vm>(None)?.0.iter() {
            let taken = ports(&vm.spec);
            let same = wanted.iter().find(|port| taken.iter().any(|other| port.meets(other)));
            if let Some(same) = same.filter(|_| own != Some(vm.meta.id)) {
                return Err(RegistryError::PortTaken {
                    port: same.host_port,
                    by: vm.meta.name.clone(),
                });
            }
        }
        Ok(())
    }
}
