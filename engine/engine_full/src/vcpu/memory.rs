//! What translated code knows of memory: filled when it asks, dropped when it is told to.

use x86_exec::{Access, Mode as CpuMode, PageAt, Privilege};
use x86_mmu::Flush;

use super::{FullVcpu, Onward, PAGE_MASK, memory_at};
use crate::complex::Command;
use crate::context::{KNOWN_WINDOWS, KnownWindow, StackWindow};
use crate::views::Selector;

impl FullVcpu {
    /// Fills the entry that translated code found empty, or leaves the access to the interpreter.
    pub(super) fn fill(&mut self, rip: u64, linear: u64, write: bool, resume: u64) -> Onward {
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
        self.fill_with(&found, linear, write, selector)
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
        if found.user == upper || !upper && selector == Selector::Supervisor {
            return None;
        }
        let at = memory_at(found)?;
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
        self.views.window_around(linear, selector)
    }

    pub(super) fn close_windows(&mut self) {
        let context = self.views.context();
        context.stack = [StackWindow::EMPTY; 2];
        context.known_windows = [[KnownWindow::NONE; KNOWN_WINDOWS]; 2];
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
    pub(super) fn recheck(&mut self, first: u64, count: u64) {
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
}
