//! The host.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use model::{Disk, DiskId, Engine, Name, NetworkId, Pool, Revert, Snapshot, SnapshotId, Vm, VmId};
use reconcile::{Host, HostError, Offer, Process, Seen, SeenDisk, Size, WantedNetworks};
use vmm_rpc::{Client, DeviceKind, EngineName, PluggedDevice, Reply, Request, RunState, Status};

use crate::cage;
use crate::consoles::Consoles;
use crate::facts::Facts;
use crate::folder::{Folder, Record};
use crate::guests::Guests;
use crate::networks::{Networks, has_interface};
use crate::process;
use crate::storage::Storage;

/// A VM's process that has not answered for so long is not waited for.
const ANSWER_LIMIT: Duration = Duration::from_millis(500);
/// One that has been told to end and is there after this is killed.
const END_LIMIT: Duration = Duration::from_secs(3);
/// How long an answer is as good as a new one, while nothing is asked of the VM.
const STATUS_GOOD: Duration = Duration::from_secs(5);
/// VMs may have so many times the host's memory: few guests touch all that they have.
const MEMORY_FOLD: u64 = 2;
/// What a folder is called while it goes away.
const GOING: &str = ".going-";

/// What is remembered of a VM between looks; a host that is opened anew finds it out again.
#[derive(Default)]
struct Memory {
    client: Option<Client>,
    /// Until when it is good, and the disks that go with it.
    status: Option<(Instant, Status, Vec<Name>)>,
    told_to_end: Option<Instant>,
    /// What it was asked to grow to and refuses, until when that is not asked again, and why.
    too_large: Option<(Request, Instant, HostError)>,
    /// Disks that the guest was asked to let go, and when.
    told_to_go: BTreeMap<Name, Instant>,
}

/// This host.
pub struct LocalHost {
    vms: PathBuf,
    program: PathBuf,
    storage: Storage,
    consoles: Arc<Consoles>,
    memories: Mutex<BTreeMap<VmId, Memory>>,
    networks: Mutex<Networks>,
    offer: Offer,
    /// Those started by this process, whose ends must be taken note of.
    children: Mutex<Vec<Child>>,
}

fn failed(doing: &str) -> impl Fn(io::Error) -> HostError {
    move |error| HostError(format!("cannot {doing}: {error}"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LocalHost {
    /// VMs and disks in this folder, run by this `trinevm`, from these images.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn open(home: &Path, program: PathBuf, images: images::Store) -> io::Result<Self> {
        let vms = std::path::absolute(home.join("vms"))?;
        if vms.to_string_lossy().contains(',') {
            // Commas separate a disk's options.
            return Err(io::Error::other(format!("{}: no ',' can be in it", vms.display())));
        }
        fs::create_dir_all(&vms)?;
        for entry in fs::read_dir(&vms)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(GOING) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        let networks = Mutex::new(Networks::open(home.join("networks")));
        let storage = Storage::open(&home.join("disks"), &vms, images)?;
        Ok(Self {
            vms,
            networks,
            offer: offer(),
            program,
            storage,
            consoles: Arc::new(Consoles::new()?),
            memories: Mutex::default(),
            children: Mutex::default(),
        })
    }

    /// Guests' serial ports.
    pub fn consoles(&self) -> &Arc<Consoles> {
        &self.consoles
    }

    /// What can be seen of guests from beside.
    pub fn guests(&self) -> Guests {
        Guests::of(&self.vms)
    }

    fn folder(&self, id: VmId) -> Folder {
        Folder::of(&self.vms, id)
    }

    fn ids(&self) -> io::Result<Vec<VmId>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.vms)? {
            ids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<VmId>().ok()));
        }
        ids.sort_unstable();
        Ok(ids)
    }

    fn look(&self, id: VmId) -> io::Result<Seen> {
        let folder = self.folder(id);
        self.storage.thaw_left(id);
        self.consoles.open(id, &folder)?;
        let (is_locked, record) = (folder.is_locked()?, folder.record());
        let process = match record {
            Some(record) if is_locked => self.look_at_process(id, record, &folder),
            // Nobody else has this lock than who is about to write the record.
            None if is_locked => Process::Starting { boot: 0, pid: None },
            Some(record) => {
                lock(&self.memories).remove(&id);
                match (folder.read_end(), record.pid) {
                    // The start was cut off.
                    (None, None) => Process::None,
                    (end, _) => Process::Ended(process::end(&record, end, &folder)),
                }
            }
            None => Process::None,
        };
        Ok(Seen { id, process })
    }

    fn look_at_process(&self, id: VmId, mut record: Record, folder: &Folder) -> Process {
        let mut memories = lock(&self.memories);
        let memory = memories.entry(id).or_default();
        let is_new = memory.status.as_ref().is_some_and(|(until, ..)| Instant::now() < *until);
        if !is_new
            && let Some(Reply::Status(status)) = ask(memory, folder, &Request::Status)
            && let Some(Reply::Devices(devices)) = ask(memory, folder, &Request::Devices)
        {
            let disks: Vec<Name> = devices.iter().filter_map(disk_name).collect();
            memory.told_to_go.retain(|name, _| disks.contains(name));
            // A guest that was asked to let a disk go does so when it likes.
            let good = if memory.told_to_go.is_empty() { STATUS_GOOD } else { STATUS_GOOD / 25 };
            let until = Instant::now() + good;
            memory.status = Some((until, *status, disks));
        }
        let Some((_, status, disks)) = &memory.status else {
            return Process::Starting { boot: record.boot, pid: record.pid };
        };
        if record.pid.is_none() {
            record.pid = Some(status.pid);
            record.began = process::began(status.pid);
            // At the next look it is tried again.
            let _ = folder.set_record(&record);
        }
        Process::Live {
            boot: record.boot,
            pid: status.pid,
            engine: match status.engine {
                EngineName::Hw => Engine::Hw,
                EngineName::Emu => Engine::Emu,
                EngineName::Full => Engine::Full,
            },
            engine_reason: status.engine_reason.clone(),
            cage: model::Cage {
                holds: status.cage.holds.clone(),
                lacks: status.cage.lacks.clone(),
            },
            is_paused: status.state == RunState::Paused,
            size: size(status),
            disks: disks.clone(),
        }
    }

    /// Asks a VM's process for something. What it says of itself is then out of date.
    fn ask(&self, id: VmId, request: &Request) -> Result<(), HostError> {
        let mut memories = lock(&self.memories);
        let memory = memories.entry(id).or_default();
        let reply = ask(memory, &self.folder(id), request);
        memory.status = None;
        match reply {
            Some(Reply::Refused { message, .. }) => Err(HostError(message)),
            Some(_) => Ok(()),
            None => Err(HostError("the VM's process does not answer".to_owned())),
        }
    }
}

