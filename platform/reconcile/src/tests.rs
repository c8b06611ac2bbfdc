//! Reconcilers over a simulated host.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use model::{
    Card, CardModel, Disk, DiskPhase, DiskSource, ImageRef, Name, NetworkPhase, NetworkSpec, OnEnd,
    Operation, OperationState, Phase, Power, Requestor, SecurityGroup, Snapshot, SnapshotSpec,
    VirtualNetwork, Vm, VmSpec, VmStatus,
};
use registry::{Asked, Change, New, Registry, RegistryError, RootDisk};
use store::Embedded;

use crate::simulated::{Luck, SimulatedHosts};
use crate::{Host, Process, Readiness, Reconciler, Report, Seen, Size, WantedNetworks, WantedPeer};

/// A step's time: all that the host has is looked at.
const STEP: SignedDuration = SignedDuration::from_secs(5);
/// One in which only what has changed is.
const SHORT_STEP: SignedDuration = SignedDuration::from_millis(100);

struct World {
    registry: Registry,
    host: Arc<SimulatedHosts>,
    reconciler: Reconciler,
    now: Timestamp,
    _folder: tempfile::TempDir,
}

impl World {
    fn new(seed: u64) -> Self {
        Self::on(SimulatedHosts::one(seed))
    }

    fn on(hosts: SimulatedHosts) -> Self {
        // In memory where there is such a place: no test here is about the medium.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let registry = Registry::new(Arc::new(Embedded::open(folder.path()).unwrap()));
        registry.found(Timestamp::UNIX_EPOCH).unwrap();
        let host = Arc::new(hosts);
        let reconciler = Reconciler::new(registry.clone(), host.clone());
        Self { registry, host, reconciler, now: Timestamp::UNIX_EPOCH, _folder: folder }
    }

    /// One where nothing goes wrong.
    fn lucky() -> Self {
        let world = Self::new(1);
        world.host.heal();
        world
    }

    fn asked(&self) -> Asked {
        Asked { by: Requestor { who: "uid:0".into(), request: "r".into() }, at: self.now }
    }

    fn create(&self, name: &str, spec: VmSpec) -> Operation {
        let new = New::<Vm> { name: name.parse().unwrap(), project: project(), spec };
        let root = new.spec.image.clone().map(root);
        self.registry.create_vm(new, root, &self.asked()).unwrap().1
    }

    fn disk(&self, name: &str) -> Disk {
        self.registry.get(&project(), name).unwrap().object
    }

    fn create_disk(&self, name: &str) -> Operation {
        self.registry.create_disk(new_disk(name), &self.asked()).unwrap().1
    }

    fn snapshot(&self, name: &str, vm: &str) -> Result<Operation, RegistryError> {
        let spec = SnapshotSpec { vm: Some(vm.parse().unwrap()), ..SnapshotSpec::default() };
        let new = New { name: name.parse().unwrap(), project: project(), spec };
        Ok(self.registry.create_snapshot(new, &self.asked())?.1)
    }

    fn change(&self, name: &str, change: &Change) -> Operation {
        self.registry.change_vm(&project(), name, change, None, &self.asked()).unwrap()
    }

    /// A network that is small enough to be filled.
    fn create_network(&self, name: &str) {
        let ipv4 = "10.1.2.0/29".parse().unwrap();
        let spec = NetworkSpec { ipv4, ..NetworkSpec::default() };
        let new = New { name: name.parse().unwrap(), project: project(), spec };
        self.registry.create_network(new, &[], &self.asked()).unwrap();
    }

    fn network(&self, name: &str) -> VirtualNetwork {
        self.registry.get(&project(), name).unwrap().object
    }

    fn vm(&self, name: &str) -> Vm {
        self.registry.get(&project(), name).unwrap().object
    }

    fn state(&self, operation: &Operation) -> OperationState {
        self.registry.operation(operation.id).unwrap().object.state
    }

    fn step(&mut self) -> Report {
        self.now += STEP;
        self.host.pass();
        self.reconciler.step(self.now).unwrap()
    }

    fn settle(&mut self) {
        for _ in 0..400 {
            if !self.step().is_unsettled {
                return;
            }
        }
        panic!("it does not come to rest: {:#?}", self.registry.all::<Vm>(None).unwrap().0);
    }
}

