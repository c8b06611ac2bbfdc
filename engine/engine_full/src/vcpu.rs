//! One vCPU: translated code where there is any, the interpreter for everything else.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use engine::{Bus, DebugStops, EngineError, Exit, Vcpu};
use engine_soft::{Next, SoftVcpu};
use guest_memory::{PAGE_SIZE, RamOffset};
use x86_decode::native::NativeDecoder;
use x86_decode::{DecodeError, INSN_SIZE_MAX};
use x86_exec::{Access, Backing, Mode as CpuMode, PageAt, Privilege, TripleFault};
use x86_mmu::Flush;
use x86_state::bits::{Cr0, Cr4, Rflags};
use x86_state::{InterruptShadow, SegReg, VcpuState};

use crate::cache::{Cache, Key, Mode, Reason, Site};
use crate::code::Place;
use crate::complex::{Command, FullComplex};
use crate::context::StackWindow;
use crate::entry;
use crate::fault::SignalStack;
use crate::stores::Stores;
use crate::transition;
use crate::translate::{Source, Translator};
use crate::views::{Selector, Views};

/// Instructions the interpreter does at once, where no code is translated.
const SLICE: u64 = 20_000;
const PAGE_MASK: u64 = PAGE_SIZE - 1;
/// No instruction is there.
const NOWHERE: u64 = 1 << 63;

/// One vCPU.
pub(crate) struct FullVcpu {
    soft: SoftVcpu,
    complex: Arc<FullComplex>,
    views: Views,
    stores: Stores,
    translator: Translator,
    /// A page of code, and the beginning of another.
    page: Box<[u8; PAGE_SIZE as usize + INSN_SIZE_MAX]>,
    /// What user and kernel code among the jumps was translated for.
    jump_modes: [Mode; 2],
    /// The registers are in the context.
    given: bool,
    recent: Vec<Option<Recent>>,
    /// Where the guest is, as of the registers in the context.
    rip: u64,
}

/// Where the page's memory is: RAM or ROM.
fn memory_at(page: &PageAt) -> Option<u64> {
    match page.backing {
        Backing::Ram(at) | Backing::Rom(at) => Some(at.0),
        Backing::Bus => None,
    }
}

/// A unit, as long as the cache is of this generation.
#[derive(Debug, Clone, Copy)]
struct Found {
    mode: Mode,
    entry: Place,
    link: Place,
    /// It is on two pages.
    crosses: bool,
    /// Host address of the body.
    target: u64,
    generation: u64,
}

/// A unit that was found lately.
#[derive(Debug, Clone, Copy)]
struct Recent {
    rip: u64,
    /// Of the translations of addresses.
    mmu_generation: u64,
    /// Of the cache's units.
    changes: u64,
    wanted: Mode,
    found: Found,
}

/// Units found lately that are remembered, by their address.
const RECENT: usize = 1024;

/// Where translated code goes on.
enum Onward {
    /// At a host place.
    Host(u64),
    /// At a guest address, after a look at everything.
    Guest(u64),
    /// The interpreter does the instruction there.
    Interpret(u64),
}

impl FullVcpu {
    pub(crate) fn new(soft: SoftVcpu, complex: Arc<FullComplex>, views: Views) -> Self {
        let mut vcpu = Self {
            soft,
            complex,
            views,
            stores: Stores::default(),
            translator: Translator::default(),
            page: Box::new([0; PAGE_SIZE as usize + INSN_SIZE_MAX]),
            jump_modes: [Mode::empty(); 2],
            given: false,
            recent: vec![None; RECENT],
            rip: 0,
        };
        vcpu.soft.cpu.mmu.watch_flushes(true);
        vcpu.flush_everything();
        vcpu
    }

    fn run_loop(&mut self) -> Result<Exit, EngineError> {
        loop {
            let next = self.soft.prepare();
            self.mirror_flushes();
            self.obey();
            match next {
                Next::Return(exit) => return Ok(exit),
                Next::Sleep => {
                    self.complex.timers.set(self.soft.index(), None);
                    self.soft.sleep();
                }
                Next::Execute => {
                    self.set_timer();
                    let exit = if self.can_translate() {
                        self.run_translated()?
                    } else {
                        self.soft.execute(self.interpreted_at_once())
                    };
                    if let Some(exit) = exit {
                        return Ok(exit);
                    }
                }
            }
        }
    }