/// What this host has for VMs. Which engines work, a VM's process finds out, and says why.
fn offer() -> Offer {
    let Facts { name, cpus, memory_bytes, .. } = Facts::of_this_host();
    let engines = vec![Engine::Hw, Engine::Full, Engine::Emu];
    Offer { host: name, engines, cpus, memory_bytes: memory_bytes * MEMORY_FOLD }
}

/// Asks over the connection there is, or a new one; `None` when there is no answer.
fn ask(memory: &mut Memory, folder: &Folder, request: &Request) -> Option<Reply> {
    if memory.client.is_none() {
        memory.client = Client::connect_within(&folder.control(), Some(ANSWER_LIMIT)).ok();
    }
    let reply = memory.client.as_mut()?.ask(request);
    if reply.is_err() {
        // What comes late must not be taken for the next answer.
        memory.client = None;
    }
    reply.ok()
}

impl Host for LocalHost {
    fn offers(&self) -> Result<Vec<Offer>, HostError> {
        Ok(vec![self.offer.clone()])
    }

    fn see(&self, of: Option<&BTreeSet<VmId>>) -> Result<Vec<Seen>, HostError> {
        lock(&self.children).retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        let ids = match of {
            None => self.ids().map_err(failed("look at the VMs' folders"))?,
            Some(ids) => {
                ids.iter().copied().filter(|id| self.folder(*id).path().exists()).collect()
            }
        };
        let all: io::Result<_> = ids.into_iter().map(|id| self.look(id)).collect();
        all.map_err(failed("look at the VMs' folders"))
    }

    fn start(&self, vm: &Vm, disks: &[Disk]) -> Result<(), HostError> {
        let missing = vm.status.networks.iter().find(|card| !has_interface(&card.interface));
        if let Some(card) = missing {
            let why = "is not ready: trine network show says why";
            return Err(HostError(format!("network '{}' {why}", card.network)));
        }
        let mut texts = Vec::new();
        for disk in disks {
            // One that is being tidied up is not, soon: the VM is started then.
            let Some((text, _)) = self.storage.open_as(disk)? else { return Ok(()) };
            texts.push(text);
        }
        let started = process::start(&self.program, vm, &texts, &self.folder(vm.meta.id));
        let started = started.map_err(failed(&format!("start {}", self.program.display())))?;
        lock(&self.memories).remove(&vm.meta.id);
        lock(&self.children).extend(started);
        Ok(())
    }

    fn pause(&self, vm: VmId) -> Result<(), HostError> {
        self.ask(vm, &Request::Pause)
    }

    fn resume(&self, vm: VmId) -> Result<(), HostError> {
        self.ask(vm, &Request::Resume)
    }

    fn grow(&self, vm: &Vm, cpus: Option<u32>, memory_bytes: Option<u64>) -> Result<(), HostError> {
        let id = vm.meta.id;
        let request = Request::Grow { cpus, memory_bytes };
        // Its CPUs stand while it is asked: not at every step.
        if let Some((of, until, why)) = &lock(&self.memories).entry(id).or_default().too_large
            && *of == request
            && Instant::now() < *until
        {
            return Err(why.clone());
        }
        let grown = self.ask(id, &request);
        let again = Instant::now() + STATUS_GOOD;
        let too_large = grown.as_ref().err().map(|why| (request, again, why.clone()));
        lock(&self.memories).entry(id).or_default().too_large = too_large;
        grown?;
        cpus.map_or(Ok(()), |cpus| cage::grown(id, cpus)).map_err(failed("set the VM's CPU weight"))
    }