/// A VM with a card on the network `lan`.
fn on_lan() -> VmSpec {
    let card = Card {
        network: "lan".parse().unwrap(),
        model: CardModel::Virtio,
        address: None,
        security_groups: vec![Name::default_name()],
        ports: Vec::new(),
    };
    VmSpec { networks: vec![card], ..VmSpec::default() }
}

fn project() -> Name {
    "default".parse().unwrap()
}

fn root(image: String) -> RootDisk {
    let image = ImageRef { id: image.clone(), name: image };
    RootDisk { source: DiskSource::Image(image), size_bytes: 1 << 30 }
}

fn new_disk(name: &str) -> New<Disk> {
    let spec = serde_json::json!({ "size_bytes": 1 << 20 });
    let spec = serde_json::from_value(spec).unwrap();
    New { name: name.parse().unwrap(), project: project(), spec }
}

#[test]
fn a_vm_is_prepared_started_paused_stopped_and_deleted() {
    let mut world = World::lucky();
    let created = world.create("a", VmSpec { image: Some("image".into()), ..VmSpec::default() });
    let report = world.step();
    assert_eq!(report.phases.get(&Phase::Preparing), Some(&1));
    assert_eq!(world.state(&created), OperationState::Running);
    world.settle();
    assert_eq!(world.vm("a").status.phase, Phase::Running);
    assert_eq!(world.state(&created), OperationState::Done);

    let paused = world.change("a", &Change::Pause);
    world.settle();
    assert_eq!(
        (world.vm("a").status.phase, world.state(&paused)),
        (Phase::Paused, OperationState::Done)
    );

    // A guest that stands hears no power button.
    let stopped = world.change("a", &Change::Stop { is_forced: false });
    world.settle();
    let status = world.vm("a").status;
    assert_eq!((status.phase, world.state(&stopped)), (Phase::Stopped, OperationState::Done));
    assert!(status.last_end.unwrap().is_orderly);

    let started = world.change("a", &Change::Start);
    world.settle();
    assert_eq!((world.vm("a").status.boot, world.state(&started)), (2, OperationState::Done));

    let id = world.vm("a").meta.id;
    let deleted = world.change("a", &Change::Delete { is_forced: true, keeps_disks: false });
    world.settle();
    assert!(world.registry.all::<Vm>(None).unwrap().0.is_empty() && !world.host.has(id));
    assert_eq!(world.state(&deleted), OperationState::Done);
}

#[test]
fn a_restart_is_another_boot() {
    let mut world = World::lucky();
    world.create("a", VmSpec::default());
    world.settle();
    let restarted = world.change("a", &Change::Restart);
    world.settle();
    let status = world.vm("a").status;
    assert_eq!((status.phase, status.boot), (Phase::Running, 2));
    assert_eq!(world.state(&restarted), OperationState::Done);
}

#[test]
fn a_vm_that_is_made_to_be_off_is_made_and_off() {
    let mut world = World::lucky();
    let created = world.create("a", VmSpec { power: Power::Off, ..VmSpec::default() });
    world.settle();
    let status = world.vm("a").status;
    assert_eq!((status.phase, status.boot), (Phase::Stopped, 0));
    assert_eq!(world.state(&created), OperationState::Done);
}

#[test]
fn a_disk_that_cannot_be_made_fails_and_so_does_its_vm() {
    let mut world = World::lucky();
    let spec = VmSpec { image: Some("missing".into()), ..VmSpec::default() };
    let created = world.create("a", spec);
    world.settle();
    assert_eq!(world.vm("a").status.phase, Phase::Failed);
    let operation = world.registry.operation(created.id).unwrap().object;
    assert_eq!(operation.state, OperationState::Failed);
    assert!(operation.error.unwrap().message.contains("missing"));
    // Somebody imports it, and it goes on by itself.
    assert_eq!(world.disk("a").status.phase, DiskPhase::Failed);
    world.step();
    world.change("a", &Change::Delete { is_forced: true, keeps_disks: false });
    world.settle();
    assert!(!world.host.has_disks());
}