    /// Has the timers' thread wake this vCPU when its APIC's is due.
    fn set_timer(&self) {
        let due = self.soft.slot().lapic().next_deadline_ns();
        self.complex.timers.set(self.soft.index(), due);
    }

    /// Nothing in force needs a look at each instruction, or is the interpreter's.
    fn can_translate(&self) -> bool {
        let cpu = &self.soft.cpu;
        cpu.mode == CpuMode::Long64
            && matches!(cpu.cpl, 0 | 3)
            && cpu.is_plain()
            && cpu.activity == x86_state::Activity::Running
            && !self.soft.is_debugged()
    }

    /// How many instructions to interpret before another look whether code can be translated: one,
    /// where what stands in the way ends with the next (interrupt shadow, RFLAGS.RF).
    fn interpreted_at_once(&self) -> u64 {
        let cpu = &self.soft.cpu;
        let debugged = cpu.system_flag(Rflags::TF) || cpu.debug.dr7 & 0xff != 0;
        if cpu.mode == CpuMode::Long64 && !debugged { 1 } else { SLICE }
    }

    /// What code is translated for now.
    fn mode(&self) -> Mode {
        let cpu = &self.soft.cpu;
        let off = cpu.cr0 & (Cr0::EM | Cr0::TS).bits() != 0 || cpu.cr4 & Cr4::OSFXSR.bits() == 0;
        let mut mode = Mode::empty();
        mode.set(Mode::USER, cpu.cpl == 3);
        mode.set(Mode::NO_VECTOR, off);
        mode
    }

    fn selector(&self) -> Selector {
        let cpu = &self.soft.cpu;
        let barred = cpu.cpl != 3
            && cpu.cr4 & Cr4::SMAP.bits() != 0
            && cpu.system_flags & Rflags::AC.bits() == 0;
        if barred { Selector::Supervisor } else { Selector::Space }
    }

    /// Runs translated code until something wants more than one instruction's attention.
    fn run_translated(&mut self) -> Result<Option<Exit>, EngineError> {
        let mut onward = Onward::Guest(self.soft.cpu.rip);
        loop {
            onward = match onward {
                Onward::Interpret(rip) => {
                    self.take_registers(rip);
                    if let Some(exit) = self.soft.execute_one() {
                        return Ok(Some(exit));
                    }
                    self.mirror_flushes();
                    self.set_timer();
                    if self.wants_more() {
                        return Ok(None);
                    }
                    Onward::Guest(self.soft.cpu.rip)
                }
                Onward::Guest(rip) => {
                    // In this order: what comes later rings again.
                    self.views.context().kick.store(0, Ordering::SeqCst);
                    if self.soft.slot().mail.any() {
                        self.take_registers(rip);
                        return Ok(None);
                    }
                    self.obey();
                    self.find(rip, Mode::empty())
                }
                Onward::Host(target) => {
                    self.give_registers();
                    self.go(target)
                }
            };
        }
    }

    /// After an interpreted instruction: the engine's loop is to look at everything.
    fn wants_more(&self) -> bool {
        !self.can_translate()
            || self.soft.slot().mail.any()
            || self.soft.cpu.env.event_waiting && self.soft.cpu.system_flag(Rflags::IF)
    }

