//! What translated code has done is done again by the interpreter, on a copy of the guest's memory,
//! and compared.
//!
//! A *stretch* is what translated code does between two moments at which the interpreter has the
//! registers. Nothing comes into it from outside: no device, no interrupt, no clock. So registers
//! and memory at its beginning decide those at its end, and what is between two stretches needs
//! no checking: it is the interpreter's own work, and copied.
//!
//! Translated code counts no instructions. The interpreter goes on until its registers and what has
//! been written are as translated code has left them; a state that comes twice is the same
//! state, so the first will do. Arithmetic flags are not part of that: translated code leaves those behind that will
//! be overwritten (ADR 8). Where they differ, the interpreter keeps its own, and if one is read
//! all the same, it goes another way.
//!
//! *Limits*: one vCPU. What devices write while a stretch runs looks like a mistake in it.

mod differences;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use engine::{EngineError, Parts};
use engine_soft::{Complex, SoftEnv, SoftVcpu};
use guest_memory::{DirtyBitmap, FlatView, GuestMemory, PAGE_SIZE, RamOffset};
use x86_exec::{Access, Backing, Cpu, RunExit};
use x86_state::{Activity, CpuProfile, VcpuId};

pub use differences::Difference;

/// Instructions the interpreter may need more than are known to fit the time a stretch took.
const SLACK: u64 = 100_000;
/// More than any host executes in a nanosecond.
const INSNS_PER_NS: u64 = 8;
/// Instructions that are shown of the interpreter's way.
const TRAIL: usize = 64;
/// So many general registers differ at most in what is worth a closer look.
const NEAR: usize = 3;
/// How often all memory is compared, not only what is known to be written.
const WHOLE_MEMORY_EVERY: Duration = Duration::from_secs(2);
const PAGE: usize = PAGE_SIZE as usize;
/// Accessed and dirty, of an entry of a page table. Hardware sets them when it likes to.
const ENTRY_MARKS: u64 = 0x60;

/// What has been checked.
#[derive(Debug, Default)]
pub struct Checked {
    /// Stretches that were done again.
    pub stretches: AtomicU64,
    /// Instructions in them.
    pub instructions: AtomicU64,
    /// Stretches after which arithmetic flags were different.
    pub flags_left: AtomicU64,
}

/// Translated code and the interpreter have come from the same state to different ones.
#[derive(Debug)]
pub struct Divergence {
    /// The number of the stretch.
    pub stretch: u64,
    /// Instructions that were checked before it.
    pub instructions: u64,
    /// Where it began, and where translated code came back.
    pub from: u64,
    /// See `from`.
    pub to: u64,
    /// What differs.
    pub differences: Vec<Difference>,
    /// The interpreter's last instructions, and their bytes.
    pub trail: Vec<(u64, Vec<u8>)>,
}

/// Told of a divergence.
pub type Tell = Arc<dyn Fn(Divergence) + Send + Sync>;

/// The copy, and who does it again.
pub(crate) struct Check {
    soft: SoftVcpu,
    memory: Arc<GuestMemory>,
    original: Arc<GuestMemory>,
    view: Arc<FlatView>,
    /// Every unit is a stretch of its own.
    pub(crate) by_unit: bool,
    checked: Arc<Checked>,
    tell: Tell,
    /// The first stretch is yet to come.
    is_new: bool,
    /// Of the vCPU's translations of addresses.
    generation: u64,
    /// Translated code's flags, where the interpreter keeps its own, and the vCPU's count of
    /// instructions then.
    flags_left: Option<(u64, u64)>,
    began: Instant,
    from: u64,
    iterations_max: u64,
    compared: Instant,
    /// Pages either has written in the stretch at hand.
    written: Vec<usize>,
}

