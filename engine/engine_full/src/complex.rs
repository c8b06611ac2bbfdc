//! What the vCPUs share: translated code, and how one makes the others forget what they know.
//!
//! A vCPU in translated code knows entries for stores and places in code memory. Whoever is to
//! change what those rest on leaves it a command, and waits until it is out of translated code:
//! it reads its commands before it goes there again. Announcing that it goes and looking for
//! commands, and leaving a command and looking whether it has gone, are sequentially consistent:
//! one sees the other.
//!
//! *Locks*: `clearing`, then `cache`, then a vCPU's commands. Nobody waits for a vCPU under `cache`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use engine::{CpuComplex, EngineError, ExitCount, Footprint, IoApicRoutes};
use engine_soft::{Alarm, Complex};
use guest_memory::{CodeWatcher, DirtyBitmap, FlatView};
use x86_state::{Msi, VcpuId};

use crate::cache::Cache;
use crate::exits::{self, Exits};
use crate::timer::Timers;
use crate::tsc::GuestTsc;
use crate::views::KickWord;

/// What a vCPU is to forget before it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// Entries for stores that lead to this page of guest memory.
    DropStores(u32),
    /// All entries for stores; their pages are to be reported as written.
    FlushStores,
    /// Every place in code memory.
    FlushCode,
}

/// Commands a vCPU may leave unread before they are taken together.
const COMMANDS_MAX: usize = 1024;

/// One vCPU, as the others see it.
pub(crate) struct Peer {
    /// It is in translated code, or about to resolve why it left.
    running: AtomicBool,
    waiting: AtomicBool,
    commands: Mutex<Vec<Command>>,
    /// Bytes of its tables: of memory of their own, and of shared mappings.
    pub(crate) tables: [AtomicU64; 2],
    pub(crate) exits: Exits,
    pub(crate) kick: Arc<KickWord>,
}

impl Peer {
    pub(crate) fn new(kick: Arc<KickWord>) -> Self {
        Self {
            running: AtomicBool::new(false),
            waiting: AtomicBool::new(false),
            commands: Mutex::default(),
            tables: Default::default(),
            exits: Exits::default(),
            kick,
        }
    }

    fn post(&self, command: Command) {
        let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        if commands.len() < COMMANDS_MAX {
            commands.push(command);
        } else if !commands.contains(&Command::FlushStores) {
            commands.push(Command::FlushStores);
        }
        self.waiting.store(true, Ordering::SeqCst);
        drop(commands);
        self.kick.ring();
    }

    /// The vCPU goes into translated code, unless there are commands.
    pub(crate) fn begin(&self) -> bool {
        self.running.store(true, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) {
            self.end();
            return false;
        }
        true
    }

    /// It has come back, and knows why.
    pub(crate) fn end(&self) {
        self.running.store(false, Ordering::SeqCst);
    }

    /// The commands there are.
    pub(crate) fn take_commands(&self) -> Vec<Command> {
        let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting.store(false, Ordering::SeqCst);
        std::mem::take(&mut commands)
    }

    /// There are commands.
    pub(crate) fn has_commands(&self) -> bool {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Until it has read its commands, or is where it will before it goes on.
    fn wait(&self) {
        while self.running.load(Ordering::SeqCst) && self.waiting.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
    }
}

/// Inside the socket.
pub(crate) struct FullComplex {
    pub(crate) soft: Arc<Complex>,
    cache: Mutex<Cache>,
    clearing: Mutex<()>,
    pub(crate) peers: Vec<Peer>,
    pub(crate) timers: Timers,
    /// The TSC, where it is the host's.
    pub(crate) tsc: Option<Arc<GuestTsc>>,
    /// Grows whenever units are no longer what is to run.
    pub(crate) changes: AtomicU64,
}

impl FullComplex {
    /// `reads_tsc`: translated code may, by itself.
    pub(crate) fn new(soft: Arc<Complex>, cache: Cache, peers: Vec<Peer>, reads_tsc: bool) -> Self {
        let timers = Timers::new(soft.clone());
        let tsc = GuestTsc::new(soft.clock.clone(), soft.profile.tsc_khz());
        let tsc = tsc.filter(|_| reads_tsc);
        Self {
            soft,
            cache: Mutex::new(cache),
            clearing: Mutex::default(),
            peers,
            timers,
            tsc,
            changes: AtomicU64::new(0),
        }
    }

    pub(crate) fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cache, to take places in code memory from.
    pub(crate) fn open_cache(&self) -> MutexGuard<'_, Cache> {
        loop {
            let cache = self.cache();
            if !cache.closing {
                return cache;
            }
            drop(cache);
            std::thread::yield_now();
        }
    }

    /// Has every vCPU forget something. When this returns, none is in translated code knowing it.
    /// The calling vCPU, if it is one, is not in translated code.
    fn tell_all(&self, command: Command) {
        for peer in &self.peers {
            peer.post(command);
        }
        for peer in &self.peers {
            peer.wait();
        }
    }

