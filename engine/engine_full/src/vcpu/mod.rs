//! One vCPU: translated code where there is any, the interpreter for everything else.

mod compat;
mod memory;
mod registers;
mod units;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use engine::{Bus, DebugStops, EngineError, Exit, Vcpu};
use engine_soft::{Next, SoftVcpu};
use guest_memory::PAGE_SIZE;
use x86_decode::INSN_SIZE_MAX;
use x86_exec::{Backing, Mode as CpuMode, PageAt, TripleFault};
use x86_state::VcpuState;
use x86_state::bits::{Cr0, Cr4, Rflags};

use crate::cache::{Cache, Key, Mode, Reason, Site, SiteKind};
use crate::check::Check;
use crate::code::Place;
use crate::complex::FullComplex;
use crate::context::JUMP_MASK;
use crate::entry;
use crate::exits::{Also, Exits};
use crate::fault::SignalStack;
use crate::stores::Stores;
use crate::transition;
use crate::translate::{Frame, Translator};
use crate::tsc::Line;
use crate::views::{Pages, Selector, Views};

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
    /// Which pages these are, and of which generation of their code.
    page_read: Option<(u32, Option<u32>, u64)>,
    /// What user, kernel and 32-bit user code among the jumps was translated for.
    jump_modes: [Mode; 3],
    /// The registers are in the context.
    given: bool,
    recent: Vec<Option<Recent>>,
    /// Grow whenever the user's or the kernel's code may no longer be where it was.
    code_moves: [u64; 2],
    /// Pages of the user's recent units.
    recent_pages: Pages,
    /// The translations of addresses whose drops have been followed.
    mirrored: u64,
    /// Where the guest is, as of the registers in the context.
    rip: u64,
    /// What the TSC is read by, and which one that is.
    tsc_line: (u32, Line),
    /// The views of address spaces may have supervisor pages in their lower halves: of a system that
    /// runs there, as firmware does. User code may not run with them.
    low_supervisor: bool,
    /// Does again what translated code does.
    check: Option<Box<Check>>,
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
    key: Key,
    mode: Mode,
    entry: Place,
    body: Place,
    link: Place,
    /// Page of guest memory it is on.
    page: u32,
    /// It is on two pages.
    crosses: bool,
    /// Host address of the body.
    target: u64,
    generation: u64,
}

impl Found {
    /// What is at this place may go there without a look at addresses. User code may where both are
    /// on one page of guest memory: where that is mapped, so is the other. That the page was found
    /// elsewhere in the meantime, because a translation changes, must not outlive the moment.
    fn may_follow(&self, place: Place, cache: &Cache) -> bool {
        !self.mode.contains(Mode::USER) || cache.is_of_page(place, self.page)
    }
}

/// A unit that was found lately.
#[derive(Debug, Clone, Copy)]
struct Recent {
    rip: u64,
    /// Of what decides where its code is: see [`FullVcpu::code_stamp`].
    stamp: u64,
    /// Of the cache's units.
    changes: u64,
    wanted: Mode,
    found: Found,
}

/// How the guest comes to a unit.
#[derive(Debug, Clone, Copy)]
enum By {
    /// A jump by address, which are wont to come again.
    Jump,
    /// A jump that is linked, of which this is known of the stack.
    Link(Option<Frame>),
    /// Anything else.
    Other,
}

/// Units found lately that are remembered, by their address.
const RECENT: usize = 1024;

/// How translated code was left.
struct Left {
    /// Of the site.
    number: u32,
    site: Site,
    scratch: u64,
    /// Where it may go on.
    resume: u64,
    /// Of the cache.
    generation: u64,
}

/// Where translated code goes on.
enum Onward {
    /// At a host place.
    Host(u64),
    /// At a guest address, after a look at everything.
    Guest(u64),
    /// The interpreter does the instruction there.
    Interpret(u64),
    /// The instruction there has raised the exception the CPU has noted.
    Raise(u64),
}

impl FullVcpu {
    pub(crate) fn new(
        soft: SoftVcpu,
        complex: Arc<FullComplex>,
        views: Views,
        check: Option<Check>,
    ) -> Self {
        let stores = Stores::new(complex.soft.memory.bits().pages());
        let mut vcpu = Self {
            soft,
            complex,
            views,
            stores,
            translator: Translator::default(),
            page: Box::new([0; PAGE_SIZE as usize + INSN_SIZE_MAX]),
            page_read: None,
            jump_modes: [Mode::empty(); 3],
            given: false,
            recent: vec![None; RECENT],
            code_moves: [0; 2],
            recent_pages: Pages::default(),
            mirrored: u64::MAX,
            rip: 0,
            tsc_line: (0, Line::default()),
            low_supervisor: false,
            check: check.map(Box::new),
        };
        if let Some(tsc) = &vcpu.complex.tsc {
            vcpu.soft.cpu.env.time.set_tsc_source(tsc.clone());
        }
        vcpu.soft.cpu.mmu.watch_flushes(true);
        vcpu.flush_everything();
        vcpu
    }

