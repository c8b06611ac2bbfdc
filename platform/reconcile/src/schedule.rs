//! Which VM is on which host: a function of what hosts offer, what is placed, and the order in which it is asked.

use std::collections::{BTreeMap, HashMap};

use model::{Engine, Phase, Vm, VmId};

/// What a host has for VMs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Its name.
    pub host: String,
    /// The engines that work there.
    pub engines: Vec<Engine>,
    /// CPUs. Those of all VMs together may be more.
    pub cpus: u32,
    /// Memory that VMs may have together, in bytes.
    pub memory_bytes: u64,
}

/// An offer, and what of it is taken.
#[derive(Debug, Clone)]
struct Room {
    offer: Offer,
    cpus: u64,
    memory_bytes: u64,
}

/// What a VM takes, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Claim {
    host: String,
    cpus: u32,
    memory_bytes: u64,
}

impl Room {
    fn add(&mut self, claim: &Claim) {
        self.cpus += u64::from(claim.cpus);
        self.memory_bytes += claim.memory_bytes;
    }

    fn remove(&mut self, claim: &Claim) {
        self.cpus = self.cpus.saturating_sub(claim.cpus.into());
        self.memory_bytes = self.memory_bytes.saturating_sub(claim.memory_bytes);
    }

    fn left_bytes(&self) -> u64 {
        self.offer.memory_bytes.saturating_sub(self.memory_bytes)
    }

    fn has_engine(&self, engine: Engine) -> bool {
        engine == Engine::Auto || self.offer.engines.contains(&engine)
    }

    /// How full it would be with this VM, in millionths of what is scarcer.
    fn load_with(&self, vm: &Vm) -> u64 {
        let part = |taken: u128, all: u128| (taken * 1_000_000 / all.max(1)) as u64;
        let cpus = u128::from(self.cpus) + u128::from(vm.spec.cpus);
        let memory = u128::from(self.memory_bytes) + u128::from(vm.spec.memory_bytes);
        part(cpus, self.offer.cpus.into()).max(part(memory, self.offer.memory_bytes.into()))
    }
}

/// Places VMs. Those that do not run take nothing, and stay where they were if there is room when they start.
#[derive(Debug, Clone, Default)]
pub struct Scheduler {
    rooms: BTreeMap<String, Room>,
    claims: HashMap<VmId, Claim>,
}

impl Scheduler {
    /// What hosts offer from now on. What is placed stays where it is.
    pub fn offer(&mut self, offers: Vec<Offer>) {
        if offers.len() == self.rooms.len()
            && offers
                .iter()
                .all(|of| self.rooms.get(&of.host).is_some_and(|room| room.offer == *of))
        {
            return;
        }
        let room = |offer: Offer| (offer.host.clone(), Room { offer, cpus: 0, memory_bytes: 0 });
        self.rooms = offers.into_iter().map(room).collect();
        for claim in self.claims.values() {
            if let Some(room) = self.rooms.get_mut(&claim.host) {
                room.add(claim);
            }
        }
    }

    /// Nothing is placed.
    pub fn clear(&mut self) {
        self.claims.clear();
        for room in self.rooms.values_mut() {
            (room.cpus, room.memory_bytes) = (0, 0);
        }
    }

    /// How many hosts there are.
    pub fn hosts(&self) -> usize {
        self.rooms.len()
    }

    /// Notes what a VM takes by its spec and status.
    pub fn note(&mut self, vm: &Vm) {
        let is_up = matches!(
            vm.status.phase,
            Phase::Starting | Phase::Running | Phase::Paused | Phase::Stopping
        );
        match &vm.status.host {
            Some(host) if is_up || vm.spec.power.is_on() && !vm.meta.deleting => {
                self.claim(vm, host.clone());
            }
            _ => self.forget(vm.meta.id),
        }
    }

    /// A VM takes nothing any more.
    pub fn forget(&mut self, vm: VmId) {
        if let Some(claim) = self.claims.remove(&vm)
            && let Some(room) = self.rooms.get_mut(&claim.host)
        {
            room.remove(&claim);
        }
    }

