//! What translated code knows of memory: filled when it asks, dropped when it is told to.

use x86_exec::{Access, Mode as CpuMode, Privilege};
use x86_mmu::Flush;

use super::{FullVcpu, Onward, PAGE_MASK, memory_at};
use crate::cache::Mode;
use crate::complex::Command;
use crate::context::StackWindow;
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

    pub(super) fn fill_entry(
        &mut self,
        linear: u64,
        write: bool,
        selector: Selector,
    ) -> Option<()> {
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
    pub(super) fn move_window(&mut self, rip: u64) -> Onward {
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

    pub(super) fn close_windows(&mut self) {
        self.views.context().stack = [StackWindow::EMPTY; 2];
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
