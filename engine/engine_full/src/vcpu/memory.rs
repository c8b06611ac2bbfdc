//! What translated code knows of memory: filled when it asks, dropped when it is told to.

use guest_memory::RamOffset;
use x86_exec::{Access, Fault, Mode as CpuMode, PageAt, Privilege};
use x86_mmu::Flush;
use x86_state::Exception;
use x86_state::bits::Cr4;

use super::{FullVcpu, Onward, PAGE_MASK, memory_at};
use crate::cache::{Site, SiteKind};
use crate::complex::Command;
use crate::context::{KNOWN_WINDOWS, KnownWindow, LOOKS, NO_DISTANCE, StackWindow};
use crate::exits::Also;
use crate::views::Selector;

impl FullVcpu {
    /// Fills the entry that translated code found empty, or leaves the access to the interpreter.
    pub(super) fn fill(&mut self, site: &Site, linear: u64, write: bool, resume: u64) -> Onward {
        let selector = self.selector();
        self.views.note(linear, write, selector);
        match self.fill_entry(linear, write, selector) {
            Ok(true) => Onward::Host(resume),
            // Waiting instructions of the x87 may have something more urgent.
            Err(_)
                if site.kind.contains(SiteKind::RAISES)
                    && self.is_page_fault()
                    && self.views.context().x87_at_hand == 0 =>
            {
                Onward::Raise(site.rip)
            }
            Ok(false) | Err(_) => {
                self.exits().also(Also::Refused);
                Onward::Interpret(site.rip)
            }
        }
    }

    /// What the last access of a page was refused with.
    fn is_page_fault(&self) -> bool {
        self.soft.cpu.fault.exception == Exception::Pf
    }

    /// False where the access is the interpreter's.
    ///
    /// # Errors
    /// What the access raises.
    fn fill_entry(&mut self, linear: u64, write: bool, selector: Selector) -> Result<bool, Fault> {
        let access = if write { Access::Write } else { Access::Read };
        let privilege = self.soft.cpu.mmu.privilege();
        let found = self.soft.cpu.page(linear, access, privilege)?;
        Ok(self.fill_with(&found, linear, write, selector).is_some())
    }

    /// Fills the entry for stores to a page that is dirty already, and so need not be stored to now.
    fn fill_written(&mut self, linear: u64, selector: Selector) -> Option<()> {
        let privilege = self.soft.cpu.mmu.privilege();
        let found = self.soft.cpu.page(linear, Access::Read, privilege).ok()?;
        self.fill_with(&found, linear, true, selector)
    }

    fn fill_with(
        &mut self,
        found: &PageAt,
        linear: u64,
        write: bool,
        selector: Selector,
    ) -> Option<()> {
        let upper = linear >> 63 != 0;
        if upper && found.user || !upper && selector == Selector::Supervisor {
            return None;
        }
        let low_supervisor = !upper && !found.user;
        // With SMAP a kernel has no business there; what it does there all the same is rare.
        if low_supervisor && self.soft.cpu.cr4 & Cr4::SMAP.bits() != 0 {
            return None;
        }
        let at = memory_at(found)?;
        self.low_supervisor |= low_supervisor;
        let page = (at >> 12) as u32;
        let memory = &self.complex.soft.memory;
        let host = memory.host_base() as u64 + (at & !PAGE_MASK);
        let bits = memory.bits();
        if write && !(found.writable && bits.begin_writing(page as usize)) {
            return None;
        }
        let distance = host.wrapping_sub(linear & !PAGE_MASK);
        self.views.fill(linear, false, distance, found.global);
        // What may be written is as a rule, soon. What is clean, or holds code, is asked for first.
        let at_hand =
            || found.writable && !bits.watched(RamOffset(at)) && bits.begin_writing(page as usize);
        if write || at_hand() {
            let entry = self.views.write_entry(linear);
            if !self.stores.add(page, entry) {
                self.flush_stores();
                self.stores.add(page, entry);
            }
            self.views.fill(linear, true, distance, found.global);
        }
        Some(())
    }

    /// The last byte of the frame, at `linear`, is not in the stack window: makes it one that is, if
    /// there is one.
    pub(super) fn move_window(&mut self, linear: u64) {
        let known = self.find_window(linear);
        let own = usize::from(self.soft.cpu.cpl != 3);
        let context = self.views.context();
        let window = known.as_ref().map_or(StackWindow::EMPTY, StackWindow::new);
        context.stack[own] = window;
        // The unit compares it once more.
        context.scratch = linear.wrapping_sub(window.end);
        if let Some(known) = known {
            context.known_windows[own][known.page as usize % KNOWN_WINDOWS] = known;
        }
    }