#[test]
fn a_start_that_is_cancelled_leaves_a_vm_that_is_off() {
    let mut world = World::lucky();
    let created = world.create("a", VmSpec::default());
    world.step();
    world.registry.cancel(created.id, &world.asked()).unwrap();
    world.settle();
    assert_eq!(world.vm("a").status.phase, Phase::Stopped);
    assert_eq!(world.state(&created), OperationState::Cancelled);
}

#[test]
fn a_disk_comes_to_a_running_vm_grows_and_goes() {
    let mut world = World::lucky();
    world.create("a", VmSpec::default());
    world.create_disk("data");
    world.settle();
    let asked = world.asked();
    let attached = world.registry.attach_disk(&project(), "data", "a", None, &asked).unwrap();
    world.settle();
    assert_eq!(world.state(&attached), OperationState::Done);
    let name: Name = "data".parse().unwrap();
    assert_eq!(world.vm("a").status.disks, [name]);
    assert_eq!(world.disk("data").status.vm, Some("a".parse().unwrap()));
    world.create("b", VmSpec::default());
    let error = world.registry.attach_disk(&project(), "data", "b", None, &asked).unwrap_err();
    assert!(matches!(error, RegistryError::Attached { .. }));
    let error = world.registry.delete_disk(&project(), "data", true, None, &asked).unwrap_err();
    assert!(matches!(error, RegistryError::Attached { .. }));

    let resize = |bytes| world.registry.resize_disk(&project(), "data", bytes, None, &asked);
    assert!(matches!(resize(512), Err(RegistryError::Shrink { .. })));
    let resized = resize(2 << 20).unwrap();
    world.settle();
    assert_eq!(world.state(&resized), OperationState::Done);
    assert_eq!(world.disk("data").status.size_bytes, 2 << 20);

    let detached = world.registry.detach_disk(&project(), "data", None, &asked).unwrap();
    world.settle();
    assert_eq!(world.state(&detached), OperationState::Done);
    assert!(world.vm("a").status.disks.is_empty() && world.disk("data").status.vm.is_none());
    world.registry.delete_disk(&project(), "data", false, None, &asked).unwrap();
    world.settle();
    assert!(!world.host.has_disks());
}

#[test]
fn a_snapshot_is_taken_reverted_to_when_the_vm_is_off_and_deleted() {
    let mut world = World::lucky();
    world.create("a", VmSpec { image: Some("image".into()), ..VmSpec::default() });
    world.settle();
    let taken = world.snapshot("before", "a").unwrap();
    world.settle();
    assert_eq!(world.state(&taken), OperationState::Done);
    let asked = world.asked();
    let revert = |world: &World| world.registry.revert(&project(), "before", &asked);
    assert!(matches!(revert(&world), Err(RegistryError::RunningDisk(_))));
    world.change("a", &Change::Stop { is_forced: true });
    world.settle();
    let reverted = revert(&world).unwrap();
    // A start waits for it.
    world.change("a", &Change::Start);
    world.settle();
    assert_eq!(world.state(&reverted), OperationState::Done);
    assert_eq!((world.disk("a").status.reverts, world.host.double_starts()), (1, 0));
    let deleted = world.registry.delete_snapshot(&project(), "before", &asked).unwrap();
    world.settle();
    assert_eq!(world.state(&deleted), OperationState::Done);
    assert_eq!(world.vm("a").status.phase, Phase::Running);
}

#[test]
fn disks_that_are_to_be_kept_outlive_their_vm() {
    let mut world = World::lucky();
    world.create("a", VmSpec { image: Some("image".into()), ..VmSpec::default() });
    world.settle();
    world.change("a", &Change::Delete { is_forced: true, keeps_disks: true });
    world.settle();
    assert!(world.registry.all::<Vm>(None).unwrap().0.is_empty());
    assert_eq!(world.disk("a").spec.vm, None);
    // And another VM can have it.
    world.create("b", VmSpec { disks: vec!["a".parse().unwrap()], ..VmSpec::default() });
    world.settle();
    assert_eq!(world.vm("b").status.phase, Phase::Running);
}