    /// Runs translated code at a place, and finds out why it came back.
    fn go(&mut self, target: u64) -> Onward {
        let peer = &self.complex.peers[self.soft.index()];
        let [gs, fs] = self.views.bases(self.selector());
        let space = self.views.bases(Selector::Space);
        let barred = self.soft.cpu.cr4 & Cr4::SMAP.bits() != 0;
        let kernel = if barred { self.views.bases(Selector::Supervisor) } else { space };
        let context = self.views.context();
        context.target = target;
        context.view_fs = fs;
        context.space_bases = space;
        context.kernel_bases = kernel;
        if !peer.begin() {
            return Onward::Guest(self.rip);
        }
        entry::run(gs);
        let context = self.views.context();
        let (fault, number) = (std::mem::take(&mut context.fault), context.site);
        let scratch = context.scratch;
        transition::take(&mut self.soft.cpu, context);
        let cache = self.complex.cache();
        let found = if fault != 0 {
            let rip = cache.memory.place(fault).and_then(|place| cache.instruction_at(place));
            rip.map(|rip| Site { rip, host: 0, reason: Reason::Interpret })
        } else {
            cache.site(number)
        };
        let Some(site) = found else {
            panic!("translated code left at no site: {number}, fault at {fault:#x}")
        };
        let resume = cache.memory.address(site.host);
        let generation = cache.generation;
        drop(cache);
        peer.end();
        self.rip = if site.reason == Reason::Jump { scratch } else { site.rip };
        self.resolve(site, scratch, resume, generation)
    }

    fn resolve(&mut self, site: Site, scratch: u64, resume: u64, generation: u64) -> Onward {
        match site.reason {
            Reason::Interpret => Onward::Interpret(site.rip),
            Reason::Go => Onward::Guest(site.rip),
            Reason::Load => self.fill(site.rip, scratch, false, resume),
            Reason::Store => self.fill(site.rip, scratch, true, resume),
            Reason::Window => self.move_window(site.rip),
            Reason::X87 => {
                self.give_x87();
                Onward::Host(resume)
            }
            Reason::Jump => self.find_for(scratch, generation, |vcpu, found, cache| {
                if !found.mode.intersects(Mode::LOCAL | Mode::NO_WINDOW) {
                    let user = found.mode.contains(Mode::USER);
                    let entry = cache.memory.address(found.entry);
                    vcpu.views.set_jump(scratch, user, entry, found.crosses);
                }
            }),
            Reason::Link => self.find_for(site.rip, generation, |_, found, cache| {
                cache.link(site.host, found.link);
            }),
            Reason::Retired => self.find_for(site.rip, generation, |_, found, cache| {
                cache.replace(site.host, found.link);
            }),
        }
    }

    /// Goes on at the unit at `rip`, and tells of it unless the cache was cleared since
    /// `generation`.
    fn find_for(
        &mut self,
        rip: u64,
        generation: u64,
        tell: impl FnOnce(&mut Self, Found, &Cache),
    ) -> Onward {
        if self.soft.slot().mail.any() || self.has_commands() {
            return Onward::Guest(rip);
        }
        let Some(found) = self.unit(rip, Mode::empty()) else { return Onward::Interpret(rip) };
        let complex = self.complex.clone();
        let cache = complex.open_cache();
        if cache.generation == found.generation && generation == found.generation {
            tell(self, found, &cache);
        }
        Onward::Host(found.target)
    }

    fn find(&mut self, rip: u64, extra: Mode) -> Onward {
        self.rip = rip;
        self.unit(rip, extra).map_or(Onward::Interpret(rip), |found| Onward::Host(found.target))
    }

    /// The unit at `rip`, translated now if need be; none where code cannot be fetched.
    fn unit(&mut self, rip: u64, extra: Mode) -> Option<Found> {
        let wanted = self.mode() | extra;
        let own = &mut self.jump_modes[usize::from(!wanted.contains(Mode::USER))];
        let jumps_for = wanted & Mode::NO_VECTOR;
        if std::mem::replace(own, jumps_for) != jumps_for {
            self.views.flush_jumps();
        }
        let slot = rip as usize % RECENT;
        // Before the unit is looked for: a change after this makes it look again.
        let changes = self.complex.changes.load(Ordering::SeqCst);
        let mmu_generation = self.soft.cpu.mmu.generation();
        if let Some(recent) = self.recent[slot]
            && (recent.rip, recent.wanted) == (rip, wanted)
            && (recent.changes, recent.mmu_generation) == (changes, mmu_generation)
        {
            return Some(recent.found);
        }
        let found = self.unit_slow(rip, wanted)?;
        self.recent[slot] = Some(Recent { rip, mmu_generation, changes, wanted, found });
        Some(found)
    }

