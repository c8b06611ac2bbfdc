//! Hosts without machines: time is told or passes by itself, luck is a seed, and calls can fail at any point as they do
//! for one that is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use model::{
    Consistency, Disk, DiskId, Engine, Name, NetworkId, Pool, Revert, Snapshot, SnapshotId, Vm,
    VmEnd, VmId,
};

use crate::{
    DiskState, Host, HostError, Offer, Process, Seen, SeenDisk, SeenSnapshot, Size, WantedNetworks,
};

/// Numbers that a seed makes (Marsaglia's xorshift64).
pub struct Luck(u64);

impl Luck {
    /// Those of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Less than `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

struct Machine {
    process: Process,
    /// Where it runs, and what it has there.
    host: String,
    memory_bytes: u64,
    /// What it was started with.
    disks: Vec<Name>,
    size: Size,
    /// The guest has heard the power button.
    is_shutting_down: bool,
}

struct State {
    offers: Vec<Offer>,
    machines: BTreeMap<VmId, Machine>,
    /// Those to which something happens when a while passes.
    moving: BTreeSet<VmId>,
    disks: BTreeMap<DiskId, SeenDisk>,
    luck: Luck,
    /// Calls until the caller is killed.
    calls_left: Option<u64>,
    /// The networks that were made.
    networks: WantedNetworks,
    /// Guests fail, and hosts refuse.
    has_faults: bool,
    /// Starts that were begun while the VM ran, without its disks, or elsewhere than where it was placed.
    double_starts: u64,
    /// A while passes by itself, so often.
    pace: Option<(Duration, Instant)>,
}

/// Hosts.
pub struct SimulatedHosts(Mutex<State>);

/// A host's memory.
const MEMORY_BYTES: u64 = 256 << 30;

impl SimulatedHosts {
    /// One, for VMs of any kind.
    pub fn one(seed: u64) -> Self {
        Self::new(seed, Self::offers_of(1))
    }

    /// What so many hosts offer: one in four has no hardware virtualization.
    pub fn offers_of(hosts: u32) -> Vec<Offer> {
        let engines = |n: u32| match n % 4 {
            3 => vec![Engine::Full, Engine::Emu],
            _ => vec![Engine::Hw, Engine::Full, Engine::Emu],
        };
        let offer = |n| Offer {
            host: format!("host-{n:04}"),
            engines: engines(n),
            cpus: 64,
            memory_bytes: MEMORY_BYTES,
        };
        (0..hosts).map(offer).collect()
    }

    /// From now on a while passes so often, by itself, when somebody looks; and all goes well.
    #[must_use]
    pub fn paced(self, pace: Duration) -> Self {
        self.heal();
        self.lock().pace = Some((pace, Instant::now()));
        self
    }

