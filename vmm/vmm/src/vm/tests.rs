//! Whole VMs in a fake engine, asked through their inbox.

use std::io::Write;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::Duration;

use board::MachineSpec;
use engine::EngineError;
use vmm_rpc::EngineName;

use super::*;
use crate::EngineChoice;
use crate::fake::{Deed, FakeEngine, Refuse, World, profile};

const CORES: u32 = 2;

struct Running {
    inbox: Arc<Inbox>,
    world: Arc<World>,
    thread: JoinHandle<Result<Outcome, VmError>>,
}

fn start(on_reset: OnReset) -> Running {
    let inbox = Arc::new(Inbox::default());
    let machine = Machine::build(MachineSpec::new(profile(CORES), 4 << 20), inbox.clone()).unwrap();
    let world = World::new(CORES, inbox.clone());
    let mut engines = Engines::new();
    for kind in [EngineKind::Hw, EngineKind::Emu] {
        engines.add(Arc::new(FakeEngine(kind, world.clone())), || Ok("it is a fake".to_owned()));
    }
    let chosen = engines.choose(EngineChoice::Auto, machine.profile()).unwrap();
    let mut kernel = tempfile::tempfile().unwrap();
    kernel.write_all(&tinyguest::multiboot(&tinyguest::idle())).unwrap();
    let images = Images {
        kernel: boot::Image::new("kernel", kernel),
        initrd: None,
        cmdline: String::new(),
        modules: Vec::new(),
    };
    let (images, (outputs, threads)) = (Some(images), Default::default());
    let (desk, agent) = (None, None);
    let plugger = Plugger::for_tests();
    let config =
        VmConfig { chosen, engines, images, on_reset, outputs, desk, agent, plugger, threads };
    let mut vm = Vm::new(machine, inbox.clone(), config).unwrap();
    let thread = std::thread::spawn(move || vm.run());
    Running { inbox, world, thread }
}

impl Running {
    fn ask(&self, request: Request) -> Reply {
        let (sender, receiver) = channel();
        self.inbox.request(request, Box::new(move |reply| sender.send(reply).unwrap()));
        receiver.recv_timeout(Duration::from_secs(60)).unwrap().reply
    }

    fn status(&self) -> Status {
        match self.ask(Request::Status) {
            Reply::Status(status) => *status,
            other => panic!("{other:?}"),
        }
    }

    fn steps(&self) -> u64 {
        self.world.steps.iter().map(|s| s.load(Ordering::SeqCst)).sum()
    }

    fn wait_for_steps(&self) {
        let before = self.steps();
        while self.steps() < before + 5 {
            std::thread::yield_now();
        }
    }

    fn end(self) -> Result<Outcome, VmError> {
        self.thread.join().unwrap()
    }
}

fn is_refused(reply: &Reply, with: Refusal) -> bool {
    matches!(reply, Reply::Refused { refusal, .. } if *refusal == with)
}

#[test]
fn what_the_guest_says_ends_the_run() {
    for (event, outcome) in [
        (MachineEvent::PowerOff, Outcome::PowerOff),
        (MachineEvent::Reset, Outcome::Reset),
        (MachineEvent::DebugExit(7), Outcome::DebugExit(7)),
    ] {
        let vm = start(OnReset::End);
        vm.world.will(Deed::Tell(event));
        assert_eq!(vm.end().unwrap(), outcome);
    }
}

#[test]
fn a_triple_fault_and_quitting_end_the_run() {
    let vm = start(OnReset::End);
    vm.world.will(Deed::TripleFault);
    assert_eq!(vm.end().unwrap(), Outcome::TripleFault);
    let vm = start(OnReset::Restart);
    assert_eq!(vm.ask(Request::Quit), Reply::Done);
    assert_eq!(vm.end().unwrap(), Outcome::Quit);
    let vm = start(OnReset::Restart);
    vm.inbox.quit();
    assert_eq!(vm.end().unwrap(), Outcome::Quit);
}

#[test]
fn an_engine_that_fails_ends_the_run_with_an_error() {
    let vm = start(OnReset::Restart);
    vm.world.will(Deed::Fail);
    assert!(matches!(vm.end(), Err(VmError::Engine { .. })));
    let vm = start(OnReset::Restart);
    let error = EngineError::Stuck("routes".into());
    vm.world.will(Deed::Tell(MachineEvent::Failed(error)));
    assert!(matches!(vm.end(), Err(VmError::Engine { .. })));
    let vm = start(OnReset::Restart);
    vm.world.will(Deed::Panic);
    assert!(matches!(vm.end(), Err(VmError::Thread { .. })));
}

#[test]
fn a_vm_that_restarts_boots_again_and_goes_on() {
    let vm = start(OnReset::Restart);
    // One after the other: what comes while a reset is on its way is part of it.
    for (resets, deed) in [(1, Deed::Tell(MachineEvent::Reset)), (2, Deed::TripleFault)] {
        vm.world.will(deed);
        while vm.status().resets < resets {}
    }
    vm.wait_for_steps();
    assert_eq!(vm.ask(Request::Reset), Reply::Done);
    vm.wait_for_steps();
    assert_eq!(vm.status().resets, 3);
    vm.world.will(Deed::Tell(MachineEvent::PowerOff));
    assert_eq!(vm.end().unwrap(), Outcome::PowerOff);
}

