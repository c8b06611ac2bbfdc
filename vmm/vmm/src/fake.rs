//! An engine whose guest only counts, and does what the test says.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use board::{MachineEvent, MachineOwner};
use engine::{
    Built, Bus, CpuComplex, DebugStops, Engine, EngineError, EngineKind, Exit, IoApicRoutes, Parts,
    Unsupported, Vcpu,
};
use guest_memory::{DirtyBitmap, FlatView};
use x86_state::{CpuProfile, Msi, Topology, VcpuId, VcpuState};

pub(crate) fn profile(cores: u32) -> CpuProfile {
    CpuProfile::portable(Topology { cores }, 2_000_000).unwrap()
}

/// What the first vCPU does next, once.
#[derive(Debug)]
pub(crate) enum Deed {
    TripleFault,
    Fail,
    Panic,
    Tell(MachineEvent),
}

/// Where an engine refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refuse {
    Check,
    Build,
    SetMemory,
    Load,
}

/// What all fake engines of a test share.
pub(crate) struct World {
    pub(crate) deeds: Mutex<VecDeque<Deed>>,
    pub(crate) refuse: Mutex<Option<(EngineKind, Refuse)>>,
    /// Steps done in all engines together, by vCPU.
    pub(crate) steps: Vec<AtomicU64>,
    /// Loads of any vCPU.
    pub(crate) loads: AtomicU64,
    pub(crate) owner: Arc<dyn MachineOwner>,
}

impl World {
    pub(crate) fn new(cores: u32, owner: Arc<dyn MachineOwner>) -> Arc<Self> {
        Arc::new(Self {
            deeds: Mutex::default(),
            refuse: Mutex::default(),
            steps: (0..cores).map(|_| AtomicU64::new(0)).collect(),
            loads: AtomicU64::new(0),
            owner,
        })
    }

    pub(crate) fn will(&self, deed: Deed) {
        self.deeds.lock().unwrap().push_back(deed);
    }

    fn refuses(&self, kind: EngineKind, at: Refuse) -> Result<(), EngineError> {
        if *self.refuse.lock().unwrap() == Some((kind, at)) {
            return Err(EngineError::Stuck(format!("{at:?} refused")));
        }
        Ok(())
    }
}

pub(crate) struct FakeEngine(pub(crate) EngineKind, pub(crate) Arc<World>);

impl Engine for FakeEngine {
    fn kind(&self) -> EngineKind {
        self.0
    }

    fn check(&self, _profile: &CpuProfile) -> Result<(), Unsupported> {
        self.1.refuses(self.0, Refuse::Check).map_err(|e| Unsupported {
            engine: self.0,
            reason: e.to_string(),
            remedy: String::new(),
        })
    }

    fn build(&self, profile: &CpuProfile, _parts: &Parts) -> Result<Built, EngineError> {
        self.1.refuses(self.0, Refuse::Build)?;
        let cores = profile.topology().cores;
        let complex =
            Arc::new(FakeComplex { kind: self.0, world: self.1.clone(), kicks: kicks(cores) });
        let vcpus = (0..cores)
            .map(|id| -> Box<dyn Vcpu> {
                Box::new(FakeVcpu {
                    id: id as usize,
                    state: VcpuState::at_reset(profile, VcpuId(id)),
                    complex: complex.clone(),
                })
            })
            .collect();
        Ok(Built { complex, vcpus })
    }
}

fn kicks(cores: u32) -> Vec<(Mutex<bool>, Condvar)> {
    (0..cores).map(|_| Default::default()).collect()
}

struct FakeComplex {
    kind: EngineKind,
    world: Arc<World>,
    kicks: Vec<(Mutex<bool>, Condvar)>,
}

impl CpuComplex for FakeComplex {
    fn set_memory(&self, _view: &FlatView) -> Result<(), EngineError> {
        self.world.refuses(self.kind, Refuse::SetMemory)
    }
    fn set_dirty_log(&self, _on: bool) -> Result<(), EngineError> {
        Ok(())
    }
    fn harvest_dirty(&self, _into: &DirtyBitmap) -> Result<(), EngineError> {
        Ok(())
    }
    fn send_msi(&self, _msi: Msi) {}
    fn set_intr(&self, _level: bool) {}
    fn set_ioapic_routes(&self, _routes: &IoApicRoutes) -> Result<(), EngineError> {
        Ok(())
    }
    fn kick(&self, vcpu: VcpuId) {
        let (kicked, changed) = &self.kicks[vcpu.0 as usize];
        *kicked.lock().unwrap() = true;
        changed.notify_one();
    }
}

struct FakeVcpu {
    id: usize,
    state: VcpuState,
    complex: Arc<FakeComplex>,
}

impl Vcpu for FakeVcpu {
    fn run(&mut self, _bus: &Arc<dyn Bus>) -> Result<Exit, EngineError> {
        let world = self.complex.world.clone();
        let (kicked, changed) = &self.complex.kicks[self.id];
        loop {
            let step = Duration::from_micros(100);
            let guard = kicked.lock().unwrap();
            let (mut guard, _) = changed.wait_timeout_while(guard, step, |k| !*k).unwrap();
            if std::mem::take(&mut *guard) {
                return Ok(Exit::Kicked);
            }
            drop(guard);
            self.state.regs.gpr[15] += 1;
            world.steps[self.id].fetch_add(1, Ordering::SeqCst);
            let deed = if self.id == 0 { world.deeds.lock().unwrap().pop_front() } else { None };
            match deed {
                Some(Deed::TripleFault) => return Ok(Exit::TripleFault),
                Some(Deed::Fail) => return Err(EngineError::Stuck("as the test says".into())),
                Some(Deed::Panic) => panic!("as the test says"),
                Some(Deed::Tell(event)) => world.owner.event(event),
                None => {}
            }
        }
    }

    fn save(&mut self) -> Result<VcpuState, EngineError> {
        Ok(self.state.clone())
    }

    fn load(&mut self, state: &VcpuState) -> Result<(), EngineError> {
        // The last one refuses, when the others have loaded already.
        if self.id + 1 == self.complex.kicks.len() {
            self.complex.world.refuses(self.complex.kind, Refuse::Load)?;
        }
        // A state that was lost or loaded twice on the way tears the two counts apart.
        let (own, all) = (state.regs.gpr[15], &self.complex.world.steps[self.id]);
        assert!(own == 0 || own == all.load(Ordering::SeqCst), "vCPU {} lost steps", self.id);
        self.state = state.clone();
        self.complex.world.loads.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn set_debug(&mut self, _stops: Option<&DebugStops>) -> Result<(), EngineError> {
        Ok(())
    }
}