#[test]
fn another_change_takes_over_from_the_one_before() {
    let mut world = World::lucky();
    world.create("a", VmSpec::default());
    world.settle();
    let stopped = world.change("a", &Change::Stop { is_forced: false });
    world.reconciler.step(world.now).unwrap();
    let started = world.change("a", &Change::Start);
    world.settle();
    assert_eq!(world.state(&stopped), OperationState::Cancelled);
    assert_eq!(world.state(&started), OperationState::Done);
    assert_eq!(world.vm("a").status.phase, Phase::Running);
}

fn running(spec: VmSpec) -> (Vm, Seen) {
    let world = World::lucky();
    world.create("a", spec);
    let mut vm = world.vm("a");
    vm.status = VmStatus { boot: 1, ..VmStatus::default() };
    let process = Process::Live {
        boot: 1,
        pid: 7,
        engine: model::Engine::Hw,
        engine_reason: String::new(),
        cage: model::Cage::default(),
        is_paused: false,
        size: Size {
            cpus: 1,
            cpus_max: 4,
            memory_bytes: 512 << 20,
            memory_max_bytes: 1 << 30,
            memory_step_bytes: 128 << 20,
        },
        disks: Vec::new(),
    };
    let seen = Seen { id: vm.meta.id, process };
    (vm, seen)
}

#[test]
fn what_there_is_room_for_comes_at_once_and_the_rest_at_the_next_start() {
    let (vm, seen) = running(VmSpec::default());
    let now = Timestamp::UNIX_EPOCH;
    let decided = |cpus, mib: u64| {
        let spec = VmSpec { cpus, memory_bytes: mib << 20, ..vm.spec.clone() };
        let (status, action) =
            crate::decide(&Vm { spec, ..vm.clone() }, Some(&seen), &Readiness::Ready, now);
        let waits = status.at_next_start.join(",");
        let grown = action.map(|action| match action {
            crate::Action::Grow { cpus, memory_bytes } => (cpus, memory_bytes.map(|of| of >> 20)),
            other => panic!("{other:?}"),
        });
        (grown, waits)
    };
    assert_eq!(decided(1, 512), (None, String::new()));
    assert_eq!(decided(4, 512), (Some((Some(4), None)), String::new()));
    // In whole steps.
    assert_eq!(decided(1, 600), (Some((None, Some(640))), String::new()));
    assert_eq!(decided(1, 1000), (Some((None, Some(1024))), String::new()));
    assert_eq!(decided(5, 1024), (Some((None, Some(1024))), "cpus".to_owned()));
    assert_eq!(decided(2, 2048), (Some((Some(2), None)), "memory_bytes".to_owned()));
    // Less only comes with a start, but for what came with the last step.
    assert_eq!(decided(1, 400), (None, String::new()));
    assert_eq!(decided(1, 384), (None, "memory_bytes".to_owned()));
}

#[test]
fn a_vm_that_runs_is_resized_and_the_operation_says_when() {
    let mut world = World::lucky();
    let bounds = VmSpec { cpus_max: Some(4), memory_max_bytes: Some(1 << 30), ..VmSpec::default() };
    world.create("a", bounds);
    world.settle();
    let resize = |cpus, memory_bytes| Change::Resize { cpus, memory_bytes };
    let operation = world.change("a", &resize(Some(3), Some(768 << 20)));
    world.settle();
    assert_eq!(world.state(&operation), OperationState::Done);
    let status = world.vm("a").status;
    assert_eq!((status.cpus, status.memory_bytes), (Some(3), Some(768 << 20)));
    assert!(status.at_next_start.is_empty());

    // Beyond its bounds nothing comes before a start; then all does.
    let operation = world.change("a", &resize(Some(1), None));
    world.settle();
    assert_eq!(world.state(&operation), OperationState::Done);
    let status = world.vm("a").status;
    assert_eq!((status.cpus, status.at_next_start), (Some(3), vec!["cpus".to_owned()]));
    world.change("a", &Change::Restart);
    world.settle();
    let status = world.vm("a").status;
    assert_eq!((status.cpus, status.memory_bytes), (Some(1), Some(768 << 20)));
    assert!(status.at_next_start.is_empty());
}