    fn unit_slow(&mut self, rip: u64, wanted: Mode) -> Option<Found> {
        let user = wanted.contains(Mode::USER);
        let privilege = if user { Privilege::User } else { Privilege::Supervisor };
        let place = self.soft.cpu.page(rip, Access::Execute, privilege).ok()?;
        let at = memory_at(&place)?;
        let page = (at >> 12) as u32;
        let mut global = place.global;
        let mut second = None;
        if self.crosses(at | rip & PAGE_MASK) {
            let beyond = (rip | PAGE_MASK).wrapping_add(1);
            let place = self.soft.cpu.page(beyond, Access::Execute, privilege).ok()?;
            global &= place.global;
            second = Some((memory_at(&place)? >> 12) as u32);
        }
        let mut mode = wanted;
        mode.set(Mode::LOCAL, !user && (!global || rip >> 63 == 0));
        let key = Key { rip, page, second, mode };
        loop {
            let cache = self.complex.open_cache();
            if let Some(unit) = cache.find(&key) {
                return Some(Found {
                    mode,
                    entry: unit.entry,
                    link: unit.link,
                    crosses: second.is_some(),
                    target: cache.memory.address(unit.body),
                    generation: cache.generation,
                });
            }
            let room = cache.has_room();
            drop(cache);
            if room {
                self.translate(&key);
            } else {
                self.complex.clear_cache();
            }
        }
    }

    /// The instruction there is on two pages.
    fn crosses(&self, at: u64) -> bool {
        let left = PAGE_SIZE - (at & PAGE_MASK);
        if left >= INSN_SIZE_MAX as u64 {
            return false;
        }
        let mut bytes = [0; INSN_SIZE_MAX];
        let bytes = &mut bytes[..left as usize];
        self.complex.soft.memory.read(RamOffset(at), bytes);
        NativeDecoder::new(64, bytes).next_insn().is_err_and(|e| e == DecodeError::Truncated)
    }

    fn translate(&mut self, key: &Key) {
        let memory = &self.complex.soft.memory;
        let bits = memory.bits();
        let pages = || std::iter::once(key.page).chain(key.second);
        for page in pages() {
            bits.mark_code(page as usize, 0, PAGE_MASK);
        }
        let generations = || pages().map(|page| u64::from(bits.code_generation(page as usize)));
        let before: u64 = generations().sum();
        let (first, beyond) = self.page.split_at_mut(PAGE_SIZE as usize);
        memory.read(RamOffset(u64::from(key.page) << 12), first);
        if let Some(second) = key.second {
            memory.read(RamOffset(u64::from(second) << 12), beyond);
        }
        let bytes = if key.second.is_some() { &self.page[..] } else { &*first };
        let source = Source { rip: key.rip, bytes, mode: key.mode };
        let mut cache = self.complex.open_cache();
        self.translator.translate(key, &source, &mut cache);
        if generations().sum::<u64>() != before {
            // Written since it was read: nobody has seen the unit yet.
            self.complex.retire(&mut cache, key.page, u64::MAX);
        }
    }

    /// Fills the entry that translated code found empty, or leaves the access to the interpreter.
    fn fill(&mut self, rip: u64, linear: u64, write: bool, resume: u64) -> Onward {
        let selector = self.selector();
        self.views.note(linear, write, selector);
        match self.fill_entry(linear, write, selector) {
            Some(()) => Onward::Host(resume),
            None => Onward::Interpret(rip),
        }
    }

    fn fill_entry(&mut self, linear: u64, write: bool, selector: Selector) -> Option<()> {
        let access = if write { Access::Write } else { Access::Read };
        let privilege = self.soft.cpu.mmu.privilege();
        let found = self.soft.cpu.page(linear, access, privilege).ok()?;
        let upper = linear >> 63 != 0;
        if found.user == upper || !upper && selector == Selector::Supervisor {
            return None;
        }
        let at = memory_at(&found)?;
        let page = (at >> 12) as u32;
        let memory = &self.complex.soft.memory;
        let host = memory.host_base() as u64 + (at & !PAGE_MASK);
        if write {
            if !found.writable || !memory.bits().begin_writing(page as usize) {
                return None;
            }
            let entry = self.views.write_entry(linear);
            if !self.stores.add(page, entry) {
                self.flush_stores();
                self.stores.add(page, entry);
            }
        }
        self.views.fill(linear, write, host.wrapping_sub(linear & !PAGE_MASK), found.global);
        Some(())
    }

