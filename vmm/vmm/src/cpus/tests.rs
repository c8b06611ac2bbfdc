//! A gang of counting vCPUs.

use std::sync::atomic::Ordering;

use board::{Machine, MachineSpec};
use engine::{Engine, EngineKind};

use super::*;
use crate::fake::{Deed, FakeEngine, World, profile};
use crate::inbox::Mail;

const CORES: u32 = 3;

fn gang() -> (Cpus, Arc<World>, Arc<Inbox>) {
    let inbox = Arc::new(Inbox::default());
    let machine = Machine::build(MachineSpec::new(profile(CORES), 4 << 20), inbox.clone()).unwrap();
    let world = World::new(CORES, inbox.clone());
    let engine = FakeEngine(EngineKind::Emu, world.clone());
    let built = engine.build(machine.profile(), &machine.engine_parts()).unwrap();
    let bus: Arc<dyn Bus> = machine;
    (Cpus::new(built.complex, built.vcpus, &bus, &inbox).unwrap(), world, inbox)
}

fn steps(world: &World) -> Vec<u64> {
    world.steps.iter().map(|s| s.load(Ordering::SeqCst)).collect()
}

fn wait_for_steps(world: &World, more_than: u64) {
    while steps(world).iter().any(|s| *s <= more_than) {
        std::thread::yield_now();
    }
}

#[test]
fn stopped_vcpus_stand_and_go_on_where_they_were() {
    let (mut cpus, world, _inbox) = gang();
    for _ in 0..20 {
        let before = steps(&world).into_iter().max().unwrap();
        cpus.start(CORES).unwrap();
        wait_for_steps(&world, before);
        assert!(matches!(cpus.stop().unwrap(), Stop::Asked));
        let stood = steps(&world);
        std::thread::sleep(std::time::Duration::from_millis(1));
        let saved: Vec<_> = cpus.save().unwrap().iter().map(|s| s.regs.gpr[15]).collect();
        assert_eq!((steps(&world), saved), (stood.clone(), stood));
    }
}

#[test]
fn a_vcpu_that_stops_by_itself_is_told_of_and_kept() {
    let (mut cpus, world, inbox) = gang();
    world.will(Deed::TripleFault);
    cpus.start(CORES).unwrap();
    assert!(matches!(inbox.wait(), Mail::VcpuStopped));
    assert!(matches!(cpus.stop().unwrap(), Stop::TripleFault));
    assert!(matches!(cpus.stop().unwrap(), Stop::Asked));
}

#[test]
fn a_thread_that_dies_is_an_error_and_hangs_nobody() {
    let (mut cpus, world, inbox) = gang();
    world.will(Deed::Panic);
    cpus.start(CORES).unwrap();
    assert!(matches!(inbox.wait(), Mail::VcpuStopped));
    assert!(matches!(cpus.stop(), Err(VmError::Thread { vcpu: VcpuId(0) })));
}