impl Check {
    /// Beside the only vCPU of a machine.
    ///
    /// # Errors
    /// When the host refuses.
    pub(crate) fn new(
        profile: &CpuProfile,
        parts: &Parts,
        by_unit: bool,
        checked: Arc<Checked>,
        tell: Tell,
    ) -> Result<Self, EngineError> {
        let original = parts.memory.clone();
        let size = original.bits().pages() as u64 * PAGE_SIZE;
        let memory = GuestMemory::new(&[("copy", size)])
            .map_err(|e| EngineError::State(format!("no memory for a copy of the guest's: {e}")))?;
        let own = Parts { clock: parts.clock.clone(), memory: memory.clone() };
        let complex = Complex::new(profile, &own);
        let soft = SoftVcpu::new(&complex, VcpuId(0))?;
        Ok(Self {
            iterations_max: soft.cpu.iterations_max,
            view: complex.view(),
            soft,
            memory,
            original,
            by_unit,
            checked,
            tell,
            is_new: true,
            generation: 0,
            flags_left: None,
            began: Instant::now(),
            from: 0,
            compared: Instant::now(),
            written: Vec::new(),
        })
    }

    /// Translated code begins with these registers.
    pub(crate) fn begin(&mut self, cpu: &Cpu<SoftEnv>) {
        if std::mem::take(&mut self.is_new) {
            self.original.bits().watch_dirty(true);
            self.memory.bits().watch_dirty(true);
        }
        self.take_view(&cpu.env);
        for page in taken(&self.original) {
            self.copy(page);
        }
        let own_flags = self.soft.cpu.flags;
        self.soft.cpu.take_registers_of(cpu);
        if self.flags_left == Some((cpu.flags.bits(), cpu.retired)) {
            self.soft.cpu.flags = own_flags;
        }
        let generation = cpu.mmu.generation();
        if std::mem::replace(&mut self.generation, generation) != generation {
            self.soft.cpu.mmu.flush();
        }
        taken(&self.memory);
        self.from = cpu.rip;
        self.began = Instant::now();
    }

    fn take_view(&mut self, env: &SoftEnv) {
        let view = env.complex.view();
        if !Arc::ptr_eq(&view, &self.view) {
            // Only its place changes: a socket of software refuses no view.
            let _ = engine::CpuComplex::set_memory(&*self.soft.complex, &view);
            self.soft.read_mail();
            self.view = view;
        }
    }

    /// Copies a page of the guest's memory, when it is another.
    fn copy(&self, page: usize) {
        let at = RamOffset(page as u64 * PAGE_SIZE);
        let (mut original, mut own) = ([0; PAGE], [0; PAGE]);
        self.original.read(at, &mut original);
        self.memory.read(at, &mut own);
        if original != own {
            self.memory.write(at, &original);
        }
    }

    /// Translated code has come back with these registers: does the same again.
    pub(crate) fn end(&mut self, cpu: &Cpu<SoftEnv>) {
        let elapsed = self.began.elapsed().as_nanos() as u64;
        let before = self.soft.cpu.retired;
        let mut trail = Trail::default();
        let followed = self.follow(cpu, SLACK + elapsed * INSNS_PER_NS, &mut trail);
        let count = self.soft.cpu.retired - before;
        let number = self.checked.stretches.fetch_add(1, Ordering::Relaxed);
        let instructions = self.checked.instructions.fetch_add(count, Ordering::Relaxed);
        let mut differences = followed.err().unwrap_or_default();
        if differences.is_empty() && self.compared.elapsed() > WHOLE_MEMORY_EVERY {
            self.written = (0..self.memory.bits().pages()).collect();
            differences = self.memory_differences();
            self.compared = Instant::now();
        }
        let is_together = differences.is_empty();
        for page in &self.written {
            self.copy(*page);
        }
        if !differences.is_empty() {
            let trail = trail.take(&mut self.soft.cpu, &self.memory);
            let (from, to) = (self.from, cpu.rip);
            let stretch = number;
            (self.tell)(Divergence { stretch, instructions, from, to, differences, trail });
        }
        let differ = self.soft.cpu.flags.bits() != cpu.flags.bits();
        self.flags_left = (is_together && differ).then(|| (cpu.flags.bits(), cpu.retired));
        self.checked.flags_left.fetch_add(u64::from(differ), Ordering::Relaxed);
    }