    /// The stack has left its window.
    fn move_window(&mut self, rip: u64) -> Onward {
        let selector = self.selector();
        let linear = self.views.context().gpr[4].wrapping_sub(8);
        if self.views.store_distance(linear, selector).is_none()
            && self.fill_entry(linear, true, selector).is_none()
        {
            return self.find(rip, Mode::NO_WINDOW);
        }
        let window = self.views.window_around(linear, selector);
        let own = usize::from(self.soft.cpu.cpl != 3);
        let before = std::mem::replace(&mut self.views.context().stack[own], window);
        // When nothing has changed, the frame does not fit what there is.
        let extra = if before == window { Mode::NO_WINDOW } else { Mode::empty() };
        self.find(rip, extra)
    }

    fn close_windows(&mut self) {
        self.views.context().stack = [StackWindow::EMPTY; 2];
    }

    fn flush_stores(&mut self) {
        self.views.flush_stores();
        self.stores.clear();
        self.close_windows();
    }

    fn flush_everything(&mut self) {
        self.views.flush();
        self.stores.clear();
        self.close_windows();
    }

    fn has_commands(&self) -> bool {
        self.complex.peers[self.soft.index()].has_commands()
    }

    /// Does what the others have left to be done.
    fn obey(&mut self) {
        if !self.has_commands() {
            return;
        }
        for command in self.complex.peers[self.soft.index()].take_commands() {
            self.close_windows();
            match command {
                Command::DropStores(page) => {
                    for entry in self.stores.take(page) {
                        self.views.drop_entry(entry);
                    }
                }
                Command::FlushStores => self.flush_stores(),
                Command::FlushCode => self.views.flush_jumps(),
            }
        }
    }

    /// Drops what the interpreter's TLB has dropped.
    fn mirror_flushes(&mut self) {
        let flushes = self.soft.cpu.mmu.take_flushes();
        for flush in flushes.as_slice() {
            self.close_windows();
            match *flush {
                Flush::Page { linear, shift } => {
                    self.views.invalidate(linear, shift);
                    if linear >> 63 != 0 {
                        self.recheck(linear >> 12, 1 << (shift - 12));
                    }
                }
                Flush::Pcid(pcid) => self.views.flush_pcid(pcid),
                Flush::Root { pcid, kept } => self.views.select(pcid, kept),
                Flush::Local => self.views.flush_local(),
                Flush::All => {
                    self.views.flush();
                    self.views.select(flushes.pcid(), false);
                    self.stores.clear();
                    self.recheck(1 << 51, 1 << 51);
                }
            }
        }
    }

    /// Retires the kernel's translated code that is no longer where it was.
    fn recheck(&mut self, first: u64, count: u64) {
        let long = self.soft.cpu.mode == CpuMode::Long64;
        let pages = self.complex.cache().kernel_pages(first, count);
        for (number, page) in pages {
            let linear = number << 12;
            let found = self.soft.cpu.page(linear, Access::Execute, Privilege::Supervisor);
            let same = found.is_ok_and(|found| {
                long && found.global
                    && memory_at(&found).is_some_and(|at| (at >> 12) as u32 == page)
            });
            if !same {
                self.complex.retire_moved(number, page);
            }
        }
    }

