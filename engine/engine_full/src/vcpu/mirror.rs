//! When an address space gets a mirror, and which pages that has.
//!
//! To map a page costs as much as a few hundred looks at the flat map. So an address space gets a mirror once it
//! has been busy for a while, of what it has used by then; and of what has no mark then, every so many
//! looks the page at hand: it is one that is looked at often.

use x86_exec::{Access, Mode as CpuMode};

use super::{FullVcpu, PAGE_MASK};
use crate::views::Selector;

/// Looks at the flat map until a page is mapped, which costs about as much.
const LOOKS: u64 = 256;
/// The same, where the last page could not be.
const LOOKS_WHEN_FULL: u64 = 1 << 16;
const PAGE_SIZE: u64 = PAGE_MASK + 1;

impl FullVcpu {
    /// 64-bit user code is what runs.
    pub(super) fn is_in_program(&self) -> bool {
        self.soft.cpu.cpl == 3 && self.soft.cpu.mode == CpuMode::Long64
    }

    /// The program that runs may find memory by a mirror from now on. The interpreter has the
    /// registers.
    pub(super) fn consider_mirror(&mut self) {
        if !self.views.wants_mirror(self.complex.mirror_after) {
            return;
        }
        if self.views.make_mirror(&self.complex.soft.memory).is_err() {
            self.views.drop_mirror();
        }
        self.views.context().looks_left = LOOKS;
    }

    /// Code of other kinds has no mirror. The interpreter has the registers, or will have.
    pub(super) fn leave_mirror(&mut self) {
        if self.soft.cpu.cpl == 3
            && self.soft.cpu.mode != CpuMode::Long64
            && self.views.has_mirror()
        {
            self.views.drop_mirror();
        }
    }

    /// The page at this address has been looked for in the flat map: if it was found, has the mirror
    /// have it when it is time.
    pub(super) fn see_to_mirror(&mut self, linear: u64, selector: Selector, found: bool) {
        let is_time = self.views.context().looks_left == 0;
        if is_time {
            self.views.context().looks_left = LOOKS;
        }
        if linear >> 47 != 0 || !found || !self.views.has_mirror() {
            return;
        }
        for beside in [linear.wrapping_sub(PAGE_SIZE), linear + PAGE_SIZE] {
            self.find_again(beside & !PAGE_MASK, selector);
        }
        if is_time && !self.views.mirror_page(linear, &self.complex.soft.memory) {
            self.views.context().looks_left = LOOKS_WHEN_FULL;
        }
    }

    /// A page that the mirror has, and whose entry was dropped, gets it back.
    fn find_again(&mut self, linear: u64, selector: Selector) {
        if linear >> 47 != 0 || !self.views.was_mirrored(linear) {
            return;
        }
        let privilege = self.soft.cpu.mmu.privilege();
        if let Ok(found) = self.soft.cpu.page(linear, Access::Read, privilege) {
            self.fill_with(&found, linear, false, selector);
        }
    }

    /// Translated code has faulted at this host address: if that was in the mirror, the page is one that
    /// the mirror does not have, beside one it has.
    pub(super) fn mend_mirror(&mut self, address: u64) {
        let Some(linear) = self.views.page_beside(address) else { return };
        let selector = self.selector();
        let privilege = self.soft.cpu.mmu.privilege();
        // What the guest has not mapped is its own business.
        let Ok(found) = self.soft.cpu.page(linear, Access::Read, privilege) else { return };
        self.fill_with(&found, linear, false, selector);
        let again = std::mem::replace(&mut self.mended, linear) == linear;
        if !self.views.mirror_page(linear, &self.complex.soft.memory) || again {
            self.views.block_mirror(linear);
        }
    }
}