    /// Sees to it that this complex is told of code that changes. Another engine on the same memory
    /// may have taken its place; then nothing translated before is good any more.
    ///
    /// Called by each vCPU that begins to run. All have stopped when another engine runs.
    pub(crate) fn watch_code(self: &Arc<Self>) {
        let _one_at_a_time = self.clearing.lock().unwrap_or_else(PoisonError::into_inner);
        let watcher: Arc<dyn CodeWatcher> = self.clone();
        if self.soft.memory.bits().set_code_watcher(&watcher) {
            self.drop_code(|cache| {
                cache.clear();
                self.soft.memory.bits().forget_code();
            });
        }
    }

    /// Has every vCPU look around: something it may have a copy of has changed.
    pub(crate) fn kick_all(&self) {
        for peer in &self.peers {
            peer.kick.ring();
        }
    }

    /// Drops translated code, once no vCPU knows any.
    fn drop_code(&self, drop: impl FnOnce(&mut Cache)) {
        // Whoever has a place in code memory reads this command before it goes there; nobody gets
        // another until the cache is open again.
        self.cache().closing = true;
        // Before the command: who has read it finds no unit by memory that the cache has not open.
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.tell_all(Command::FlushCode);
        let mut cache = self.cache();
        drop(&mut cache);
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// Makes room in the cache. The calling vCPU is not in translated code.
    pub(crate) fn make_room(&self) {
        let _one_at_a_time = self.clearing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.cache().has_room() {
            return;
        }
        self.drop_code(|cache| {
            // A unit that is being made of such a page is told by the generation of its code.
            for page in cache.drop_oldest() {
                self.soft.memory.bits().clear_code(page as usize);
            }
        });
    }
}

impl FullComplex {
    /// Retires units that depend on lines of a page. Returns how many of the page are left, if there
    /// were any.
    pub(crate) fn retire(&self, cache: &mut Cache, page: u32, lines: u64) -> Option<usize> {
        let (retired, left) = cache.retire(page, lines)?;
        if retired > 0 {
            self.changes.fetch_add(1, Ordering::SeqCst);
        }
        Some(left)
    }

    /// The kernel's page `number` is no longer this one: retires its units.
    pub(crate) fn retire_moved(&self, number: u64, page: u32) {
        let mut cache = self.cache();
        cache.forget_kernel_page(number);
        self.retire(&mut cache, page, u64::MAX);
    }
}

impl CodeWatcher for FullComplex {
    fn code_begins(&self, page: usize) {
        self.tell_all(Command::DropStores(page as u32));
    }

    fn code_written(&self, page: usize, lines: u64) {
        // Under one lock: a unit that is added in between needs its page watched.
        let mut cache = self.cache();
        if self.retire(&mut cache, page as u32, lines) == Some(0) {
            self.soft.memory.bits().clear_code(page);
        }
    }
}

impl CpuComplex for FullComplex {
    fn set_memory(&self, view: &FlatView) -> Result<(), EngineError> {
        self.soft.set_memory(view)
    }

    fn set_dirty_log(&self, on: bool) -> Result<(), EngineError> {
        self.soft.set_dirty_log(on)
    }

    fn harvest_dirty(&self, into: &DirtyBitmap) -> Result<(), EngineError> {
        // What was written through entries is marked dirty when the entry is filled; pages that were
        // harvested since are watched again, so entries that lead to them must go.
        self.tell_all(Command::FlushStores);
        self.soft.harvest_dirty(into)
    }

    fn send_msi(&self, msi: Msi) {
        self.soft.send_msi(msi);
    }

    fn set_intr(&self, level: bool) {
        self.soft.set_intr(level);
    }

    fn set_ioapic_routes(&self, routes: &IoApicRoutes) -> Result<(), EngineError> {
        self.soft.set_ioapic_routes(routes)
    }

    fn footprint(&self) -> Footprint {
        let (code, of_code) = {
            let cache = self.cache();
            (cache.memory.bytes() as u64, cache.table_bytes() as u64)
        };
        let of_vcpus = |kind: usize| -> u64 {
            self.peers.iter().map(|peer| peer.tables[kind].load(Ordering::Relaxed)).sum()
        };
        let [own, shared] = [0, 1].map(of_vcpus);
        Footprint {
            code_bytes: code,
            table_bytes: of_code + own + shared,
            shared_bytes: code + shared,
        }
    }

    fn exits(&self) -> Vec<ExitCount> {
        let mut all = BTreeMap::new();
        self.peers.iter().for_each(|peer| peer.exits.add_to(&mut all));
        exits::sorted(all)
    }

    fn kick(&self, vcpu: VcpuId) {
        self.soft.kick(vcpu);
    }
}