    /// The context has the registers from here on.
    fn give_registers(&mut self) {
        if std::mem::replace(&mut self.given, true) {
            return;
        }
        let cpu = &self.soft.cpu;
        let context = self.views.context();
        context.gpr.copy_from_slice(&cpu.gpr[..16]);
        let flags = cpu.flags.bits();
        context.flags = flags as u8;
        context.overflow = u8::from(flags & Rflags::OF.bits() != 0);
        let base = |reg: SegReg| cpu.segments[reg as usize].base;
        context.segment_base = [base(SegReg::Fs), base(SegReg::Gs)];
        context.kernel_gs_base = cpu.msrs.kernel_gs_base;
        let apart = Rflags::IF | Rflags::DF | Rflags::AC | Rflags::FIXED;
        context.system_flags = cpu.system_flags & !apart.bits();
        context.interrupts = cpu.system_flags & Rflags::IF.bits();
        context.direction = cpu.system_flags & Rflags::DF.bits();
        context.access = cpu.system_flags & Rflags::AC.bits();
        context.shadow_rip = NOWHERE;
        context.event_waiting = u32::from(cpu.env.event_waiting);
        transition::give(cpu, context);
        context.mxcsr = [cpu.fpu.mxcsr, entry::HOST_MXCSR];
        for (own, register) in context.vector.0.iter_mut().zip(&cpu.fpu.xmm) {
            *own = [*register as u64, (*register >> 64) as u64];
        }
    }

    /// The interpreter has the registers from here on; it goes on at `rip`.
    fn take_registers(&mut self, rip: u64) {
        self.soft.cpu.rip = rip;
        if !std::mem::replace(&mut self.given, false) {
            return;
        }
        self.take_x87();
        let cpu = &mut self.soft.cpu;
        let context = self.views.context();
        cpu.gpr[..16].copy_from_slice(&context.gpr);
        let overflow = if context.overflow != 0 { Rflags::OF.bits() } else { 0 };
        cpu.flags = x86_exec::Flags::from_bits(u64::from(context.flags) | overflow);
        cpu.system_flags = context.system_flags | context.interrupts | context.direction;
        cpu.system_flags |= context.access | Rflags::FIXED.bits();
        transition::take_bases(cpu, context);
        if context.shadow_rip == rip && context.interrupts != 0 {
            cpu.shadow = InterruptShadow::Sti;
        }
        cpu.fpu.mxcsr = context.mxcsr[0];
        for (own, register) in cpu.fpu.xmm.iter_mut().zip(&context.vector.0) {
            *own = u128::from(register[1]) << 64 | u128::from(register[0]);
        }
    }

    fn give_x87(&mut self) {
        let context = self.views.context();
        let image = &mut context.fxsave.0;
        self.soft.cpu.fpu.put_x87(image, true);
        image[24..28].copy_from_slice(&entry::HOST_MXCSR.to_le_bytes());
        context.x87_at_hand = 1;
        entry::load_x87(&context.fxsave);
    }

    fn take_x87(&mut self) {
        let context = self.views.context();
        if std::mem::take(&mut context.x87_at_hand) == 0 {
            return;
        }
        entry::save_x87(&mut context.fxsave);
        let fpu = &mut self.soft.cpu.fpu;
        fpu.take_x87(&context.fxsave.0, true);
        // The host's are addresses of translated code, which are nobody's business.
        (fpu.fop, fpu.fip, fpu.fdp) = (0, 0, 0);
    }
}

impl Vcpu for FullVcpu {
    fn run(&mut self, bus: &Arc<dyn Bus>) -> Result<Exit, EngineError> {
        let _stack = SignalStack::new()
            .map_err(|source| EngineError::Host { operation: "set a signal stack", source })?;
        self.complex.watch_code();
        let exit = match self.soft.enter(bus) {
            Ok(()) => self.run_loop(),
            Err(TripleFault) => Ok(Exit::TripleFault),
        };
        self.soft.leave();
        exit
    }

    fn save(&mut self) -> Result<VcpuState, EngineError> {
        Ok(self.soft.save())
    }

    fn load(&mut self, state: &VcpuState) -> Result<(), EngineError> {
        self.soft.load(state)?;
        self.mirror_flushes();
        self.flush_everything();
        Ok(())
    }

    fn set_debug(&mut self, stops: Option<&DebugStops>) -> Result<(), EngineError> {
        self.soft.set_debug(stops);
        Ok(())
    }
}