    fn press_power_button(&self, vm: VmId) -> Result<(), HostError> {
        self.ask(vm, &Request::PowerButton)
    }

    fn end(&self, vm: VmId) -> Result<(), HostError> {
        let told = {
            let mut memories = lock(&self.memories);
            *memories.entry(vm).or_default().told_to_end.get_or_insert_with(Instant::now)
        };
        if self.ask(vm, &Request::Quit).is_ok() || told.elapsed() < END_LIMIT {
            return Ok(());
        }
        let Some(record) = self.folder(vm).record() else { return Ok(()) };
        process::kill(&record).map_err(failed("kill the VM's process"))
    }

    fn network(
        &self,
        wanted: &WantedNetworks,
    ) -> Result<BTreeMap<NetworkId, Result<(), String>>, HostError> {
        Ok(lock(&self.networks).apply(wanted))
    }

    fn remove(&self, vm: VmId) -> Result<(), HostError> {
        let folder = self.folder(vm);
        // With the lock, nothing starts meanwhile.
        let log = folder.lock().map_err(failed("lock the VM's folder"))?;
        if log.is_none() {
            return Err(HostError("the VM's process is still there".to_owned()));
        }
        cage::forget(vm).map_err(failed("remove the VM's control group"))?;
        self.consoles.close(vm);
        lock(&self.memories).remove(&vm);
        let going = self.vms.join(format!("{GOING}{vm}"));
        fs::rename(folder.path(), &going)
            .and_then(|()| fs::remove_dir_all(&going))
            .map_err(failed("remove the VM's folder"))
    }

    fn see_disks(
        &self,
        pools: &[Pool],
        of: Option<&BTreeSet<DiskId>>,
    ) -> Result<Vec<SeenDisk>, HostError> {
        self.storage.see(pools, of)
    }

    fn make_disk(&self, disk: &Disk) -> Result<(), HostError> {
        self.storage.make(disk)
    }

    fn grow_disk(&self, disk: &Disk, vm: Option<VmId>) -> Result<(), HostError> {
        if let Some(vm) = vm {
            let (name, size_bytes) = (disk.meta.name.to_string(), disk.spec.size_bytes);
            self.ask(vm, &Request::GrowDisk { name, size_bytes })?;
        }
        self.storage.grow(disk, vm.is_some())
    }

    fn take_snapshot(
        &self,
        snapshot: &Snapshot,
        disks: &[Disk],
        vm: Option<(VmId, bool)>,
    ) -> Result<(), HostError> {
        self.storage.take(snapshot, disks, vm)
    }

    fn revert_disk(&self, disk: &Disk, revert: &Revert) -> Result<(), HostError> {
        self.storage.revert(disk, revert)
    }

    fn tidy_disk(&self, disk: &Disk, keep: &[SnapshotId]) -> Result<(), HostError> {
        self.storage.tidy(disk, keep)
    }

    fn remove_disk(&self, disk: DiskId) -> Result<(), HostError> {
        self.storage.remove(disk)
    }

    fn attach(&self, vm: VmId, disk: &Disk) -> Result<(), HostError> {
        let Some((text, options)) = self.storage.open_as(disk)? else { return Ok(()) };
        let files = options.open_files().map_err(|error| HostError(error.to_string()))?.into();
        let directory = self.folder(vm).path().to_owned();
        self.ask(vm, &Request::AddDisk { disk: text, directory, files })
    }

    fn detach(&self, vm: VmId, disk: &Name) -> Result<(), HostError> {
        {
            let mut memories = lock(&self.memories);
            let told = &mut memories.entry(vm).or_default().told_to_go;
            if told.get(disk).is_some_and(|at| at.elapsed() < STATUS_GOOD) {
                return Ok(());
            }
            told.insert(disk.clone(), Instant::now());
        }
        self.ask(vm, &Request::RemoveDevice { name: disk.to_string() })
    }
}

/// What it has, and can have: no more than it has, if it says nothing of that.
fn size(status: &Status) -> Size {
    Size {
        cpus: status.vcpus,
        cpus_max: status.room.vcpus.max(status.vcpus),
        memory_bytes: status.memory_bytes,
        memory_max_bytes: status.room.memory_bytes.max(status.memory_bytes),
        memory_step_bytes: status.room.memory_step_bytes,
    }
}

/// The disk of a slot, if it is one of ours.
fn disk_name(device: &PluggedDevice) -> Option<Name> {
    let is_ours = device.kind == DeviceKind::Disk && device.name != "cloud-init";
    device.name.parse().ok().filter(|_| is_ours)
}
