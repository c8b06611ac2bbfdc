//! What may be asked for, and what is written down then.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use model::{Name, OperationState, Phase, Power, Requestor, Role, SpecError, Vm, VmSpec, VmStatus};
use store::{Embedded, Revision};

use crate::{Answer, Asked, Change, Digest, New, Registry, RegistryError};

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
    let (vm, operation) = registry.create_vm(new("web"), &asked()).unwrap();
    assert_eq!((operation.state, operation.boot), (OperationState::Running, 1));
    let id = vm.object.meta.id.to_string();
    assert_eq!(registry.get::<Vm>(&name("default"), "web").unwrap(), vm);
    assert_eq!(registry.get::<Vm>(&name("default"), &id).unwrap(), vm);
    registry.create_project(name("other"), NOW).unwrap();
    for missing in ["web", &id] {
        let error = registry.get::<Vm>(&name("other"), missing).unwrap_err();
        assert!(matches!(error, RegistryError::Missing { kind: "VM", .. }));
    }
    assert_eq!(registry.all::<Vm>(None).unwrap().0, [vm]);
    assert_eq!(registry.operation(operation.id).unwrap().object, operation);
}

#[test]
fn a_name_is_taken_once_in_a_project() {
    let (registry, _folder) = registry();
    registry.create_vm(new("web"), &asked()).unwrap();
    let error = registry.create_vm(new("web"), &asked()).unwrap_err();
    assert!(matches!(error, RegistryError::Exists { kind: "VM", .. }));
    registry.create_project(name("other"), NOW).unwrap();
    registry.create_vm(New { project: name("other"), ..new("web") }, &asked()).unwrap();
    let nowhere = registry.create_vm(New { project: name("none"), ..new("web") }, &asked());
    assert!(matches!(nowhere, Err(RegistryError::Missing { kind: "project", .. })));
    assert_eq!(registry.all::<Vm>(None).unwrap().0.len(), 2);
    assert!(matches!(registry.delete_project(&name("other")), Err(RegistryError::NotEmpty(_))));
}

#[test]
fn starts_are_counted_and_a_running_vm_is_not_started() {
    let (registry, _folder) = registry();
    registry.create_vm(new("web"), &asked()).unwrap();
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
    registry.create_vm(new("web"), &asked()).unwrap();
    set(&registry, "web", Phase::Running, 1);
    let polite = Change::Delete { is_forced: false };
    assert!(matches!(change(&registry, "web", &polite), Err(RegistryError::Running(_))));
    let protect = |is: bool| {
        let spec = move |old: &VmSpec| Ok(VmSpec { protected: is, ..old.clone() });
        registry.update::<Vm>(&name("default"), "web", spec, None).unwrap()
    };
    protect(true);
    let forced = Change::Delete { is_forced: true };
    assert!(matches!(change(&registry, "web", &forced), Err(RegistryError::Protected(_))));
    protect(false);
    change(&registry, "web", &forced).unwrap();
    assert!(matches!(
        change(&registry, "web", &Change::Start),
        Err(RegistryError::Deleting { .. })
    ));
    let vm = registry.get::<Vm>(&name("default"), "web").unwrap().object;
    let (operations, _) = registry.operations(None).unwrap();
    registry.forget(&vm, &operations, NOW).unwrap();
    assert!(registry.get::<Vm>(&name("default"), "web").is_err());
    let (operations, _) = registry.operations(None).unwrap();
    assert!(operations.iter().all(|kept| kept.object.finished == Some(NOW)));
    registry.create_vm(new("web"), &asked()).unwrap();
}

#[test]
fn a_change_of_something_that_has_changed_is_refused() {
    let (registry, _folder) = registry();
    let (vm, _) = registry.create_vm(new("web"), &asked()).unwrap();
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
    registry.create_vm(new("web"), &asked()).unwrap();
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
    let (_, operation) = registry.create_vm(new("web"), &asked()).unwrap();
    let cancelled = registry.cancel(operation.id, &asked()).unwrap();
    assert_eq!(cancelled.state, OperationState::Cancelled);
    let spec = registry.get::<Vm>(&name("default"), "web").unwrap().object.spec;
    assert_eq!(spec.power, Power::OffNow);
    let again = registry.cancel(operation.id, &asked());
    assert!(matches!(again, Err(RegistryError::NotCancellable(_))));
}

#[test]
fn a_token_is_good_until_it_expires_or_is_deleted() {
    let (registry, _folder) = registry();
    let digest = Digest("d".into());
    let later = NOW + SignedDuration::from_secs(60);
    let make = |expires| {
        registry.create_token(name("ci"), Role::Operator, expires, digest.clone(), NOW).unwrap()
    };
    let token = make(Some(later));
    assert_eq!(registry.token_of(&digest, NOW).unwrap(), Some(token));
    assert_eq!(registry.token_of(&digest, later).unwrap(), None);
    assert_eq!(registry.token_of(&Digest("e".into()), NOW).unwrap(), None);
    registry.delete_token(&name("ci")).unwrap();
    assert_eq!(registry.token_of(&digest, NOW).unwrap(), None);
    make(None);
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
    let (_, operation) = registry.create_vm(new("web"), &asked()).unwrap();
    let (_, running) = registry.create_vm(new("db"), &asked()).unwrap();
    registry.cancel(operation.id, &asked()).unwrap();
    let (all, _) = registry.operations(None).unwrap();
    registry.forget_operations(&all, NOW + SignedDuration::from_hours(7 * 24)).unwrap();
    assert_eq!(registry.operations(None).unwrap().0.len(), 2);
    registry.forget_operations(&all, NOW + SignedDuration::from_hours(8 * 24)).unwrap();
    let left = registry.operations(None).unwrap().0;
    assert_eq!(left.iter().map(|kept| kept.object.id).collect::<Vec<_>>(), [running.id]);
}