    /// Those that offer this.
    pub fn new(seed: u64, offers: Vec<Offer>) -> Self {
        Self(Mutex::new(State {
            offers,
            moving: BTreeSet::new(),
            pace: None,
            machines: BTreeMap::new(),
            disks: BTreeMap::new(),
            luck: Luck::new(seed),
            calls_left: None,
            networks: WantedNetworks::default(),
            has_faults: true,
            double_starts: 0,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After so many calls the caller is killed, until this is called again.
    pub fn kill_after(&self, calls: Option<u64>) {
        self.lock().calls_left = calls;
    }

    /// From now on all goes well.
    pub fn heal(&self) {
        let mut state = self.lock();
        state.has_faults = false;
        state.calls_left = None;
    }

    /// Starts that must not have been: of VMs that ran, without their disks, or elsewhere than where they were placed.
    pub fn double_starts(&self) -> u64 {
        self.lock().double_starts
    }

    /// How much memory VMs have on each host that has any.
    pub fn memory_taken(&self) -> BTreeMap<String, u64> {
        let mut taken = BTreeMap::new();
        for machine in self.lock().machines.values().filter(|machine| machine.is_up()) {
            *taken.entry(machine.host.clone()).or_default() += machine.memory_bytes;
        }
        taken
    }

    /// There is something of this VM.
    pub fn has(&self, id: VmId) -> bool {
        self.lock().machines.contains_key(&id)
    }

    /// The networks that were made.
    pub fn networks(&self) -> WantedNetworks {
        self.lock().networks.clone()
    }

    /// A while passes.
    pub fn pass(&self) {
        self.lock().pass();
    }
}

impl Machine {
    fn is_up(&self) -> bool {
        matches!(self.process, Process::Starting { .. } | Process::Live { .. })
    }
}

impl State {
    fn pass(&mut self) {
        let Self { machines, disks, luck, has_faults, moving, .. } = self;
        for disk in disks.values_mut() {
            disk.is_busy = false;
            disk.state = match &disk.state {
                DiskState::Making(_) if *has_faults && luck.one_in(8) => {
                    DiskState::Failed("luck".into())
                }
                DiskState::Making(percent @ ..75) => DiskState::Making(percent + 25),
                DiskState::Making(_) | DiskState::Ready => DiskState::Ready,
                other => other.clone(),
            };
        }
        let now: Vec<VmId> = match *has_faults {
            true => machines.keys().copied().collect(),
            false => std::mem::take(moving).into_iter().collect(),
        };
        for id in now {
            let Some(machine) = machines.get_mut(&id) else { continue };
            let (boot, orderly) = match &machine.process {
                Process::Starting { boot, .. } if *has_faults && luck.one_in(6) => (*boot, false),
                Process::Starting { boot, .. } => {
                    machine.process = Process::Live {
                        boot: *boot,
                        pid: 1,
                        engine: Engine::Emu,
                        engine_reason: "it is simulated".into(),
                        cage: model::Cage::default(),
                        is_paused: false,
                        size: machine.size,
                        disks: machine.disks.clone(),
                    };
                    continue;
                }
                Process::Live { boot, .. } if machine.is_shutting_down && luck.one_in(3) => {
                    (*boot, true)
                }
                Process::Live { .. } if machine.is_shutting_down => {
                    moving.insert(id);
                    continue;
                }
                Process::Live { boot, .. } if *has_faults && luck.one_in(40) => {
                    (*boot, luck.one_in(2))
                }
                _ => continue,
            };
            machine.process =
                Process::Ended(VmEnd { boot, is_orderly: orderly, how: "luck".into(), ran_s: 5 });
        }
    }

    /// A while has passed, if it is time.
    fn pass_by_itself(&mut self) {
        if let Some((pace, last)) = self.pace
            && last.elapsed() >= pace
        {
            self.pace = Some((pace, Instant::now()));
            self.pass();
        }
    }
}

impl SimulatedHosts {
    /// The machine a call is about. A call that the caller does not live to make does nothing, and one whose
    /// answer it does not live to hear is done.
    fn call(
        &self,
        id: VmId,
        does: impl FnOnce(&mut Machine) -> Result<bool, HostError>,
    ) -> Result<(), HostError> {
        let mut state = self.lock();
        state.count()?;
        if state.has_faults && state.luck.one_in(12) {
            return Err(HostError("the host is out of luck".into()));
        }
        let none = || Machine {
            process: Process::None,
            host: String::new(),
            memory_bytes: 0,
            disks: Vec::new(),
            size: Size::default(),
            is_shutting_down: false,
        };
        state.moving.insert(id);
        let machine = state.machines.entry(id).or_insert_with(none);
        if does(machine)? {
            state.double_starts += 1;
        }
        state.count()
    }
}

impl State {
    fn count(&mut self) -> Result<(), HostError> {
        match &mut self.calls_left {
            Some(0) => Err(HostError("the caller is dead".into())),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl SimulatedHosts {
    /// As [`Self::call`], about disks.
    fn disk_call(
        &self,
        does: impl FnOnce(&mut BTreeMap<DiskId, SeenDisk>),
    ) -> Result<(), HostError> {
        let mut state = self.lock();
        state.count()?;
        if state.has_faults && state.luck.one_in(10) {
            return Err(HostError("bad luck".into()));
        }
        does(&mut state.disks);
        state.count()
    }

    fn change_disk(&self, id: DiskId, does: impl FnOnce(&mut SeenDisk)) -> Result<(), HostError> {
        self.disk_call(|disks| disks.get_mut(&id).map_or((), does))
    }

    /// There are disks.
    pub fn has_disks(&self) -> bool {
        !self.lock().disks.is_empty()
    }
}

impl Host for SimulatedHosts {
    fn offers(&self) -> Result<Vec<Offer>, HostError> {
        Ok(self.lock().offers.clone())
    }

    fn see(&self, of: Option<&BTreeSet<VmId>>) -> Result<Vec<Seen>, HostError> {
        let mut state = self.lock();
        state.count()?;
        state.pass_by_itself();
        let seen =
            |(id, machine): (&VmId, &Machine)| Seen { id: *id, process: machine.process.clone() };
        Ok(match of {
            None => state.machines.iter().map(seen).collect(),
            Some(ids) => {
                ids.iter().filter_map(|id| state.machines.get_key_value(id)).map(seen).collect()
            }
        })
    }

    fn start(&self, vm: &Vm, disks: &[Disk]) -> Result<(), HostError> {
        let host = vm.status.host.clone();
        let (are_ready, host) = {
            let state = self.lock();
            // Of one host there is no choice.
            let one = (state.offers.len() == 1).then(|| state.offers[0].host.clone());
            let is_ready = |disk: &Disk| {
                state.disks.get(&disk.meta.id).is_some_and(|seen| {
                    let reverts = disk.spec.revert.as_ref().map_or(0, |of| of.number);
                    seen.state == DiskState::Ready && seen.reverts == reverts
                })
            };
            let are_ready = disks.iter().all(is_ready) && disks.len() == vm.spec.disks.len();
            (are_ready, host.or(one))
        };
        let Some(host) = host else { return Err(HostError("it is placed nowhere".into())) };
        self.call(vm.meta.id, |machine| {
            let is_up = matches!(machine.process, Process::Starting { .. } | Process::Live { .. });
            machine.process = Process::Starting { boot: vm.spec.boot, pid: Some(1) };
            machine.is_shutting_down = false;
            machine.disks = vm.spec.disks.clone();
            machine.size = size_of(vm);
            machine.memory_bytes = vm.spec.memory_bytes;
            machine.host = host;
            Ok(is_up || !are_ready)
        })
    }

    fn pause(&self, id: VmId) -> Result<(), HostError> {
        self.call(id, |machine| stand(machine, true))
    }

    fn resume(&self, id: VmId) -> Result<(), HostError> {
        self.call(id, |machine| stand(machine, false))
    }

    fn grow(&self, vm: &Vm, cpus: Option<u32>, memory_bytes: Option<u64>) -> Result<(), HostError> {
        self.call(vm.meta.id, |machine| {
            let Process::Live { size, .. } = &mut machine.process else {
                return Err(HostError("it does not run".into()));
            };
            size.cpus = cpus.unwrap_or(size.cpus);
            size.memory_bytes = memory_bytes.unwrap_or(size.memory_bytes);
            if size.cpus > size.cpus_max || size.memory_bytes > size.memory_max_bytes {
                return Err(HostError("there is no room".into()));
            }
            Ok(false)
        })
    }

    fn press_power_button(&self, id: VmId) -> Result<(), HostError> {
        self.call(id, |machine| {
            machine.is_shutting_down = true;
            Ok(false)
        })
    }

    fn end(&self, id: VmId) -> Result<(), HostError> {
        self.call(id, |machine| {
            if let Process::Starting { boot, .. } | Process::Live { boot, .. } = machine.process {
                let how = "ended".into();
                let end = VmEnd { boot, is_orderly: true, how, ran_s: 5 };
                machine.process = Process::Ended(end);
            }
            Ok(false)
        })
    }

    fn network(
        &self,
        wanted: &WantedNetworks,
    ) -> Result<BTreeMap<NetworkId, Result<(), String>>, HostError> {
        let mut state = self.lock();
        state.count()?;
        let mut seen = BTreeMap::new();
        let mut made = WantedNetworks { groups: wanted.groups.clone(), ..Default::default() };
        for network in &wanted.networks {
            let fails = state.has_faults && state.luck.one_in(12);
            let result = if fails { Err("the host is out of luck".to_owned()) } else { Ok(()) };
            made.networks.extend(result.is_ok().then(|| network.clone()));
            seen.insert(network.id, result);
        }
        state.networks = made;
        state.count()?;
        Ok(seen)
    }

    fn remove(&self, id: VmId) -> Result<(), HostError> {
        self.call(id, |_| Ok(false))?;
        self.lock().machines.remove(&id);
        Ok(())
    }

    fn see_disks(
        &self,
        _: &[Pool],
        of: Option<&BTreeSet<DiskId>>,
    ) -> Result<Vec<SeenDisk>, HostError> {
        let mut state = self.lock();
        state.count()?;
        Ok(match of {
            None => state.disks.values().cloned().collect(),
            Some(ids) => ids.iter().filter_map(|id| state.disks.get(id)).cloned().collect(),
        })
    }

    fn make_disk(&self, disk: &Disk) -> Result<(), HostError> {
        let image = disk.spec.source.as_ref().map(|source| source.image().name.as_str());
        let state = match image {
            Some("missing") => DiskState::Failed("no image 'missing'".into()),
            _ => DiskState::Making(0),
        };
        let made = SeenDisk {
            id: disk.meta.id,
            state,
            is_busy: false,
            is_untidy: false,
            size_bytes: disk.spec.size_bytes,
            used_bytes: 0,
            snapshots: Vec::new(),
            reverts: 0,
            trouble: None,
        };
        self.disk_call(|disks| disks.insert(made.id, made).map_or((), drop))
    }

    fn grow_disk(&self, disk: &Disk, _: Option<VmId>) -> Result<(), HostError> {
        self.change_disk(disk.meta.id, |seen| seen.size_bytes = disk.spec.size_bytes)
    }

    fn take_snapshot(
        &self,
        snapshot: &Snapshot,
        disks: &[Disk],
        _: Option<(VmId, bool)>,
    ) -> Result<(), HostError> {
        for disk in disks {
            let taken = SeenSnapshot {
                id: snapshot.meta.id,
                size_bytes: disk.spec.size_bytes,
                consistency: Consistency::Crash,
            };
            self.change_disk(disk.meta.id, |seen| {
                seen.is_busy = true;
                if seen.snapshots.iter().all(|of| of.id != taken.id) {
                    seen.snapshots.push(taken);
                }
            })?;
        }
        Ok(())
    }

    fn revert_disk(&self, disk: &Disk, revert: &Revert) -> Result<(), HostError> {
        self.change_disk(disk.meta.id, |seen| seen.reverts = revert.number)
    }

    fn tidy_disk(&self, disk: &Disk, keep: &[SnapshotId]) -> Result<(), HostError> {
        self.change_disk(disk.meta.id, |seen| seen.snapshots.retain(|of| keep.contains(&of.id)))
    }

    fn remove_disk(&self, disk: DiskId) -> Result<(), HostError> {
        self.disk_call(|disks| disks.remove(&disk).map_or((), drop))
    }

    fn attach(&self, vm: VmId, disk: &Disk) -> Result<(), HostError> {
        self.call(vm, |machine| {
            if let Process::Live { disks, .. } = &mut machine.process {
                disks.push(disk.meta.name.clone());
            }
            Ok(false)
        })
    }

    fn detach(&self, vm: VmId, disk: &Name) -> Result<(), HostError> {
        self.call(vm, |machine| {
            if let Process::Live { disks, .. } = &mut machine.process {
                disks.retain(|name| name != disk);
            }
            Ok(false)
        })
    }
}

/// What a VM of this spec has from its start on.
fn size_of(vm: &Vm) -> Size {
    let spec = &vm.spec;
    Size {
        cpus: spec.cpus,
        cpus_max: spec.cpus_max.unwrap_or(spec.cpus),
        memory_bytes: spec.memory_bytes,
        memory_max_bytes: spec.memory_max_bytes.unwrap_or(spec.memory_bytes),
        memory_step_bytes: 128 << 20,
    }
}

fn stand(machine: &mut Machine, stands: bool) -> Result<bool, HostError> {
    match &mut machine.process {
        Process::Live { is_paused, .. } => *is_paused = stands,
        _ => return Err(HostError("it does not run".into())),
    }
    Ok(false)
}
