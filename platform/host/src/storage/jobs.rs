//! What takes its time: making disks, snapshots, and merging layers.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use model::{Consistency, Disk, DiskId, DiskSource, ImageRef, Snapshot, VmId};
use reconcile::HostError;
use vmm_rpc::{AgentReply, AgentRequest, Client, Reply, Request, RpcError};

use super::{DiskFolder, Job, Manifest, Storage, lock, told};

/// So long what goes wrong is told before it is tried again.
const TROUBLE: Duration = Duration::from_secs(10);
/// So long a VM's process has to answer: its guest's agent may be slow.
const ANSWER_LIMIT: Duration = Duration::from_secs(25);

/// A disk of which a snapshot is being taken.
struct Part {
    id: DiskId,
    folder: DiskFolder,
    manifest: Manifest,
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), HostError> {
    let started = thread::Builder::new().name(name.to_owned()).spawn(work);
    started.map(drop).map_err(|error| HostError(format!("cannot start a thread: {error}")))
}

impl Storage {
    fn set(&self, id: DiskId, job: Option<Job>) {
        lock(&self.0.memories).entry(id).or_default().job = job;
    }

    /// Begins to make a disk.
    pub fn make(&self, disk: &Disk) -> Result<(), HostError> {
        let (id, folder) = (disk.meta.id, self.folder(disk)?);
        {
            let mut memories = lock(&self.0.memories);
            let memory = memories.entry(id).or_default();
            if matches!(memory.job, Some(Job::Making(_))) {
                return Ok(());
            }
            memory.folder = Some(folder.clone());
            memory.job = Some(Job::Making(0));
        }
        folder.make().map_err(told("make a disk", folder.path())).inspect_err(|error| {
            self.set(id, Some(Job::Failed(error.0.clone())));
        })?;
        let (of, disk) = (self.clone(), disk.clone());
        spawn("disk", move || {
            let made = of.make_now(&disk, &folder);
            of.set(id, made.err().map(|HostError(why)| Job::Failed(why)));
        })
        .inspect_err(|_| self.set(id, None))
    }

    fn make_now(&self, disk: &Disk, folder: &DiskFolder) -> Result<(), HostError> {
        let source = disk.spec.source.as_ref();
        if let Some(source) = source {
            self.bring(source.image(), disk, folder)?;
        }
        let found = folder.found(disk.spec.size_bytes, source.is_some());
        found.map_err(told("make a disk", folder.path()))?;
        if let Some(DiskSource::Upload(ImageRef { name, .. })) = source
            && let Ok(name) = name.parse()
        {
            // It was there for this disk alone; what is left of it goes when the daemon starts.
            let _ = self.0.images.remove(&name);
        }
        Ok(())
    }

    /// Brings an image's bytes into a disk's folder: as another name of the same file, where that can be.
    fn bring(&self, image: &ImageRef, disk: &Disk, folder: &DiskFolder) -> Result<(), HostError> {
        let said = |error: images::ImageError| HostError(errchain::Chain(&error).to_string());
        let all = self.0.images.list().map_err(said)?;
        let found = all.into_iter().find(|of| of.id.to_string() == image.id).ok_or_else(|| {
            let name = &image.name;
            HostError(format!("image '{name}' is gone, or another one by now: import it again"))
        })?;
        let to = folder.layer(0);
        if fs::hard_link(&found.path, &to).is_ok() {
            return Ok(());
        }
        let mut progress = |done: u64, of: Option<u64>| {
            let of = of.unwrap_or(found.size_bytes).max(1);
            let percent = u8::try_from(done.saturating_mul(100) / of).unwrap_or(99).min(99);
            self.set(disk.meta.id, Some(Job::Making(percent)));
        };
        images::export(&found, &to, images::Format::Raw, &mut progress).map_err(said)
    }