    /// Interprets until registers and memory are the same.
    ///
    /// # Errors
    /// What differed when they were most alike, after so many instructions.
    fn follow(
        &mut self,
        target: &Cpu<SoftEnv>,
        limit: u64,
        trail: &mut Trail,
    ) -> Result<(), Vec<Difference>> {
        let mut nearest: Option<Vec<Difference>> = None;
        let mut at_nearest = Trail::default();
        self.written = taken(&self.original);
        for _ in 0..limit {
            self.soft.cpu.iterations_max = self.iterations_max;
            if self.soft.cpu.rip == target.rip {
                if differences::gprs(&self.soft.cpu, target) <= NEAR {
                    let mut found = differences::of(&self.soft.cpu, target);
                    if found.is_empty() {
                        found = self.memory_differences();
                    }
                    if found.is_empty() {
                        return Ok(());
                    }
                    if nearest.as_ref().is_none_or(|n| found.len() <= n.len()) {
                        nearest = Some(found);
                        at_nearest = trail.clone();
                    }
                }
                // Translated code may have come back between two iterations of it.
                let (left, wanted) = (self.soft.cpu.gpr[1], target.gpr[1]);
                let most = left.wrapping_sub(wanted).clamp(1, self.iterations_max);
                self.soft.cpu.iterations_max = most;
            }
            trail.note(self.soft.cpu.rip);
            let ended = self.soft.cpu.run_one() == RunExit::TripleFault;
            if ended || self.soft.cpu.activity != Activity::Running {
                break;
            }
        }
        self.written.extend(taken(&self.memory));
        if nearest.is_some() {
            *trail = at_nearest;
        }
        Err(nearest.unwrap_or_else(|| differences::of(&self.soft.cpu, target)))
    }

    /// What differs in the pages that either has written.
    fn memory_differences(&mut self) -> Vec<Difference> {
        self.written.extend(taken(&self.memory));
        self.written.sort_unstable();
        self.written.dedup();
        self.written.iter().filter_map(|page| self.compare(*page)).collect()
    }

    /// The first word of a page that is not the same.
    fn compare(&self, page: usize) -> Option<Difference> {
        let at = RamOffset(page as u64 * PAGE_SIZE);
        let (mut translated, mut interpreted) = ([0; PAGE], [0; PAGE]);
        self.original.read(at, &mut translated);
        self.memory.read(at, &mut interpreted);
        if translated == interpreted {
            return None;
        }
        let words = translated.chunks(8).zip(interpreted.chunks(8));
        let value = |bytes: &[u8]| bytes.iter().rev().fold(0, |v, b| v << 8 | u128::from(*b));
        words.enumerate().find_map(|(index, (one, other))| {
            let (one, other) = (value(one), value(other));
            let marks = one & other & 1 != 0 && (one ^ other) & !u128::from(ENTRY_MARKS) == 0;
            let what = format!("memory at {:#x}", at.0 + 8 * index as u64);
            (!differences::is_alike(one, other) && !marks).then_some(Difference {
                what,
                translated: one,
                interpreted: other,
            })
        })
    }
}

/// Pages written since this was asked before.
fn taken(memory: &GuestMemory) -> Vec<usize> {
    let pages = DirtyBitmap::new(memory.bits().pages());
    memory.bits().harvest_dirty(&pages);
    pages.iter().collect()
}

/// The last instructions.
#[derive(Clone)]
struct Trail {
    rips: [u64; TRAIL],
    count: usize,
}

impl Default for Trail {
    fn default() -> Self {
        Self { rips: [0; TRAIL], count: 0 }
    }
}

impl Trail {
    fn note(&mut self, rip: u64) {
        self.rips[self.count % TRAIL] = rip;
        self.count += 1;
    }

    /// They and their bytes, as far as these can be read now.
    fn take(&self, cpu: &mut Cpu<SoftEnv>, memory: &GuestMemory) -> Vec<(u64, Vec<u8>)> {
        let first = self.count.saturating_sub(TRAIL);
        let rips = (first..self.count).map(|n| self.rips[n % TRAIL]);
        let mut bytes = |rip: u64| {
            let privilege = cpu.mmu.privilege();
            let page = cpu.page(rip, Access::Execute, privilege).ok()?;
            let (Backing::Ram(at) | Backing::Rom(at)) = page.backing else { return None };
            let mut bytes = vec![0; (PAGE - rip as usize % PAGE).min(15)];
            let offset = rip % PAGE_SIZE;
            memory.read(RamOffset((at.0 & !(PAGE_SIZE - 1)) + offset), &mut bytes);
            Some(bytes)
        };
        rips.map(|rip| (rip, bytes(rip).unwrap_or_default())).collect()
    }
}