#[test]
fn a_guest_that_does_not_shut_down_in_its_time_is_ended() {
    let (mut vm, seen) = running(VmSpec { stop_limit_s: 30, ..VmSpec::default() });
    vm.spec.power = Power::Off;
    let now = Timestamp::UNIX_EPOCH;
    let (status, action) = crate::decide(&vm, Some(&seen), &Readiness::Ready, now);
    assert_eq!((status.phase, action), (Phase::Stopping, Some(crate::Action::PowerButton)));
    vm.status = status;
    let later = |s| now + SignedDuration::from_secs(s);
    assert_eq!(crate::decide(&vm, Some(&seen), &Readiness::Ready, later(29)).1, None);
    assert_eq!(
        crate::decide(&vm, Some(&seen), &Readiness::Ready, later(30)).1,
        Some(crate::Action::End)
    );
}

#[test]
fn a_guest_that_fails_again_and_again_is_started_less_and_less_often() {
    let (mut vm, mut seen) = running(VmSpec { on_end: OnEnd::Restart, ..VmSpec::default() });
    let end = model::VmEnd { boot: 1, is_orderly: false, how: "killed".into(), ran_s: 1 };
    seen.process = Process::Ended(end);
    let mut now = Timestamp::UNIX_EPOCH;
    let mut waits = Vec::new();
    for _ in 0..10 {
        let (status, action) = crate::decide(&vm, Some(&seen), &Readiness::Ready, now);
        assert_eq!(action, None);
        let at = status.retry_at.unwrap();
        waits.push(at.duration_since(now).as_secs());
        vm.status = status;
        now = at;
        let (status, action) = crate::decide(&vm, Some(&seen), &Readiness::Ready, now);
        assert_eq!(action, Some(crate::Action::Start));
        vm.status = status;
    }
    assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 256, 256]);
}

#[test]
fn a_clock_that_is_set_back_makes_no_wait_longer() {
    let (mut vm, mut seen) = running(VmSpec { stop_limit_s: 30, ..VmSpec::default() });
    vm.spec.power = Power::Off;
    let year = SignedDuration::from_hours(365 * 24);
    let then = Timestamp::UNIX_EPOCH + year;
    vm.status = crate::decide(&vm, Some(&seen), &Readiness::Ready, then).0;
    let mut now = then - year;
    vm.status = crate::decide(&vm, Some(&seen), &Readiness::Ready, now).0;
    now += SignedDuration::from_secs(30);
    assert_eq!(crate::decide(&vm, Some(&seen), &Readiness::Ready, now).1, Some(crate::Action::End));

    vm.spec = VmSpec { on_end: OnEnd::Restart, boot: 1, ..VmSpec::default() };
    vm.status = VmStatus { boot: 1, ..VmStatus::default() };
    let end = model::VmEnd { boot: 1, is_orderly: false, how: "killed".into(), ran_s: 1 };
    seen.process = Process::Ended(end);
    vm.status = crate::decide(&vm, Some(&seen), &Readiness::Ready, then).0;
    assert!(vm.status.retry_at.is_some_and(|at| at > then));
    now = then - year;
    vm.status = crate::decide(&vm, Some(&seen), &Readiness::Ready, now).0;
    now += SignedDuration::from_secs(2);
    assert_eq!(
        crate::decide(&vm, Some(&seen), &Readiness::Ready, now).1,
        Some(crate::Action::Start)
    );
}

#[test]
fn what_the_store_does_not_know_is_left_alone_and_told() {
    let mut world = World::lucky();
    world.create("a", VmSpec::default());
    world.settle();
    let vm = world.vm("a");
    let empty = World::lucky();
    let host: Arc<dyn Host> = world.host.clone();
    let mut forgetful = Reconciler::new(empty.registry.clone(), host);
    assert_eq!(forgetful.step(world.now).unwrap().strays, [vm.meta.id]);
    assert!(world.host.has(vm.meta.id));
}

/// What people do with disks. It may not be possible.
fn storage_wishes(world: &World, luck: &mut Luck, name: &str, operations: &mut Vec<Operation>) {
    let (registry, asked, of) = (&world.registry, world.asked(), project());
    let done = match luck.below(9) {
        0 => registry.create_disk(new_disk(name), &asked).map(|(_, operation)| operation),
        1 => registry.attach_disk(&of, name, "b", None, &asked),
        2 => registry.detach_disk(&of, name, None, &asked),
        3 => registry.resize_disk(&of, name, (2 + luck.below(9)) << 30, None, &asked),
        4 => registry.delete_disk(&of, name, luck.one_in(2), None, &asked),
        5 => world.snapshot(name, "b"),
        6 => registry.revert(&of, name, &asked),
        7 => registry.delete_snapshot(&of, name, &asked),
        _ => return,
    };
    operations.extend(done);
}