    fn find_window(&mut self, linear: u64) -> Option<KnownWindow> {
        // Each has its own half: else what was found for one would be open to the other, or
        // without a look at SMAP.
        let half = if self.soft.cpu.cpl == 3 { 0 } else { -1 };
        if linear as i64 >> 47 != half {
            return None;
        }
        let selector = self.selector();
        let below = self.views.context().gpr[4].wrapping_sub(8);
        for at in [linear, below] {
            if at as i64 >> 47 == half && self.views.store_distance(at, selector).is_none() {
                self.fill_written(at, selector);
            }
        }
        self.views.window_around(linear, selector).and_then(|found| self.cut_window(found))
    }

    pub(super) fn close_windows(&mut self) {
        let context = self.views.context();
        context.stack = [StackWindow::EMPTY; 2];
        context.known_windows = [[KnownWindow::NONE; KNOWN_WINDOWS]; 2];
        // Whoever goes on in a unit that has found something finds it no more.
        context.looks = [NO_DISTANCE; LOOKS];
    }

    pub(super) fn flush_stores(&mut self) {
        self.views.flush_stores();
        self.stores.clear();
        self.close_windows();
    }

    pub(super) fn flush_everything(&mut self) {
        self.views.flush();
        self.stores.clear();
        self.close_windows();
    }

    pub(super) fn has_commands(&self) -> bool {
        self.complex.peers[self.soft.index()].has_commands()
    }

    /// Does what the others have left to be done.
    pub(super) fn obey(&mut self) {
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
    pub(super) fn mirror_flushes(&mut self) {
        let generation = self.soft.cpu.mmu.generation();
        if std::mem::replace(&mut self.mirrored, generation) == generation {
            return;
        }
        let flushes = self.soft.cpu.mmu.take_flushes();
        for flush in flushes.as_slice() {
            match *flush {
                Flush::Page { linear, shift } => self.invalidate(linear, shift),
                Flush::Pcid(pcid) => {
                    let upper = self.views.flush_pcid(pcid);
                    self.other_space(upper);
                }
                Flush::Root { pcid, kept } => {
                    let upper = self.views.select(pcid, kept);
                    self.other_space(upper);
                }
                Flush::Local => {
                    self.views.flush_local();
                    self.other_space(true);
                }
                Flush::All => {
                    self.views.flush();
                    self.views.select(flushes.pcid(), false);
                    self.stores.clear();
                    self.other_space(true);
                    self.code_moves[1] += 1;
                    self.recheck(1 << 51, 1 << 51);
                }
            }
        }
    }

    /// What is in the lower half is another's; and what in the upper half is not global, if there
    /// was any.
    fn other_space(&mut self, upper: bool) {
        self.user_code_moves(0, u64::MAX);
        if upper {
            self.close_windows();
        } else {
            let context = self.views.context();
            context.stack[0] = StackWindow::EMPTY;
            context.known_windows[0] = [KnownWindow::NONE; KNOWN_WINDOWS];
        }
    }

    fn invalidate(&mut self, linear: u64, shift: u8) {
        let (first, count) = (linear >> 12, 1 << (shift - 12));
        self.views.invalidate(linear, shift);
        self.close_windows_in(linear, 1 << shift);
        if linear >> 63 == 0 {
            self.user_code_moves(first, count);
        } else if self.recheck(first, count) {
            self.views.forget_kernel_jumps(first, count);
            self.code_moves[1] += 1;
        }
    }

    /// Closes windows that have addresses of these.
    fn close_windows_in(&mut self, start: u64, size: u64) {
        let own = if start >> 63 == 0 { 0 } else { 1 };
        let context = self.views.context();
        let hit = |end: u64, length: u64| {
            start.wrapping_sub(end.wrapping_sub(length)) < length
                || end.wrapping_sub(length).wrapping_sub(start) < size
        };
        if hit(context.stack[own].end, context.stack[own].size()) {
            context.stack[own] = StackWindow::EMPTY;
        }
        for known in &mut context.known_windows[own] {
            if hit(known.end, known.size()) {
                *known = KnownWindow::NONE;
            }
        }
    }

    /// Retires the kernel's translated code that is no longer where it was. True if there was any in
    /// these pages.
    pub(super) fn recheck(&mut self, first: u64, count: u64) -> bool {
        let long = self.soft.cpu.mode == CpuMode::Long64;
        let pages = self.complex.cache().kernel_pages(first, count);
        let any = !pages.is_empty();
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
        any
    }
}
