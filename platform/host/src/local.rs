//! The host.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use model::{Engine, NetworkId, Vm, VmId};
use reconcile::{Host, HostError, Process, Seen, WantedNetworks};
use vmm_rpc::{Client, EngineName, Reply, Request, RunState, Status};

use crate::cage;
use crate::consoles::Consoles;
use crate::disks::Disks;
use crate::folder::{Folder, Record};
use crate::guests::Guests;
use crate::networks::{Networks, has_interface};
use crate::process;

/// A VM's process that has not answered for so long is not waited for.
const ANSWER_LIMIT: Duration = Duration::from_millis(500);
/// One that has been told to end and is there after this is killed.
const END_LIMIT: Duration = Duration::from_secs(3);
/// How long an answer is as good as a new one, while nothing is asked of the VM.
const STATUS_GOOD: Duration = Duration::from_secs(5);
/// What a folder is called while it goes away.
const GOING: &str = ".going-";

/// What is remembered of a VM between looks; a host that is opened anew finds it out again.
#[derive(Default)]
struct Memory {
    client: Option<Client>,
    status: Option<(Instant, Status)>,
    told_to_end: Option<Instant>,
}

/// This host.
pub struct LocalHost {
    vms: PathBuf,
    program: PathBuf,
    images: images::Store,
    disks: Disks,
    consoles: Arc<Consoles>,
    memories: Mutex<BTreeMap<VmId, Memory>>,
    networks: Mutex<Networks>,
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
    /// VMs in this folder, run by this `trinevm`, from these images.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn open(vms: &Path, program: PathBuf, images: images::Store) -> io::Result<Self> {
        let vms = std::path::absolute(vms)?;
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
        let networks = Mutex::new(Networks::open(vms.with_file_name("networks")));
        Ok(Self {
            vms,
            networks,
            program,
            images,
            disks: Disks::default(),
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
        // Before the folders: what is made meanwhile is among them.
        let mut ids = self.disks.ids();
        for entry in fs::read_dir(&self.vms)? {
            ids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<VmId>().ok()));
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    fn look(&self, id: VmId) -> io::Result<Seen> {
        let folder = self.folder(id);
        let disk = self.disks.see(id, &folder);
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
        Ok(Seen { id, disk, process })
    }

    fn look_at_process(&self, id: VmId, mut record: Record, folder: &Folder) -> Process {
        let mut memories = lock(&self.memories);
        let memory = memories.entry(id).or_default();
        let is_new = memory.status.as_ref().is_some_and(|(at, _)| at.elapsed() < STATUS_GOOD);
        if !is_new && let Some(Reply::Status(status)) = ask(memory, folder, &Request::Status) {
            memory.status = Some((Instant::now(), *status));
        }
        let Some((_, status)) = &memory.status else {
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
    fn see(&self) -> Result<Vec<Seen>, HostError> {
        lock(&self.children).retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        let seen = |id| self.look(id);
        let all = self.ids().and_then(|ids| ids.into_iter().map(seen).collect());
        all.map_err(failed("look at the VMs' folders"))
    }

    fn prepare(&self, vm: &Vm) -> Result<(), HostError> {
        self.disks.make(vm, &self.folder(vm.meta.id), &self.images)
    }

    fn start(&self, vm: &Vm) -> Result<(), HostError> {
        let missing = vm.status.networks.iter().find(|card| !has_interface(&card.interface));
        if let Some(card) = missing {
            let why = "is not ready: trine network show says why";
            return Err(HostError(format!("network '{}' {why}", card.network)));
        }
        let started = process::start(&self.program, vm, &self.folder(vm.meta.id));
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
        if self.disks.is_making(vm) {
            // It is in the way until it is done.
            return Ok(());
        }
        if !folder.path().exists() {
            // It could not even be begun.
            self.disks.forget(vm);
            return Ok(());
        }
        // With the lock, nothing starts meanwhile.
        let log = folder.lock().map_err(failed("lock the VM's folder"))?;
        if log.is_none() {
            return Err(HostError("the VM's process is still there".to_owned()));
        }
        cage::forget(vm).map_err(failed("remove the VM's control group"))?;
        self.consoles.close(vm);
        self.disks.forget(vm);
        lock(&self.memories).remove(&vm);
        let going = self.vms.join(format!("{GOING}{vm}"));
        fs::rename(folder.path(), &going)
            .and_then(|()| fs::remove_dir_all(&going))
            .map_err(failed("remove the VM's folder"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm() -> Vm {
        let name: model::Name = "a".parse().unwrap();
        let meta = model::VmMeta {
            id: VmId::new(),
            project: name.clone(),
            name,
            created: jiff::Timestamp::UNIX_EPOCH,
            deleting: false,
        };
        Vm { meta, spec: model::VmSpec::default(), status: model::VmStatus::default() }
    }

    fn host(home: &Path) -> LocalHost {
        let images = images::Store::open(&home.join("images")).unwrap();
        LocalHost::open(&home.join("vms"), "trinevm".into(), images).unwrap()
    }

    /// Otherwise one that is deleted at once would be forgotten, and its folder come afterwards.
    #[test]
    fn a_vm_is_seen_from_when_it_is_begun_to_be_made() {
        let home = tempfile::tempdir().unwrap();
        let host = host(home.path());
        for _ in 0..100 {
            let vm = vm();
            host.prepare(&vm).unwrap();
            assert!(host.see().unwrap().iter().any(|seen| seen.id == vm.meta.id));
        }
    }

    #[test]
    fn a_vm_that_could_not_be_begun_says_why_and_can_be_removed() {
        let home = tempfile::tempdir().unwrap();
        let host = host(home.path());
        let mut vm = vm();
        vm.spec.image = Some("missing".to_owned());
        // In place of its folder: it cannot be made.
        fs::write(home.path().join("vms").join(vm.meta.id.to_string()), "").unwrap();
        host.prepare(&vm).unwrap();
        while host.disks.is_making(vm.meta.id) {}
        fs::remove_file(home.path().join("vms").join(vm.meta.id.to_string())).unwrap();
        let seen = host.see().unwrap();
        assert!(matches!(&seen[0].disk, reconcile::Disk::Failed(..)), "{seen:?}");
        host.remove(vm.meta.id).unwrap();
        assert!(host.see().unwrap().is_empty());
    }
}
