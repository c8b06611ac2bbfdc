//! Sets over a host that does what it is told at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use model::{
    Autoscale, Name, Object, Phase, Power, Requestor, ScaleSet, ScaleSetPhase, ScaleSetSpec,
    ScaleSetStatus, Vm, VmId, VmSpec, VmStatus,
};
use registry::{Asked, Change, New, Registry, RootDisk};
use store::Embedded;

use crate::{Around, Scaler};

const STEP: SignedDuration = SignedDuration::from_secs(5);

/// CPU time that VMs have used, and what images there are: none.
#[derive(Default)]
struct Host(Mutex<BTreeMap<VmId, u64>>);

impl Around for Host {
    fn root_disk(&self, image: &str, _: Option<u64>) -> Result<RootDisk, String> {
        Err(format!("there is no image '{image}'"))
    }

    fn cpu_ms(&self, vm: VmId) -> Option<u64> {
        self.0.lock().unwrap().get(&vm).copied()
    }
}

struct World {
    registry: Registry,
    host: Arc<Host>,
    scaler: Scaler,
    now: Timestamp,
    /// What each VM uses of a CPU, in percent.
    load: u64,
    _folder: tempfile::TempDir,
}

fn project() -> Name {
    Name::default_name()
}

fn sized(size: u32) -> ScaleSetSpec {
    ScaleSetSpec { size, replace_at_once: 1, ..ScaleSetSpec::default() }
}

impl World {
    fn new(spec: ScaleSetSpec) -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let registry = Registry::new(Arc::new(Embedded::open(folder.path()).unwrap()));
        registry.found(Timestamp::UNIX_EPOCH).unwrap();
        let host = Arc::new(Host::default());
        let scaler = Scaler::new(registry.clone(), host.clone());
        let now = Timestamp::UNIX_EPOCH;
        let world = Self { registry, host, scaler, now, load: 0, _folder: folder };
        let new = New { name: "web".parse().unwrap(), project: project(), spec };
        world.registry.create_scale_set(new, &world.asked()).unwrap();
        world
    }

    fn asked(&self) -> Asked {
        Asked { by: Requestor { who: "uid:0".into(), request: "r".into() }, at: self.now }
    }

    fn vms(&self) -> Vec<Vm> {
        self.registry.all::<Vm>(None).unwrap().0.iter().map(|vm| Vm::clone(vm)).collect()
    }

    fn running(&self) -> usize {
        self.vms().iter().filter(|vm| vm.status.phase == Phase::Running).count()
    }

    fn names(&self) -> Vec<String> {
        self.vms().iter().map(|vm| vm.meta.name.to_string()).collect()
    }

    fn set(&self) -> Option<ScaleSet> {
        self.registry.get(&project(), "web").ok().map(|kept| kept.object)
    }

    fn status(&self) -> ScaleSetStatus {
        self.set().unwrap().status
    }

    fn change(&self, edit: impl Fn(&mut ScaleSetSpec)) {
        let edited = |spec: &ScaleSetSpec| {
            let mut spec = spec.clone();
            edit(&mut spec);
            Ok(spec)
        };
        self.registry.update::<ScaleSet>(&project(), "web", edited, None).unwrap();
    }

    /// The scaler's step, and then the host's.
    fn step(&mut self) {
        self.now += STEP;
        self.scaler.step(self.now).unwrap();
        for vm in self.vms() {
            if vm.meta.deleting {
                let mut batch = registry::Batch::default();
                self.registry.forget_vm(&mut batch, &vm, &[], self.now).unwrap();
                self.registry.write(batch).unwrap();
                continue;
            }
            let phase = if vm.spec.power == Power::On { Phase::Running } else { Phase::Stopped };
            let status = VmStatus { phase, boot: vm.spec.boot, ..vm.status.clone() };
            self.registry.set_status::<Vm>(vm.meta.id, &status).unwrap();
            let mut used = self.host.0.lock().unwrap();
            *used.entry(vm.meta.id).or_default() += self.load * STEP.as_secs().unsigned_abs() * 10;
        }
    }

    fn settle(&mut self) {
        for _ in 0..20 {
            self.step();
        }
    }
}

#[test]
fn a_set_has_as_many_vms_as_are_wanted() {
    let mut world = World::new(sized(3));
    world.settle();
    assert_eq!(world.names(), ["web-1", "web-2", "web-3"]);
    assert_eq!(world.status().phase, ScaleSetPhase::Ready);
    world.change(|spec| spec.size = 1);
    world.settle();
    assert_eq!(world.names(), ["web-1"], "the youngest go");
    let status = world.status();
    assert_eq!((status.wanted, status.vms, status.running, status.current), (1, 1, 1, 1));
}