    /// Begins to take a snapshot of disks, with which a VM runs or stands.
    pub fn take(
        &self,
        snapshot: &Snapshot,
        disks: &[Disk],
        vm: Option<(VmId, bool)>,
    ) -> Result<(), HostError> {
        let mut parts = Vec::new();
        for disk in disks {
            if let Some(Job::Trouble(why, _)) =
                lock(&self.0.memories).get(&disk.meta.id).and_then(|memory| memory.job.as_ref())
            {
                return Err(HostError(why.clone()));
            }
            let begun = self.alone(disk, "take a snapshot", |folder, manifest| {
                if manifest.snapshots.contains_key(&snapshot.meta.id) {
                    return Ok(None);
                }
                let vm = vm.map(|(id, _)| id);
                folder.begin(manifest, snapshot.meta.id, vm, &disk.meta.name)?;
                let (folder, manifest) = (folder.clone(), manifest.clone());
                Ok(Some(Part { id: disk.meta.id, folder, manifest }))
            })?;
            // What is in the way now is gone another time, and this is done again.
            let Some(part) = begun else { return Ok(()) };
            parts.extend(part);
        }
        self.finish(parts, vm)
    }

    /// Goes on with a snapshot that a daemon which was killed has begun.
    pub(super) fn resume_snapshot(&self, id: DiskId, folder: &DiskFolder, manifest: &Manifest) {
        let vm = manifest.pending.as_ref().and_then(|pending| pending.vm);
        let part = Part { id, folder: folder.clone(), manifest: manifest.clone() };
        // That no thread can be had now is no reason not to try again.
        let _ = self.finish(vec![part], vm.map(|vm| (vm, true)));
    }

    fn finish(&self, parts: Vec<Part>, vm: Option<(VmId, bool)>) -> Result<(), HostError> {
        let ids: Vec<DiskId> = parts.iter().map(|part| part.id).collect();
        ids.iter().for_each(|id| self.set(*id, Some(Job::Snapshot)));
        let of = self.clone();
        spawn("snapshot", move || of.finish_now(parts, vm))
            .inspect_err(|_| ids.iter().for_each(|id| self.set(*id, None)))
    }

    fn finish_now(&self, parts: Vec<Part>, vm: Option<(VmId, bool)>) {
        let client = vm.map(|(id, is_paused)| {
            let folder = self.vm_folder(id);
            (Client::connect_within(&folder.control(), Some(ANSWER_LIMIT)), folder, is_paused)
        });
        let all = |laid: &Laid| parts.iter().map(|_| laid.clone()).collect::<Vec<_>>();
        let (laid, consistency) = match client {
            Some((Ok(mut client), folder, is_paused)) => {
                let is_frozen = !is_paused && freeze(&mut client, &folder.file(FROZEN));
                let laid = parts.iter().map(|part| lay(&mut client, part)).collect();
                if is_frozen {
                    thaw(&mut client, &folder.file(FROZEN));
                }
                let frozen = Consistency::Filesystem;
                (laid, if is_frozen { frozen } else { Consistency::Crash })
            }
            // Its process has gone: the disk stands as it was left.
            Some((Err(RpcError::NoVm { .. }), ..)) => (all(&Laid::Done), Consistency::Crash),
            Some((Err(error), ..)) => {
                let why = errchain::Chain(&error).to_string();
                (all(&Laid::Unknown(why)), Consistency::Crash)
            }
            None => (all(&Laid::Done), Consistency::Stopped),
        };
        for (Part { id, folder, mut manifest }, laid) in parts.into_iter().zip(laid) {
            let mut memories = lock(&self.0.memories);
            let told = told("take a snapshot", folder.path());
            let done = match laid {
                Laid::Done => folder.complete(&mut manifest, consistency).map_err(told),
                Laid::Refused(why) => {
                    folder.abandon(&mut manifest).map_err(told).and(Err(HostError(why)))
                }
                // It goes on from here another time.
                Laid::Unknown(why) => Err(HostError(why)),
            };
            let trouble =
                done.err().map(|HostError(why)| Job::Trouble(why, Instant::now() + TROUBLE));
            memories.entry(id).or_default().job = trouble;
        }
    }