#[test]
fn a_vm_for_which_no_host_has_room_waits_for_one_and_says_so() {
    let offers = SimulatedHosts::offers_of(2);
    let mut world = World::on(SimulatedHosts::new(1, offers));
    world.host.heal();
    let large = VmSpec { memory_bytes: 200 << 30, ..VmSpec::default() };
    for name in ["a", "b"] {
        world.create(name, large.clone());
        world.settle();
    }
    let hosts: Vec<_> = ["a", "b"].map(|name| world.vm(name).status.host).into();
    assert_eq!(hosts, [Some("host-0000".to_owned()), Some("host-0001".to_owned())]);
    let operation = world.create("c", large);
    world.settle();
    let status = world.vm("c").status;
    assert_eq!((status.phase, status.host), (Phase::Pending, None));
    assert!(status.reason.unwrap().contains("no host has 204800 MiB"));
    assert_eq!(world.state(&operation), OperationState::Running);
    world.change("a", &Change::Stop { is_forced: true });
    world.settle();
    world.settle();
    let status = world.vm("c").status;
    assert_eq!((status.phase, status.host), (Phase::Running, hosts[0].clone()));
}

#[test]
fn a_network_has_the_cards_of_the_vms_on_it_and_goes_when_it_is_deleted() {
    let mut world = World::lucky();
    world.create_network("lan");
    world.step();
    assert_eq!(world.network("lan").status.phase, NetworkPhase::Ready);
    world.create("a", on_lan());
    world.create("b", on_lan());
    world.settle();
    let made = world.host.networks();
    let cards = &made.networks[0].cards;
    assert_eq!(cards.iter().map(|card| card.vm.as_ref()).collect::<Vec<_>>(), ["a", "b"]);
    let has = &world.vm("a").status.networks[0];
    assert_eq!((&cards[0].mac, cards[0].ipv4), (&has.mac, has.ipv4));
    // Within the first group, all is let through.
    let WantedPeer::Group(group) = cards[0].rules[1].peer else { panic!("{:?}", cards[0].rules) };
    assert_eq!(made.groups[&group].len(), 4);
    let first: SecurityGroup = world.registry.get(&project(), "default").unwrap().object;
    assert_eq!((first.status.cards, world.network("lan").status.cards), (2, 2));

    for vm in ["a", "b"] {
        world.change(vm, &Change::Delete { is_forced: true, keeps_disks: false });
    }
    world.settle();
    assert!(world.host.networks().networks[0].cards.is_empty());
    world.registry.delete_network(&project(), "lan", None).unwrap();
    world.step();
    assert!(world.host.networks().networks.is_empty());
}