#[test]
fn a_paused_vm_and_its_clock_stand_until_resumed() {
    let vm = start(OnReset::End);
    vm.wait_for_steps();
    assert!(is_refused(&vm.ask(Request::Resume), Refusal::WrongState));
    assert_eq!(vm.ask(Request::Pause), Reply::Done);
    let (steps, before) = (vm.steps(), vm.status());
    assert!(is_refused(&vm.ask(Request::Pause), Refusal::WrongState));
    std::thread::sleep(Duration::from_millis(5));
    let after = vm.status();
    assert_eq!((vm.steps(), after.machine_time_ms), (steps, before.machine_time_ms));
    assert_eq!(after.state, RunState::Paused);
    assert_eq!(vm.ask(Request::Reset), Reply::Done);
    assert_eq!(vm.status().state, RunState::Paused);
    assert_eq!(vm.ask(Request::Resume), Reply::Done);
    vm.wait_for_steps();
    vm.inbox.quit();
    assert_eq!(vm.end().unwrap(), Outcome::Quit);
}

#[test]
fn a_vcpu_is_loaded_anew_before_it_goes_on_from_a_pause() {
    let vm = start(OnReset::End);
    vm.wait_for_steps();
    let loads = vm.world.loads.load(Ordering::SeqCst);
    assert_eq!(vm.ask(Request::Pause), Reply::Done);
    assert_eq!(vm.ask(Request::Resume), Reply::Done);
    assert_eq!(vm.world.loads.load(Ordering::SeqCst) - loads, u64::from(CORES));
    vm.wait_for_steps();
    assert_eq!(vm.ask(Request::Quit), Reply::Done);
    assert_eq!(vm.end().unwrap(), Outcome::Quit);
}

#[test]
fn a_vm_moves_to_and_fro_without_losing_a_step() {
    let vm = start(OnReset::End);
    for (n, to) in [EngineName::Emu, EngineName::Hw].into_iter().cycle().take(40).enumerate() {
        vm.wait_for_steps();
        let reply = vm.ask(Request::Move { engine: to });
        assert!(matches!(reply, Reply::Moved(Moved { to: entered, .. }) if entered == to));
        let status = vm.status();
        assert_eq!((status.engine, status.moves), (to, n as u64 + 1));
    }
    assert_eq!(vm.ask(Request::Pause), Reply::Done);
    let steps = vm.steps();
    assert!(steps >= 200);
    assert_eq!(vm.ask(Request::Move { engine: EngineName::Emu }).into_moved().to, EngineName::Emu);
    assert_eq!((vm.status().state, vm.steps()), (RunState::Paused, steps));
    vm.inbox.quit();
    vm.end().unwrap();
}

#[test]
fn a_move_that_fails_anywhere_leaves_the_vm_running_where_it_was() {
    let vm = start(OnReset::End);
    for (at, refusal) in [
        (Refuse::Check, Refusal::Unsupported),
        (Refuse::Build, Refusal::Failed),
        (Refuse::SetMemory, Refusal::Failed),
        (Refuse::Load, Refusal::Failed),
    ] {
        *vm.world.refuse.lock().unwrap() = Some((EngineKind::Emu, at));
        let reply = vm.ask(Request::Move { engine: EngineName::Emu });
        assert!(is_refused(&reply, refusal), "{at:?}: {reply:?}");
        vm.wait_for_steps();
        assert_eq!(vm.status().engine, EngineName::Hw);
    }
    let reply = vm.ask(Request::Move { engine: EngineName::Full });
    assert!(is_refused(&reply, Refusal::Unsupported));
    *vm.world.refuse.lock().unwrap() = None;
    let reply = vm.ask(Request::Move { engine: EngineName::Emu });
    assert_eq!(reply.into_moved().from, EngineName::Hw);
    vm.world.will(Deed::Tell(MachineEvent::PowerOff));
    assert_eq!(vm.end().unwrap(), Outcome::PowerOff);
}

#[test]
fn auto_says_why_and_a_fixed_choice_is_kept_to() {
    let world = World::new(1, Arc::new(Inbox::default()));
    let engine = |kind| Arc::new(FakeEngine(kind, world.clone()));
    let mut engines = Engines::new();
    engines.add(engine(EngineKind::Hw), || Err("it is slow".to_owned()));
    engines.add(engine(EngineKind::Emu), || Ok("runs everywhere".to_owned()));
    let chosen = engines.choose(EngineChoice::Auto, &profile(1)).unwrap();
    assert_eq!(chosen.engine.kind(), EngineKind::Emu);
    assert_eq!(chosen.reason, "runs everywhere; not hw: it is slow");
    let chosen = engines.choose(EngineChoice::Fixed(EngineKind::Hw), &profile(1)).unwrap();
    assert_eq!(chosen.engine.kind(), EngineKind::Hw);
    let error = engines.choose(EngineChoice::Fixed(EngineKind::Full), &profile(1)).err().unwrap();
    assert_eq!(error.to_string(), "this version has no engine 'full': use one of hw, emu");
    *world.refuse.lock().unwrap() = Some((EngineKind::Emu, Refuse::Check));
    assert!(matches!(
        engines.choose(EngineChoice::Auto, &profile(1)),
        Err(VmError::Unsupported(_))
    ));
}

trait IntoMoved {
    fn into_moved(self) -> Moved;
}

impl IntoMoved for Reply {
    fn into_moved(self) -> Moved {
        match self {
            Reply::Moved(moved) => moved,
            other => panic!("{other:?}"),
        }
    }
}