#[test]
fn a_vm_of_a_set_that_is_stopped_is_replaced() {
    let mut world = World::new(sized(2));
    world.settle();
    let before = world.vms()[0].meta.id;
    let stop = Change::Stop { is_forced: true };
    world.registry.change_vm(&project(), "web-1", &stop, None, &world.asked()).unwrap();
    world.settle();
    assert_eq!(world.running(), 2);
    assert!(world.vms().iter().all(|vm| vm.meta.id != before));
}

#[test]
fn vms_of_an_old_template_are_replaced_one_at_a_time() {
    let mut world = World::new(sized(4));
    world.settle();
    world.change(|spec| spec.template.cpus = 2);
    for _ in 0..40 {
        world.step();
        let going = world.vms().iter().filter(|vm| vm.spec.power != Power::On).count();
        assert!(going <= 1, "{going} go at once");
        assert!(world.running() >= 3);
    }
    assert!(world.vms().iter().all(|vm| vm.spec.cpus == 2), "{:?}", world.names());
    assert_eq!(world.status().phase, ScaleSetPhase::Ready);
}

#[test]
fn load_decides_how_many_there_are_between_bounds() {
    let scale = Autoscale { min: 2, max: 5, cpu_percent: 50, cool_down_s: 60 };
    let mut world = World::new(ScaleSetSpec { autoscale: Some(scale), ..sized(0) });
    world.settle();
    assert_eq!(world.running(), 2, "never fewer");
    world.load = 90;
    let begin = world.now;
    while world.running() < 4 {
        world.step();
        assert!(world.now.duration_since(begin).as_secs() < 120, "it does not grow");
    }
    assert_eq!(world.running(), 4, "2 VMs at 90 % are 4 at 45 %");
    let grown = world.status().scaled.unwrap();
    world.load = 100;
    while world.running() < 5 {
        world.step();
    }
    assert!(world.now.duration_since(grown).as_secs() >= 60, "the cool-down is kept");
    world.settle();
    world.settle();
    assert_eq!(world.running(), 5, "never more");
    world.load = 0;
    for _ in 0..10 {
        world.settle();
    }
    assert_eq!(world.running(), 2);
    assert_eq!(world.status().cpu_percent, Some(0));
}

#[test]
fn load_near_what_is_wanted_changes_nothing() {
    let scale = Autoscale { min: 1, max: 9, cpu_percent: 50, cool_down_s: 1 };
    let mut world = World::new(ScaleSetSpec { autoscale: Some(scale), ..sized(3) });
    world.load = 54;
    world.settle();
    world.settle();
    assert_eq!((world.running(), world.status().cpu_percent), (3, Some(54)));
}

#[test]
fn a_set_that_goes_takes_its_vms_along_and_no_others() {
    let mut world = World::new(sized(2));
    let (name, spec) = ("web-9".parse().unwrap(), VmSpec::default());
    let alone = New::<Vm> { name, project: project(), spec };
    world.registry.create_vm(alone, None, &world.asked()).unwrap();
    world.settle();
    assert_eq!(world.running(), 3);
    world.registry.delete_scale_set(&project(), "web", None).unwrap();
    world.settle();
    assert!(world.set().is_none());
    assert_eq!(world.names(), ["web-9"]);
}

#[test]
fn why_vms_cannot_be_made_is_in_the_status() {
    let template = VmSpec { image: Some("gone".into()), ..VmSpec::default() };
    let mut world = World::new(ScaleSetSpec { template, ..sized(2) });
    world.settle();
    let status = world.status();
    assert_eq!(status.phase, ScaleSetPhase::Failed);
    assert_eq!(status.reason.as_deref(), Some("there is no image 'gone'"));
}

#[test]
fn a_template_that_only_one_vm_can_have_is_refused() {
    let world = World::new(sized(1));
    let refused = |edit: &dyn Fn(&mut ScaleSetSpec)| {
        let mut spec = sized(1);
        edit(&mut spec);
        let new = New::<ScaleSet> { name: "other".parse().unwrap(), project: project(), spec };
        world.registry.create_scale_set(new, &world.asked()).is_err()
    };
    assert!(refused(&|spec| spec.template.disks = vec!["data".parse().unwrap()]));
    assert!(refused(&|spec| spec.template.power = Power::Off));
    assert!(refused(&|spec| spec.autoscale =
        Some(Autoscale { min: 3, max: 2, cpu_percent: 50, cool_down_s: 60 })));
    assert!(!refused(&|_| ()));
    assert_eq!(ScaleSet::KIND.plural(), "scale-sets");
}