    /// Where a VM is to start, and takes its room there: where it was, or where most is left.
    ///
    /// # Errors
    /// When no host has room: why.
    pub fn place(&mut self, vm: &Vm) -> Result<String, String> {
        self.forget(vm.meta.id);
        let fits = |room: &&Room| {
            room.has_engine(vm.spec.engine) && room.left_bytes() >= vm.spec.memory_bytes
        };
        let was = vm.status.host.as_ref().and_then(|host| self.rooms.get(host)).filter(fits);
        // Of two that are as full, the one whose name is first.
        let best = || self.rooms.values().filter(fits).min_by_key(|room| room.load_with(vm));
        let Some(room) = was.or_else(best) else { return Err(self.why_not(vm)) };
        let host = room.offer.host.clone();
        self.claim(vm, host.clone());
        Ok(host)
    }

    fn claim(&mut self, vm: &Vm, host: String) {
        let (cpus, memory_bytes) = (vm.spec.cpus, vm.spec.memory_bytes);
        let claim = Claim { host, cpus, memory_bytes };
        if self.claims.get(&vm.meta.id) == Some(&claim) {
            return;
        }
        self.forget(vm.meta.id);
        if let Some(room) = self.rooms.get_mut(&claim.host) {
            room.add(&claim);
        }
        self.claims.insert(vm.meta.id, claim);
    }

    fn why_not(&self, vm: &Vm) -> String {
        let engine = vm.spec.engine;
        let with_engine = self.rooms.values().filter(|room| room.has_engine(engine));
        let Some(most) = with_engine.max_by_key(|room| room.left_bytes()) else {
            return format!("no host has the engine {}: ask for another", engine.as_str());
        };
        format!(
            "no host has {} MiB of memory left: the most is {} MiB, on {}; stop a VM, or ask for less",
            vm.spec.memory_bytes >> 20,
            most.left_bytes() >> 20,
            most.offer.host,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Meta, Object, Power, VmSpec, VmStatus};

    fn offer(host: &str, engines: &[Engine], memory_mib: u64) -> Offer {
        let (host, engines) = (host.to_owned(), engines.to_vec());
        Offer { host, engines, cpus: 8, memory_bytes: memory_mib << 20 }
    }

    fn vm(engine: Engine, memory_mib: u64) -> Vm {
        let meta = Meta {
            id: VmId::new(),
            name: "a".parse().unwrap(),
            project: "default".parse().unwrap(),
            created: jiff::Timestamp::UNIX_EPOCH,
            deleting: false,
        };
        let spec = VmSpec { engine, memory_bytes: memory_mib << 20, ..VmSpec::default() };
        Vm::of(meta, spec, VmStatus::default())
    }

    #[test]
    fn vms_are_spread_over_hosts_that_have_their_engine_and_memory() {
        let mut scheduler = Scheduler::default();
        scheduler.offer(vec![
            offer("a", &[Engine::Full], 1024),
            offer("b", &[Engine::Hw, Engine::Full], 1024),
            offer("c", &[Engine::Hw, Engine::Full], 1024),
        ]);
        let placed: Vec<_> =
            (0..6).map(|_| scheduler.place(&vm(Engine::Hw, 300)).unwrap()).collect();
        assert_eq!(placed, ["b", "c", "b", "c", "b", "c"]);
        let why = scheduler.place(&vm(Engine::Hw, 300)).unwrap_err();
        assert!(why.contains("124 MiB"), "{why}");
        assert_eq!(scheduler.place(&vm(Engine::Auto, 300)), Ok("a".to_owned()));
        assert!(scheduler.place(&vm(Engine::Emu, 1)).unwrap_err().contains("engine emu"));
    }

    #[test]
    fn a_vm_that_stops_leaves_its_room_and_comes_back_if_it_is_still_there() {
        let mut scheduler = Scheduler::default();
        scheduler.offer(vec![offer("a", &[], 512), offer("b", &[], 512)]);
        let mut first = vm(Engine::Auto, 512);
        assert_eq!(scheduler.place(&first), Ok("a".to_owned()));
        first.status.host = Some("a".to_owned());
        first.spec.power = Power::Off;
        first.status.phase = Phase::Stopped;
        scheduler.note(&first);
        let second = vm(Engine::Auto, 512);
        assert_eq!(scheduler.place(&second), Ok("a".to_owned()));
        first.spec.power = Power::On;
        assert_eq!(scheduler.place(&first), Ok("b".to_owned()));
        scheduler.forget(second.meta.id);
        scheduler.forget(first.meta.id);
        assert_eq!(scheduler.place(&first), Ok("a".to_owned()));
    }
}
