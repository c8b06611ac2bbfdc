//! What each segment allows without further look, derived from segments, mode and debug state.

use x86_mmu::{Paging, Privilege};
use x86_state::bits::{Cr0, Rflags};
use x86_state::{CpuFeatures, SegReg, Segment};

use crate::{Cpu, Env, Mode};

/// A segment as the hit path sees it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SegmentWindow {
    /// Added to the offset.
    pub base: u64,
    /// Accesses whose last byte's offset is below need no check to be read; 0: all need one.
    pub read_end: u64,
    /// The same for writes.
    pub write_end: u64,
}

/// DR7 bits that enable breakpoint `index`, locally or globally.
pub(crate) const fn dr7_enabled(dr7: u64, index: u32) -> bool {
    dr7 >> (index * 2) & 3 != 0
}

/// DR7's condition of breakpoint `index`: 0 execute, 1 write, 2 I/O, 3 read or write.
pub(crate) const fn dr7_condition(dr7: u64, index: u32) -> u64 {
    dr7 >> (16 + index * 4) & 3
}

/// Bytes breakpoint `index` covers.
pub(crate) const fn dr7_length(dr7: u64, index: u32) -> u64 {
    match dr7 >> (18 + index * 4) & 3 {
        0 => 1,
        1 => 2,
        2 => 8,
        _ => 4,
    }
}

impl<E: Env> Cpu<E> {
    /// Derives what the hit paths use anew. Part of [`Cpu::update_mode`]; to be called alone when
    /// only a data segment, RFLAGS.AC, CR0.AM or DR7 changed.
    pub fn update_access(&mut self) {
        let user = self.cpl == 3;
        let ac = self.system_flag(Rflags::AC);
        self.mmu.set_privilege(match (user, ac) {
            (true, _) => Privilege::User,
            (false, true) => Privilege::SupervisorAc,
            (false, false) => Privilege::Supervisor,
        });
        self.data_breakpoints = (0..4).fold(0, |mask, i| {
            let dr7 = self.debug.dr7;
            let on = dr7_enabled(dr7, i) && matches!(dr7_condition(dr7, i), 1 | 3);
            mask | u8::from(on) << i
        });
        self.alignment_checked = user && ac && self.cr0 & Cr0::AM.bits() != 0;
        for index in 0..6 {
            self.windows[index] = self.window(index);
        }
    }

    fn window(&self, index: usize) -> SegmentWindow {
        let segment = &self.segments[index];
        let checked = self.alignment_checked || self.data_breakpoints != 0;
        let (read_end, write_end) = match self.mode {
            _ if checked => (0, 0),
            Mode::Long64 => (u64::MAX, u64::MAX),
            Mode::Real | Mode::Virtual8086 => {
                let end = u64::from(segment.limit) + 1;
                (end, end)
            }
            _ => protected_ends(segment),
        };
        SegmentWindow { base: self.segment_base(index), read_end, write_end }
    }

    /// What is added to an offset in this segment.
    pub(crate) fn segment_base(&self, index: usize) -> u64 {
        let has_base = !self.mode.is_64() || index >= SegReg::Fs as usize;
        if has_base { self.segments[index].base } else { 0 }
    }

    /// The control registers changed: what the walker needs of them is derived anew, and
    /// translations are dropped when they may have become others. PDPTEs are kept.
    pub fn update_paging(&mut self) {
        self.mmu.set_paging(self.paging());
    }

    /// Memory or all registers are others: PDPTEs are read again, and no translation is kept. A
    /// guest whose PDPTEs are wrong by now keeps none of them.
    pub(crate) fn reload_translation(&mut self) {
        let mut paging = self.walker_for(self.cr0, self.cr3, self.cr4, self.efer);
        if paging.format == x86_mmu::Format::Pae {
            let found = paging.load_pdptes(&mut super::Tables(&mut self.env));
            paging.pdptes = found.unwrap_or_default();
        }
        self.mmu.set_paging(paging);
        self.mmu.flush();
    }

    /// What the control registers say now.
    pub(crate) fn paging(&self) -> Paging {
        Paging {
            pdptes: self.mmu.paging().pdptes,
            ..self.walker_for(self.cr0, self.cr3, self.cr4, self.efer)
        }
    }

    /// What these registers say on this CPU, but for PDPTEs.
    pub(crate) fn walker_for(&self, cr0: u64, cr3: u64, cr4: u64, efer: u64) -> Paging {
        Paging {
            pages_2m_max: !self.env.features().contains(CpuFeatures::PDPE1GB),
            ..Paging::new(cr0, cr3, cr4, efer, self.env.physical_bits())
        }
    }

    /// Notes data breakpoints that this access meets (SDM vol. 3B, 18.2.5): a trap after the
    /// instruction.
    pub(super) fn note_data_breakpoints(&mut self, linear: u64, size: u64, write: bool) {
        for index in (0..4).filter(|i| self.data_breakpoints & 1 << i != 0) {
            let dr7 = self.debug.dr7;
            let length = dr7_length(dr7, index);
            let start = self.debug.address[index as usize] & !(length - 1);
            let overlaps =
                linear <= start.wrapping_add(length - 1) && start <= linear.wrapping_add(size - 1);
            if overlaps && (write || dr7_condition(dr7, index) == 3) {
                self.debug_hits |= 1 << index;
            }
        }
    }
}

/// Protected mode, outside of 64-bit code. Expand-down segments are always looked at.
fn protected_ends(segment: &Segment) -> (u64, u64) {
    let end = u64::from(segment.limit) + 1;
    if segment.has(Segment::UNUSABLE) {
        return (0, 0);
    }
    if segment.has(Segment::CODE) {
        return (if segment.has(Segment::WRITABLE_READABLE) { end } else { 0 }, 0);
    }
    if segment.has(Segment::DOWN_CONFORMING) {
        return (0, 0);
    }
    (end, if segment.has(Segment::WRITABLE_READABLE) { end } else { 0 })
}
