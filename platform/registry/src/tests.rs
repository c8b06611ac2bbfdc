//! What may be asked for, and what is written down then.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use model::{
    CardStatus, Name, NetworkSpec, OperationState, Phase, Power, Quota, Requestor, SecurityGroup,
    SecurityGroupSpec, SpecError, Vm, VmSpec, VmStatus,
};
use serde_json::json;
use store::{Embedded, Revision};

use crate::{Answer, Asked, Batch, Change, New, Registry, RegistryError};

mod identity;
mod quotas;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn registry() -> (Registry, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::new(Arc::new(Embedded::open(folder.path()).unwrap()));
    registry.found(NOW).unwrap();
    (registry, folder)
}

fn asked() -> Asked {
    Asked { by: Requestor { who: "uid:0".into(), request: "r".into() }, at: NOW }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn new(vm: &str) -> New<Vm> {
    New { name: name(vm), project: name("default"), spec: VmSpec::default() }
}

fn change(registry: &Registry, vm: &str, change: &Change) -> Result<VmSpec, RegistryError> {
    registry.change_vm(&name("default"), vm, change, None, &asked())?;
    Ok(registry.get::<Vm>(&name("default"), vm)?.object.spec)
}

fn set(registry: &Registry, vm: &str, phase: Phase, boot: u64) {
    let id = registry.get::<Vm>(&name("default"), vm).unwrap().object.meta.id;
    registry.set_status::<Vm>(id, &VmStatus { phase, boot, ..VmStatus::default() }).unwrap();
}

#[test]
fn a_vm_is_found_by_its_name_and_by_its_id_in_its_project_only() {
    let (registry, _folder) = registry();
    let (vm, operation) = registry.create_vm(new("web"), None, &asked()).unwrap();
    assert_eq!((operation.state, operation.boot), (OperationState::Running, 1));
    let id = vm.object.meta.id.to_string();
    assert_eq!(registry.get::<Vm>(&name("default"), "web").unwrap(), vm);
    assert_eq!(registry.get::<Vm>(&name("default"), &id).unwrap(), vm);
    registry.create_project(name("other"), Quota::default(), NOW).unwrap();
    for missing in ["web", &id] {
        let error = registry.get::<Vm>(&name("other"), missing).unwrap_err();
        assert!(matches!(error, RegistryError::Missing { kind: "VM", .. }));
    }
    assert_eq!(registry.all::<Vm>(None).unwrap().0[..], [Arc::new(vm.object)]);
    assert_eq!(registry.operation(operation.id).unwrap().object, operation);
}

#[test]
fn a_name_is_taken_once_in_a_project() {
    let (registry, _folder) = registry();
    registry.create_vm(new("web"), None, &asked()).unwrap();
    let error = registry.create_vm(new("web"), None, &asked()).unwrap_err();
    assert!(matches!(error, RegistryError::Exists { kind: "VM", .. }));
    registry.create_project(name("other"), Quota::default(), NOW).unwrap();
    registry.create_vm(New { project: name("other"), ..new("web") }, None, &asked()).unwrap();
    let nowhere = registry.create_vm(New { project: name("none"), ..new("web") }, None, &asked());
    assert!(matches!(nowhere, Err(RegistryError::Missing { kind: "project", .. })));
    assert_eq!(registry.all::<Vm>(None).unwrap().0.len(), 2);
    assert!(matches!(
        registry.delete_project(&name("other"), None),
        Err(RegistryError::NotEmpty(_))
    ));
}

#[test]
fn starts_are_counted_and_a_running_vm_is_not_started() {
    let (registry, _folder) = registry();
    registry.create_vm(new("web"), None, &asked()).unwrap();
    assert_eq!(change(&registry, "web", &Change::Start).unwrap().boot, 1);
    set(&registry, "web", Phase::Running, 1);
    assert_eq!(change(&registry, "web", &Change::Start).unwrap().boot, 1);
    assert_eq!(change(&registry, "web", &Change::Restart).unwrap().boot, 2);
    set(&registry, "web", Phase::Stopped, 2);
    assert_eq!(change(&registry, "web", &Change::Start).unwrap().boot, 3);
    set(&registry, "web", Phase::Running, 3);
    let paused = change(&registry, "web", &Change::Pause).unwrap();
    assert_eq!((paused.power, paused.boot), (Power::Paused, 3));
    assert_eq!(change(&registry, "web", &Change::Resume).unwrap().power, Power::On);
    let stopped = change(&registry, "web", &Change::Stop { is_forced: true }).unwrap();
    assert_eq!(stopped.power, Power::OffNow);
    // Asking politely does not give back time that was taken.
    let again = change(&registry, "web", &Change::Stop { is_forced: false }).unwrap();
    assert_eq!(again.power, Power::OffNow);
    let error = change(&registry, "web", &Change::Restart).unwrap_err();
    assert!(matches!(error, RegistryError::NotRunning(_)));
}

#[test]
fn what_runs_or_is_protected_is_not_deleted() {
    let (registry, _folder) = registry();
    registry.create_vm(new("web"), None, &asked()).unwrap();
    set(&registry, "web", Phase::Running, 1);
    let polite = Change::Delete { is_forced: false, keeps_disks: false };
    assert!(matches!(change(&registry, "web", &polite), Err(RegistryError::Running(_))));
    let protect = |is: bool| {
        let spec = move |old: &VmSpec| Ok(VmSpec { protected: is, ..old.clone() });
        registry.update::<Vm>(&name("default"), "web", spec, None).unwrap()
    };
    protect(true);
    let forced = Change::Delete { is_forced: true, keeps_disks: false };
    assert!(matches!(change(&registry, "web", &forced), Err(RegistryError::Protected(_))));
    protect(false);
    change(&registry, "web", &forced).unwrap();
    assert!(matches!(
        change(&registry, "web", &Change::Start),
        Err(RegistryError::Deleting { .. })
    ));
    let vm = registry.get::<Vm>(&name("default"), "web").unwrap().object;
    let (operations, _) = registry.operations(None).unwrap();
    let operations: Vec<_> = operations.into_iter().map(Arc::new).collect();
    let mut batch = Batch::default();
    registry.forget_vm(&mut batch, &vm, &operations, NOW).unwrap();
    assert_eq!(registry.write(batch).unwrap(), [true]);
    assert!(registry.get::<Vm>(&name("default"), "web").is_err());
    let (operations, _) = registry.operations(None).unwrap();
    assert!(operations.iter().all(|kept| kept.object.finished == Some(NOW)));
    registry.create_vm(new("web"), None, &asked()).unwrap();
}

#[test]
fn a_change_of_something_that_has_changed_is_refused() {
    let (registry, _folder) = registry();
    let (vm, _) = registry.create_vm(new("web"), None, &asked()).unwrap();
    let bigger = |old: &VmSpec| Ok(VmSpec { cpus: old.cpus + 1, ..old.clone() });
    let update = |revision| registry.update::<Vm>(&name("default"), "web", bigger, Some(revision));
    let updated = update(vm.revision).unwrap();
    assert_eq!(updated.object.spec.cpus, 2);
    assert!(matches!(update(vm.revision), Err(RegistryError::Changed)));
    // A status is no change of what its owner wants.
    set(&registry, "web", Phase::Running, 1);
    update(updated.revision).unwrap();
    let stale = Some(Revision(1));
    let stop = Change::Stop { is_forced: false };
    let error = registry.change_vm(&name("default"), "web", &stop, stale, &asked());
    assert!(matches!(error, Err(RegistryError::Changed)));
}

#[test]
fn what_is_decided_at_the_beginning_stays() {
    let (registry, _folder) = registry();
    registry.create_vm(new("web"), None, &asked()).unwrap();
    let image = |old: &VmSpec| Ok(VmSpec { image: Some("other".into()), ..old.clone() });
    let error = registry.update::<Vm>(&name("default"), "web", image, None).unwrap_err();
    assert!(matches!(error, RegistryError::Fixed("spec.image")));
    let cpus = |old: &VmSpec| Ok(VmSpec { cpus: 99, ..old.clone() });
    let error = registry.update::<Vm>(&name("default"), "web", cpus, None).unwrap_err();
    assert!(matches!(error, RegistryError::Spec(SpecError { field: "cpus", .. })));
}

#[test]
fn a_start_can_be_cancelled_once() {
    let (registry, _folder) = registry();
    let (_, operation) = registry.create_vm(new("web"), None, &asked()).unwrap();
    let cancelled = registry.cancel(operation.id, &asked()).unwrap();
    assert_eq!(cancelled.state, OperationState::Cancelled);
    let spec = registry.get::<Vm>(&name("default"), "web").unwrap().object.spec;
    assert_eq!(spec.power, Power::OffNow);
    let again = registry.cancel(operation.id, &asked());
    assert!(matches!(again, Err(RegistryError::NotCancellable(_))));
}

#[test]
fn an_answer_is_of_who_asked() {
    let (registry, _folder) = registry();
    let answer = Answer { request: "x".into(), status: 202, body: "{}".into() };
    registry.remember("uid:0", "k", &answer).unwrap();
    assert_eq!(registry.answer("uid:0", "k").unwrap(), Some(answer));
    assert_eq!(registry.answer("uid:1", "k").unwrap(), None);
}

#[test]
fn operations_that_are_long_over_are_forgotten() {
    let (registry, _folder) = registry();
    let (_, operation) = registry.create_vm(new("web"), None, &asked()).unwrap();
    let (_, running) = registry.create_vm(new("db"), None, &asked()).unwrap();
    registry.cancel(operation.id, &asked()).unwrap();
    registry.forget_operations(NOW + SignedDuration::from_hours(7 * 24)).unwrap();
    assert_eq!(registry.operations(None).unwrap().0.len(), 2);
    registry.forget_operations(NOW + SignedDuration::from_hours(8 * 24)).unwrap();
    let left = registry.operations(None).unwrap().0;
    assert_eq!(left.iter().map(|kept| kept.object.id).collect::<Vec<_>>(), [running.id]);
}

fn network(registry: &Registry, named: &str, ipv4: &str) -> Result<NetworkSpec, RegistryError> {
    let spec = NetworkSpec { ipv4: ipv4.parse().unwrap(), ..NetworkSpec::default() };
    let new = New { name: name(named), project: name("default"), spec };
    let taken = ["192.0.2.0/24".parse().unwrap()];
    registry.create_network(new, &taken, &asked()).map(|kept| kept.object.spec)
}

fn on(network: &str, address: Option<&str>) -> VmSpec {
    let card = json!({ "network": network, "address": address });
    serde_json::from_value(json!({ "networks": [card] })).unwrap()
}

fn create_on(registry: &Registry, vm: &str, spec: VmSpec) -> Result<CardStatus, RegistryError> {
    let new = New { spec, ..new(vm) };
    registry.create_vm(new, None, &asked()).map(|(vm, _)| vm.object.status.networks[0].clone())
}

#[test]
fn networks_get_subnets_that_nobody_has() {
    let (registry, _folder) = registry();
    let first = network(&registry, "a", "auto").unwrap();
    let second = network(&registry, "b", "auto").unwrap();
    assert_ne!((first.ipv4, first.ipv6), (second.ipv4, second.ipv6));
    let taken = network(&registry, "c", &first.ipv4.to_string());
    assert!(matches!(taken, Err(RegistryError::SubnetTaken(_))));
    // The host's own.
    let taken = network(&registry, "c", "192.0.2.128/25");
    assert!(matches!(taken, Err(RegistryError::SubnetTaken(_))));
    network(&registry, "c", "198.51.100.0/24").unwrap();
}

#[test]
fn an_address_is_one_cards_until_its_vm_is_forgotten() {
    let (registry, _folder) = registry();
    network(&registry, "lan", "10.1.2.0/29").unwrap();
    let first = create_on(&registry, "a", on("lan", None)).unwrap();
    assert_eq!(first.ipv4, Some("10.1.2.2".parse().unwrap()));
    assert!(first.mac.ends_with(":00:02") && first.interface.starts_with("trt-"), "{first:?}");
    let given = create_on(&registry, "b", on("lan", Some("10.1.2.4"))).unwrap();
    assert_eq!(given.ipv4, Some("10.1.2.4".parse().unwrap()));
    let taken = create_on(&registry, "c", on("lan", Some("10.1.2.4")));
    assert!(matches!(taken, Err(RegistryError::AddressTaken(_))));
    for outside in ["10.1.2.1", "10.1.2.7", "10.1.3.2"] {
        let outside = create_on(&registry, "c", on("lan", Some(outside)));
        assert!(matches!(outside, Err(RegistryError::AddressOutside(_))));
    }
    for vm in ["c", "d", "e"] {
        create_on(&registry, vm, on("lan", None)).unwrap();
    }
    let full = create_on(&registry, "f", on("lan", None));
    assert!(matches!(full, Err(RegistryError::NetworkFull(_))));
    assert_eq!(registry.addresses(None).unwrap().0.len(), 5);
    let used = registry.delete_network(&name("default"), "lan", None);
    assert!(matches!(used, Err(RegistryError::InUse { .. })));

    let vm: Vm = registry.get(&name("default"), "a").unwrap().object;
    let mut batch = Batch::default();
    registry.forget_vm(&mut batch, &vm, &[], NOW).unwrap();
    assert_eq!(registry.write(batch).unwrap(), [true]);
    assert_eq!(create_on(&registry, "f", on("lan", None)).unwrap().ipv4, first.ipv4);
}

#[test]
fn which_network_a_card_is_on_is_decided_once_and_its_groups_are_not() {
    let (registry, _folder) = registry();
    network(&registry, "lan", "10.1.2.0/29").unwrap();
    create_on(&registry, "a", on("lan", None)).unwrap();
    let update = |change: &dyn Fn(&mut VmSpec)| {
        let patched = |old: &VmSpec| {
            let mut new = old.clone();
            change(&mut new);
            Ok(new)
        };
        registry.update::<Vm>(&name("default"), "a", patched, None)
    };
    let moved = update(&|spec| spec.networks.clear());
    assert!(matches!(moved, Err(RegistryError::Fixed(_))));
    update(&|spec| spec.networks[0].security_groups.clear()).unwrap();
}

#[test]
fn a_security_group_that_is_named_stays() {
    let (registry, _folder) = registry();
    network(&registry, "lan", "10.1.2.0/29").unwrap();
    let (project, mut spec) = (name("default"), on("lan", None));
    spec.networks[0].security_groups = vec![name("web")];
    let missing = create_on(&registry, "a", spec.clone());
    assert!(matches!(missing, Err(RegistryError::Missing { kind: "security group", .. })));
    let new =
        New { name: name("web"), project: project.clone(), spec: SecurityGroupSpec::default() };
    registry.create_security_group(new, &asked()).unwrap();
    create_on(&registry, "a", spec).unwrap();
    for named in ["web", "default"] {
        let used = registry.delete_security_group(&project, named, None);
        assert!(matches!(used, Err(RegistryError::InUse { .. })));
    }
}

#[test]
fn a_port_of_the_host_leads_to_one_vm() {
    let (registry, _folder) = registry();
    network(&registry, "lan", "10.1.2.0/29").unwrap();
    let mut spec = on("lan", None);
    let port = json!([{ "host_port": 8080, "guest_port": 80 }]);
    spec.networks[0].ports = serde_json::from_value(port).unwrap();
    create_on(&registry, "a", spec.clone()).unwrap();
    registry.check_cards(&spec, &name("default"), Some("a")).unwrap();
    spec.networks[0].ports[0].host_address = Some("0.0.0.0".parse().unwrap());
    let taken = create_on(&registry, "b", spec);
    assert!(matches!(taken, Err(RegistryError::PortTaken { port: 8080, .. })));
}

#[test]
fn a_project_goes_with_its_first_security_group() {
    let (registry, _folder) = registry();
    registry.create_project(name("other"), Quota::default(), NOW).unwrap();
    assert_eq!(registry.all::<SecurityGroup>(None).unwrap().0.len(), 2);
    registry.delete_project(&name("other"), None).unwrap();
    assert_eq!(registry.all::<SecurityGroup>(None).unwrap().0.len(), 1);
    // One of a version that made none gets it.
    registry.found(NOW).unwrap();
    assert_eq!(registry.all::<SecurityGroup>(None).unwrap().0.len(), 1);
}