/// What people do, in one world, with reconcilers that are killed at any call.
fn history(seed: u64) -> String {
    let mut luck = Luck::new(seed);
    // On three hosts there is room for two of these VMs each.
    let mut offers = SimulatedHosts::offers_of(if seed.is_multiple_of(2) { 1 } else { 3 });
    let memory_bytes = if offers.len() == 1 { 8 << 30 } else { 1 << 30 };
    offers.iter_mut().for_each(|offer| offer.memory_bytes = memory_bytes);
    let mut world = World::on(SimulatedHosts::new(seed, offers));
    world.create_network("lan");
    let names = ["a", "b", "c", "d"];
    let mut operations = Vec::new();
    let mut told = String::new();
    for _ in 0..120 {
        let name = names[luck.below(4) as usize];
        let is_forced = luck.one_in(2);
        storage_wishes(&world, &mut luck, name, &mut operations);
        let change = match luck.below(8) {
            0 | 1 => {
                let on_end = [OnEnd::Stay, OnEnd::RestartOnFailure, OnEnd::Restart];
                let on_end = on_end[luck.below(3) as usize];
                let spec = if luck.one_in(2) { on_lan() } else { VmSpec::default() };
                let spec = VmSpec { on_end, stop_limit_s: 20, ..spec };
                let new = New { name: name.parse().unwrap(), project: project(), spec };
                // The name may be taken.
                let root = luck.one_in(2).then(|| root("image".into()));
                let created = world.registry.create_vm(new, root, &world.asked());
                operations.extend(created.map(|(_, operation)| operation));
                None
            }
            2 => Some(Change::Start),
            3 => Some(Change::Stop { is_forced }),
            4 => Some(Change::Restart),
            5 => Some(Change::Pause),
            6 => Some(Change::Resume),
            _ => Some(Change::Delete { is_forced, keeps_disks: luck.one_in(3) }),
        };
        if let Some(change) = change {
            // It may not be there, or its state not allow that.
            let asked = world.asked();
            operations.extend(world.registry.change_vm(&project(), name, &change, None, &asked));
        }
        let dies_after = luck.one_in(3).then(|| luck.below(6));
        for _ in 0..=luck.below(3) {
            world.now += if luck.one_in(2) { STEP } else { SHORT_STEP };
            world.host.pass();
            world.host.kill_after(dies_after);
            let is_dead = world.reconciler.step(world.now).is_err();
            world.host.kill_after(None);
            if is_dead || luck.one_in(5) {
                let host: Arc<dyn Host> = world.host.clone();
                world.reconciler = Reconciler::new(world.registry.clone(), host);
            }
        }
        let taken = world.host.memory_taken();
        assert!(taken.values().all(|taken| *taken <= memory_bytes), "seed {seed}: {taken:?}");
        let (vms, _) = world.registry.all::<Vm>(None).unwrap();
        for vm in vms.iter() {
            let Vm { meta, status, .. } = &**vm;
            told.push_str(&format!("{} {:?} {} ", meta.name, status.phase, status.boot));
        }
        told.push('\n');
    }
    world.host.heal();
    // What the host has refused is tried again after a while.
    for _ in 0..10 {
        world.step();
    }
    world.settle();
    world.settle();
    assert_eq!(world.host.double_starts(), 0, "seed {seed}");
    for operation in &operations {
        assert_ne!(world.state(operation), OperationState::Running, "seed {seed}: {operation:?}");
    }
    let (vms, _) = world.registry.all::<Vm>(None).unwrap();
    for Vm { meta, spec, status } in vms.iter().map(|vm| &**vm) {
        let fits = match status.phase {
            Phase::Running => spec.power == Power::On,
            Phase::Paused => spec.power == Power::Paused,
            Phase::Stopped => !spec.power.is_on() || spec.on_end != OnEnd::Restart,
            Phase::Failed => spec.power.is_on() && spec.on_end == OnEnd::Stay,
            _ => false,
        };
        assert!(fits && !meta.deleting, "seed {seed}: {meta:?} {spec:?} {status:?}");
        world.change(meta.name.as_ref(), &Change::Delete { is_forced: true, keeps_disks: false });
    }
    world.settle();
    let (disks, _) = world.registry.all::<Disk>(None).unwrap();
    for disk in disks.iter() {
        assert_eq!((disk.status.phase, &disk.spec.vm), (DiskPhase::Ready, &None), "seed {seed}");
        let name = disk.meta.name.as_ref();
        world.registry.delete_disk(&project(), name, true, None, &world.asked()).unwrap();
    }
    world.settle();
    assert!(world.host.see(None).unwrap().is_empty(), "seed {seed}: something is left");
    assert!(!world.host.has_disks(), "seed {seed}: a disk is left");
    assert!(world.registry.all::<Snapshot>(None).unwrap().0.is_empty(), "seed {seed}");
    assert!(world.registry.addresses(None).unwrap().0.is_empty(), "seed {seed}");
    world.registry.delete_network(&project(), "lan", None).unwrap();
    world.step();
    let left = world.host.networks();
    assert_eq!(WantedNetworks { groups: Default::default(), ..left }, WantedNetworks::default());
    told
}

#[test]
fn whatever_is_asked_and_whoever_is_killed_all_ends_as_it_should() {
    for seed in 0..12 {
        history(seed);
    }
}

#[test]
fn one_seed_is_one_history() {
    assert_eq!(history(3), history(3));
}