    fn run_loop(&mut self) -> Result<Exit, EngineError> {
        loop {
            let next = self.soft.prepare();
            self.tell_tables();
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
                    if self.complex.tsc.as_ref().is_some_and(|tsc| tsc.refresh()) {
                        self.complex.kick_all();
                    }
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

    /// Tells how much memory this vCPU's tables take.
    fn tell_tables(&self) {
        let [own, shared] = self.views.bytes();
        let tables = &self.complex.peers[self.soft.index()].tables;
        tables[0].store((own + self.stores.bytes()) as u64, Ordering::Relaxed);
        tables[1].store(shared as u64, Ordering::Relaxed);
    }

    /// Has the timers' thread wake this vCPU when its APIC's is due.
    fn set_timer(&self) {
        let due = self.soft.slot().lapic().next_deadline_ns();
        self.complex.timers.set(self.soft.index(), due);
    }

    /// Nothing in force needs a look at each instruction, or is the interpreter's.
    fn can_translate(&self) -> bool {
        let cpu = &self.soft.cpu;
        (cpu.mode == CpuMode::Long64 && matches!(cpu.cpl, 0 | 3) || compat::is_flat(cpu))
            && cpu.is_plain()
            && cpu.activity == x86_state::Activity::Running
            && !self.soft.is_debugged()
    }

    /// How many instructions to interpret before another look whether code can be translated: one,
    /// where what stands in the way ends with the next (interrupt shadow, RFLAGS.RF).
    fn interpreted_at_once(&self) -> u64 {
        let cpu = &self.soft.cpu;
        let debugged = cpu.system_flag(Rflags::TF) || cpu.debug.dr7 & 0xff != 0;
        let code = cpu.mode == CpuMode::Long64 || compat::is_flat(cpu);
        if code && !debugged { 1 } else { SLICE }
    }

    /// What code is translated for now.
    fn mode(&self) -> Mode {
        let cpu = &self.soft.cpu;
        let off = cpu.cr0 & (Cr0::EM | Cr0::TS).bits() != 0 || cpu.cr4 & Cr4::OSFXSR.bits() == 0;
        let mut mode = Mode::empty();
        mode.set(Mode::USER, cpu.cpl == 3);
        mode.set(Mode::NO_VECTOR, off);
        mode | compat::mode(cpu)
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
                    self.exits().interpreted(self.soft.cpu.last_stepped());
                    if std::mem::take(&mut self.soft.cpu.env.apic_used) {
                        self.set_timer();
                    }
                    self.mirror_flushes();
                    if self.wants_more() {
                        return Ok(None);
                    }
                    Onward::Guest(self.soft.cpu.rip)
                }
                Onward::Raise(rip) => {
                    self.exits().also(Also::PageFault);
                    self.take_registers(rip);
                    if self.soft.cpu.deliver_fault().is_err() {
                        return Ok(Some(Exit::TripleFault));
                    }
                    self.mirror_flushes();
                    if self.wants_more() {
                        return Ok(None);
                    }
                    Onward::Guest(self.soft.cpu.rip)
                }
                Onward::Guest(rip) => {
                    // In this order: what comes later rings again.
                    self.views.context().jump_mask.store(JUMP_MASK, Ordering::SeqCst);
                    if self.soft.slot().mail.any() {
                        self.take_registers(rip);
                        return Ok(None);
                    }
                    self.obey();
                    self.take_tsc_line();
                    self.find(rip, Mode::empty())
                }
                Onward::Host(target) => {
                    self.give_registers();
                    self.go(target)
                }
            };
        }
    }

    fn exits(&self) -> &Exits {
        &self.complex.peers[self.soft.index()].exits
    }

    /// After an interpreted instruction: the engine's loop is to look at everything.
    fn wants_more(&self) -> bool {
        !self.can_translate()
            || self.soft.slot().mail.any()
            || self.soft.cpu.env.event_waiting && self.soft.cpu.system_flag(Rflags::IF)
    }

    /// Runs translated code at a place, and finds out why it came back.
    fn go(&mut self, target: u64) -> Onward {
        if self.soft.cpu.cpl == 3 && std::mem::take(&mut self.low_supervisor) {
            self.views.flush_local();
        }
        let peer = &self.complex.peers[self.soft.index()];
        let [gs, fs] = self.views.bases(self.selector());
        let space = self.views.bases(Selector::Space);
        let barred = self.soft.cpu.cr4 & Cr4::SMAP.bits() != 0;
        let supervisor = self.views.bases(Selector::Supervisor);
        let kernel = if barred { supervisor } else { space };
        // User code that is entered without a return to here finds nothing in the lower half, and
        // comes here for it.
        let user = if self.low_supervisor { supervisor } else { space };
        let context = self.views.context();
        context.target = target;
        context.view_fs = fs;
        context.space_bases = user;
        context.kernel_bases = kernel;
        if !peer.begin() {
            return Onward::Guest(self.rip);
        }
        entry::run(gs);
        let context = self.views.context();
        let (fault, number) = (std::mem::take(&mut context.fault), context.site);
        let (mut scratch, code_page) = (context.scratch, context.code_page);
        transition::take(&mut self.soft.cpu, context);
        let cache = self.complex.cache();
        let found = if fault != 0 {
            cache.memory.place(fault).and_then(|place| cache.instruction_at(place))
        } else {
            cache.site(number)
        };
        let Some(mut site) = found else {
            panic!("translated code left at no site: {number}, fault at {fault:#x}")
        };
        if site.kind.contains(SiteKind::NEAR) {
            site.rip = site.rip.wrapping_add(code_page);
        }
        if self.soft.cpu.mode == CpuMode::Compat32 {
            // Marked, as jumps to such code are.
            site.rip &= 0xffff_ffff;
            scratch &= if site.reason == Reason::Jump { 0xffff_ffff } else { u64::MAX };
        }
        let resume = cache.memory.address(site.host);
        let generation = cache.generation;
        drop(cache);
        peer.end();
        peer.exits.count(site.reason);
        if fault != 0 {
            peer.exits.also(Also::HostFault);
        }
        self.rip = if site.reason == Reason::Jump { scratch } else { site.rip };
        let left = Left { number, site, scratch, resume, generation };
        self.resolve(left)
    }

    fn resolve(&mut self, left: Left) -> Onward {
        let Left { number, site, scratch, resume, generation } = left;
        if self.ends_stretch(site.reason) {
            self.take_registers(self.rip);
            return Onward::Guest(self.rip);
        }
        match site.reason {
            Reason::Interpret => Onward::Interpret(site.rip),
            Reason::Go => Onward::Guest(site.rip),
            Reason::Load => self.fill(&site, scratch, false, resume),
            Reason::Store => self.fill(&site, scratch, true, resume),
            Reason::Window => {
                self.move_window(scratch);
                Onward::Host(resume)
            }
            Reason::Careful => self.find_careful(&site, generation),
            Reason::X87 => {
                self.give_x87();
                Onward::Host(resume)
            }
            Reason::Jump => self.find_for(scratch, By::Jump, generation, |vcpu, found, cache| {
                vcpu.keep_jump(scratch, found, cache);
            }),
            Reason::Link => {
                self.find_for(site.rip, By::Link(site.frame), generation, |_, found, cache| {
                    if found.may_follow(site.host, cache) {
                        cache.link_to(number, &site, &found.key);
                    }
                })
            }
            Reason::Retired => {
                self.find_for(site.rip, By::Other, generation, |vcpu, found, cache| {
                    // What is linked to by a jump by address would come back here by the old jump.
                    if found.link == found.body && found.may_follow(site.host, cache) {
                        cache.replace(site.host, found.body);
                    }
                    vcpu.keep_jump(site.rip, found, cache);
                })
            }
        }
    }
}

impl Vcpu for FullVcpu {
    fn run(&mut self, bus: &Arc<dyn Bus>) -> Result<Exit, EngineError> {
        let _stack = SignalStack::new()
            .map_err(|source| EngineError::Host { operation: "set a signal stack", source })?;
        self.complex.watch_code();
        if let Some(tsc) = &self.complex.tsc {
            tsc.begin();
        }
        let exit = match self.soft.enter(bus) {
            Ok(()) => self.run_loop(),
            Err(TripleFault) => Ok(Exit::TripleFault),
        };
        self.soft.leave();
        if let Some(tsc) = &self.complex.tsc {
            tsc.end();
        }
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
