//! What projects take together, and that none comes to be or goes in between.

use std::sync::{Barrier, Mutex};
use std::thread;

use model::{Amounts, Disk, DiskSpec};
use store::{Commit, Entry, LeaseId, Op, Page, Range, Store, StoreError, Txn, Watch};

use super::*;

fn quota(registry: &Registry, quota: Quota) {
    registry.set_project_quota(&name("default"), |_| Ok(quota), None).unwrap();
}

fn used(registry: &Registry) -> Amounts {
    registry.used(&name("default")).unwrap()
}

fn forget(registry: &Registry, vm: &str) {
    let vm = registry.get::<Vm>(&name("default"), vm).unwrap().object;
    let mut batch = Batch::default();
    registry.forget_vm(&mut batch, &vm, &[], NOW).unwrap();
    registry.write(batch).unwrap();
}

#[test]
fn what_objects_take_is_counted_when_they_come_change_and_go() {
    let (registry, _folder) = registry();
    assert_eq!(used(&registry), Amounts::default());
    registry.create_vm(new("a"), None, &asked()).unwrap();
    registry.create_vm(new("b"), None, &asked()).unwrap();
    let larger = |old: &VmSpec| Ok(VmSpec { cpus: 4, ..old.clone() });
    registry.update::<Vm>(&name("default"), "b", larger, None).unwrap();
    let spec: DiskSpec = serde_json::from_value(json!({ "size_bytes": 1 << 20 })).unwrap();
    let disk = New::<Disk> { name: name("d"), project: name("default"), spec };
    registry.create_disk(disk, &asked()).unwrap();
    registry.resize_disk(&name("default"), "d", 3 << 20, None, &asked()).unwrap();
    let expected = Amounts {
        vms: 2,
        cpus: 5,
        memory_bytes: 1 << 30,
        disk_bytes: 3 << 20,
        ..Amounts::default()
    };
    assert_eq!(used(&registry), expected);
    forget(&registry, "a");
    assert_eq!(used(&registry).vms, 1);
}

#[test]
fn what_does_not_fit_into_a_quota_is_refused_and_what_is_there_stays() {
    let (registry, _folder) = registry();
    registry.create_vm(new("a"), None, &asked()).unwrap();
    registry.create_vm(new("b"), None, &asked()).unwrap();
    quota(&registry, Quota { cpus: Some(1), ..Quota::default() });
    let error = registry.create_vm(new("c"), None, &asked()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "project 'default' may have 1 CPUs, 2 are taken and 1 more are asked for: delete some, or \
         let an administrator raise its quota"
    );
    // Labels can be changed all the same, and what makes it less.
    let label = |old: &VmSpec| Ok(VmSpec { protected: true, ..old.clone() });
    registry.update::<Vm>(&name("default"), "a", label, None).unwrap();
    let more = |old: &VmSpec| Ok(VmSpec { cpus: 2, ..old.clone() });
    let error = registry.update::<Vm>(&name("default"), "a", more, None).unwrap_err();
    assert!(matches!(error, RegistryError::ProjectQuota { .. }));
    quota(&registry, Quota { cpus: Some(2), ..Quota::default() });
    forget(&registry, "b");
    registry.create_vm(new("c"), None, &asked()).unwrap();
}

#[test]
fn of_many_who_ask_at_once_as_many_get_something_as_there_is_room_for() {
    let (registry, _folder) = registry();
    quota(&registry, Quota { vms: Some(5), ..Quota::default() });
    let (begin, other) = (Barrier::new(16), Registry::new(registry.store().clone()));
    let made = thread::scope(|scope| {
        let ask = |n: usize| {
            // Of two daemons on one store.
            let registry = if n.is_multiple_of(2) { &registry } else { &other };
            let begin = &begin;
            move || {
                begin.wait();
                match registry.create_vm(new(&format!("vm{n}")), None, &asked()) {
                    Ok(_) => true,
                    Err(RegistryError::ProjectQuota { .. }) => false,
                    Err(error) => panic!("{error}"),
                }
            }
        };
        let all: Vec<_> = (0..16).map(|n| scope.spawn(ask(n))).collect();
        all.into_iter().map(|one| one.join().unwrap()).filter(|is| *is).count()
    });
    assert_eq!((made, used(&registry).vms), (5, 5));
}

/// A store in which somebody makes a VM at the moment when its project is written or deleted.
struct Late {
    store: Arc<dyn Store>,
    registry: Registry,
    at: fn(&Op) -> bool,
    made: Mutex<Option<Result<(), RegistryError>>>,
}

impl Store for Late {
    fn get(&self, key: &str) -> Result<(Option<Entry>, Revision), StoreError> {
        self.store.get(key)
    }

    fn range(&self, range: &Range) -> Result<Page, StoreError> {
        self.store.range(range)
    }

    fn commit(&self, txn: &Txn) -> Result<Commit, StoreError> {
        let is_then = txn.then.iter().any(|op| op.key() == "/projects/other" && (self.at)(op));
        let mut made = self.made.lock().unwrap();
        if is_then && made.is_none() {
            let late = New { project: name("other"), ..new("late") };
            *made = Some(self.registry.create_vm(late, None, &asked()).map(drop));
        }
        self.store.commit(txn)
    }

    fn watch(&self, prefix: &str, from: Revision) -> Result<Watch, StoreError> {
        self.store.watch(prefix, from)
    }

    fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.store.compact(revision)
    }

    fn grant(&self, ttl: std::time::Duration) -> Result<LeaseId, StoreError> {
        self.store.grant(ttl)
    }

    fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.store.keep_alive(lease)
    }

    fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.store.revoke(lease)
    }
}

#[test]
fn a_project_gets_a_vm_or_is_deleted_but_not_both() {
    let moments: [fn(&Op) -> bool; 2] =
        [|op| matches!(op, Op::Put(..)), |op| matches!(op, Op::Delete(_))];
    for (at, is_kept) in moments.into_iter().zip([true, false]) {
        let (registry, _folder) = registry();
        registry.create_project(name("other"), Quota::default(), NOW).unwrap();
        let (store, of) = (registry.store().clone(), registry.clone());
        let late = Arc::new(Late { store, registry: of, at, made: Mutex::default() });
        let deleted = Registry::new(late.clone()).delete_project(&name("other"), None);
        let made = late.made.lock().unwrap().take().unwrap();
        assert_eq!(deleted.is_err(), is_kept, "{deleted:?}");
        assert_eq!(made.is_ok(), is_kept, "{made:?}");
        assert_eq!(registry.get::<Vm>(&name("other"), "late").is_ok(), is_kept);
        assert_eq!(registry.project(&name("other")).is_ok(), is_kept);
        if is_kept {
            let more = New { project: name("other"), ..new("more") };
            registry.create_vm(more, None, &asked()).unwrap();
        }
    }
}