    /// Lets a guest go on that a daemon which was killed has brought to rest.
    pub fn thaw_left(&self, vm: VmId) {
        let folder = self.vm_folder(vm);
        let is_busy =
            lock(&self.0.memories).values().any(|memory| matches!(memory.job, Some(Job::Snapshot)));
        if is_busy || !folder.file(FROZEN).exists() {
            return;
        }
        let _ = spawn("thaw", move || {
            if let Ok(mut client) = Client::connect_within(&folder.control(), Some(ANSWER_LIMIT)) {
                thaw(&mut client, &folder.file(FROZEN));
            }
        });
    }

    /// Begins to merge two layers of a disk.
    pub(super) fn merge(
        &self,
        id: DiskId,
        folder: DiskFolder,
        manifest: Manifest,
        pair: (u64, u64),
    ) -> Result<(), HostError> {
        let stops = Arc::new(AtomicBool::new(false));
        self.set(id, Some(Job::Merging(stops.clone())));
        let of = self.clone();
        spawn("merge", move || {
            let (number, options) = (manifest.next(), folder.options(&manifest, pair.1));
            let to = folder.layer(number);
            let mut goes_on = |_: u64| !stops.load(Ordering::Relaxed);
            let merged = storage::merge_layers(&options, &to, &mut goes_on);
            let mut memories = lock(&of.0.memories);
            let done = match merged {
                Ok(()) => folder.load().and_then(|manifest| match manifest {
                    Some(mut manifest) => folder.join(&mut manifest, pair, number),
                    None => Ok(()),
                }),
                Err(error) => {
                    let _ = fs::remove_file(&to);
                    let is_stopped = stops.load(Ordering::Relaxed);
                    if is_stopped { Ok(()) } else { Err(io::Error::other(error)) }
                }
            };
            let trouble = done.err().map(|error| {
                let why = errchain::Chain(&error).to_string();
                let why = format!("space of a deleted snapshot cannot be given back: {why}");
                Job::Trouble(why, Instant::now() + TROUBLE)
            });
            memories.entry(id).or_default().job = trouble;
        })
        .inspect_err(|_| self.set(id, None))
    }
}

/// In a VM's folder: its guest's file systems have been brought to rest, and nobody has let them go on yet.
const FROZEN: &str = "frozen";

/// Brings the guest's file systems to rest, if its agent does that.
fn freeze(client: &mut Client, mark: &std::path::Path) -> bool {
    if fs::write(mark, "").is_err() {
        return false;
    }
    let reply = client.ask(&Request::Agent(AgentRequest::Freeze));
    match reply {
        Ok(Reply::Agent(AgentReply::Filesystems { filesystems: 1.. })) => true,
        Ok(Reply::Refused { .. }) => {
            let _ = fs::remove_file(mark);
            false
        }
        // It may have, or may yet.
        _ => {
            thaw(client, mark);
            false
        }
    }
}

fn thaw(client: &mut Client, mark: &std::path::Path) {
    if client.ask(&Request::Agent(AgentRequest::Thaw)).is_ok() {
        let _ = fs::remove_file(mark);
    }
}

/// Whether a VM's process goes on in a new layer.
#[derive(Clone)]
enum Laid {
    /// It does, or there is none.
    Done,
    /// It does not.
    Refused(String),
    /// Nobody knows.
    Unknown(String),
}

/// Lets a VM's process go on in a disk's new layer.
fn lay(client: &mut Client, part: &Part) -> Laid {
    let pending = part.manifest.pending.as_ref();
    let over = part.folder.pending_options(&part.manifest);
    let (Some(pending), Some(over)) = (pending, over) else { return Laid::Done };
    let files = match over.open_files() {
        Ok(files) => files.into(),
        Err(error) => return Laid::Refused(errchain::Chain(&error).to_string()),
    };
    let (name, over) = (pending.name.to_string(), part.folder.told(&over));
    let directory = part.folder.path().to_owned();
    match client.ask(&Request::LayDisk { name, over, directory, files }) {
        Ok(Reply::Refused { message, .. }) => Laid::Refused(message),
        // It has ended: the disk stands as it was left.
        Ok(_) | Err(RpcError::NoVm { .. } | RpcError::Closed) => Laid::Done,
        Err(error) => Laid::Unknown(errchain::Chain(&error).to_string()),
    }
}
