//! Hardware task switches (SDM vol. 3A, chapter 8).

use x86_mmu::{Access, Privilege};
use x86_state::bits::{Cr0, Dr6, Rflags};
use x86_state::{Exception, SegReg, Segment};

use super::descriptor::{Descriptor, Selector, kind};
use super::segments::v86_segment;
use crate::{Cpu, Env, Fault};

/// How a task switch links the two tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    /// JMP.
    Jump,
    /// CALL, exceptions and interrupts: the new task can return.
    Nest,
    /// IRET with NT.
    Return,
}

/// Where the registers are in a TSS of one width.
struct Layout {
    size: usize,
    /// Width of registers and slots.
    word: usize,
    ip: usize,
    flags: usize,
    gpr: usize,
    segments: usize,
    segment_count: usize,
    ldt: usize,
}

const LAYOUT16: Layout = Layout {
    size: 0x2c,
    word: 2,
    ip: 0x0e,
    flags: 0x10,
    gpr: 0x12,
    segments: 0x22,
    segment_count: 4,
    ldt: 0x2a,
};
const LAYOUT32: Layout = Layout {
    size: 0x68,
    word: 4,
    ip: 0x20,
    flags: 0x24,
    gpr: 0x28,
    segments: 0x48,
    segment_count: 6,
    ldt: 0x60,
};
const CR3_AT: usize = 0x1c;
/// The T flag of a 32-bit TSS: raise #DB when switched to.
const TRAP_AT: usize = 0x64;
/// Local breakpoints of DR7, which a task switch turns off.
const DR7_LOCAL: u64 = 0x155;
/// Bits of RFLAGS a TSS can set.
const TSS_FLAGS: u64 = 0x27_7fd5;

const fn layout(is_32: bool) -> &'static Layout {
    if is_32 { &LAYOUT32 } else { &LAYOUT16 }
}

impl Layout {
    fn get(&self, image: &[u8; 0x68], at: usize) -> u32 {
        let low = u32::from(image[at]) | u32::from(image[at + 1]) << 8;
        if self.word == 2 {
            return low;
        }
        low | u32::from(image[at + 2]) << 16 | u32::from(image[at + 3]) << 24
    }
}

impl<E: Env> Cpu<E> {
    /// Switches to the task of this TSS. A fault in what the new task's registers name arises in
    /// the new task, and is delivered there.
    pub(super) fn switch_task(&mut self, selector: Selector, link: Link) -> Result<(), Fault> {
        let (descriptor, segment) = self.task_segment(selector, link)?;
        let new = layout(segment.kind() & 8 != 0);
        // Faults come before anything is saved.
        self.read_task(segment.base, new)?;
        self.probe_linear(segment.base, 2, Access::Write, Privilege::Supervisor)?;
        self.save_task(link)?;
        // A task that switches to itself, or to one that overlaps it, finds what was saved.
        let image = self.read_task(segment.base, new)?;
        if link != Link::Nest {
            self.set_busy(self.tr.selector, false)?;
        }
        if link == Link::Nest {
            let old = self.tr.selector;
            self.write_linear(segment.base, old, Privilege::Supervisor)?;
        }
        if link != Link::Return {
            self.change_linear32(descriptor.at.wrapping_add(4), 0, 1 << 9)?;
        }
        self.tr = Segment { attr: segment.attr | 2, ..segment };
        match self.load_task(new, &image, link) {
            Ok(()) => Ok(()),
            // The instruction is complete; what follows happens in the new task. A shutdown shows
            // itself again when the caller delivers the fault this returns.
            Err(fault) => self.deliver_fault().map_err(|_| fault),
        }
    }

    fn read_task(&mut self, base: u64, layout: &Layout) -> Result<[u8; 0x68], Fault> {
        let mut image = [0; 0x68];
        for (i, byte) in image[..layout.size].iter_mut().enumerate() {
            let at = base.wrapping_add(i as u64);
            *byte = self.read_linear(at, Privilege::Supervisor)?;
        }
        Ok(image)
    }

    fn task_segment(
        &mut self,
        selector: Selector,
        link: Link,
    ) -> Result<(Descriptor, Segment), Fault> {
        let wrong = if link == Link::Return { Exception::Ts } else { Exception::Gp };
        if selector.is_null() || selector.0 & 4 != 0 {
            return Err(self.selector_fault(wrong, selector));
        }
        let descriptor = self.descriptor(selector, wrong)?;
        let fits = match descriptor.kind() {
            kind::TSS16 | kind::TSS32 => link != Link::Return,
            kind::TSS16_BUSY | kind::TSS32_BUSY => link == Link::Return,
            _ => false,
        };
        if descriptor.is_segment() || !fits {
            return Err(self.selector_fault(wrong, selector));
        }
        if !descriptor.is_present() {
            return Err(self.selector_fault(Exception::Np, selector));
        }
        let segment = descriptor.segment(selector);
        let size = layout(segment.kind() & 8 != 0).size;
        if (segment.limit as usize) < size - 1 {
            return Err(self.selector_fault(Exception::Ts, selector));
        }
        Ok((descriptor, segment))
    }

    /// Marks a TSS descriptor busy or available.
    fn set_busy(&mut self, selector: u16, busy: bool) -> Result<(), Fault> {
        let descriptor = self.descriptor(Selector(selector), Exception::Ts)?;
        let bit = 1 << 9;
        let (clear, set) = if busy { (0, bit) } else { (bit, 0) };
        self.change_linear32(descriptor.at.wrapping_add(4), clear, set)
    }

    /// Saves the registers in the current TSS.
    fn save_task(&mut self, link: Link) -> Result<(), Fault> {
        let layout = layout(self.tr.kind() & 8 != 0);
        let (base, last) = (self.tr.base, layout.ldt - 1);
        let start = base.wrapping_add(layout.ip as u64);
        self.probe_linear(start, last - layout.ip + 1, Access::Write, Privilege::Supervisor)?;
        let mut flags = self.rflags();
        if link == Link::Return {
            flags &= !Rflags::NT.bits();
        }
        let rip = self.rip;
        self.write_task_word(layout, layout.ip, rip as u32)?;
        self.write_task_word(layout, layout.flags, flags as u32)?;
        for i in 0..8 {
            let value = self.gpr[i] as u32;
            self.write_task_word(layout, layout.gpr + i * layout.word, value)?;
        }
        for i in 0..layout.segment_count {
            let at = base.wrapping_add((layout.segments + i * layout.word) as u64);
            self.write_linear(at, self.segments[i].selector, Privilege::Supervisor)?;
        }
        Ok(())
    }

    fn write_task_word(&mut self, layout: &Layout, at: usize, value: u32) -> Result<(), Fault> {
        let at = self.tr.base.wrapping_add(at as u64);
        if layout.word == 2 {
            self.write_linear(at, value as u16, Privilege::Supervisor)
        } else {
            self.write_linear(at, value, Privilege::Supervisor)
        }
    }

    /// Loads the registers of the new task.
    fn load_task(&mut self, layout: &Layout, image: &[u8; 0x68], link: Link) -> Result<(), Fault> {
        self.cr0 |= Cr0::TS.bits();
        self.debug.dr7 &= !DR7_LOCAL;
        let mut flags = u64::from(layout.get(image, layout.flags)) & TSS_FLAGS;
        if link == Link::Nest {
            flags |= Rflags::NT.bits();
        }
        self.rip = layout.get(image, layout.ip).into();
        for i in 0..8 {
            self.gpr[i] = layout.get(image, layout.gpr + i * layout.word).into();
        }
        let selector = |i: usize| layout.get(image, layout.segments + i * layout.word) as u16;
        for i in 0..6 {
            let selector = if i < layout.segment_count { selector(i) } else { 0 };
            self.segments[i] = Segment::unusable(selector, 0);
        }
        let ldt = Selector(layout.get(image, layout.ldt) as u16);
        self.ldtr = Segment::unusable(ldt.0, 0);
        self.set_rflags(flags);
        self.update_mode();
        if layout.word == 4 && self.cr0 & Cr0::PG.bits() != 0 {
            self.load_cr3(layout.get(image, CR3_AT).into(), false)?;
        }
        self.load_task_ldt(ldt)?;
        self.load_task_segments()?;
        if self.rip > u64::from(self.segment(SegReg::Cs).limit) {
            return Err(self.gp0());
        }
        // A fault of the switch comes instead of the trap.
        if layout.word == 4 && image[TRAP_AT] & 1 != 0 {
            self.debug_hits |= Dr6::BT.bits();
        }
        self.check_events = true;
        Ok(())
    }

    fn load_task_ldt(&mut self, selector: Selector) -> Result<(), Fault> {
        if selector.is_null() {
            return Ok(());
        }
        if selector.0 & 4 != 0 {
            return Err(self.selector_fault(Exception::Ts, selector));
        }
        let descriptor = self.descriptor(selector, Exception::Ts)?;
        let is_ldt = !descriptor.is_segment() && descriptor.kind() == kind::LDT;
        if !is_ldt || !descriptor.is_present() {
            return Err(self.selector_fault(Exception::Ts, selector));
        }
        self.ldtr = descriptor.segment(selector);
        Ok(())
    }

    fn load_task_segments(&mut self) -> Result<(), Fault> {
        if self.system_flag(Rflags::VM) {
            for segment in &mut self.segments {
                *segment = v86_segment(segment.selector);
            }
            self.update_mode();
            return Ok(());
        }
        let cs = Selector(self.segment(SegReg::Cs).selector);
        let ss = Selector(self.segment(SegReg::Ss).selector);
        let cpl = cs.rpl();
        let code = self.task_code_segment(cs)?;
        if ss.is_null() {
            return Err(self.selector_fault(Exception::Ts, ss));
        }
        let stack = self.checked_stack_segment(ss, cpl, Exception::Ts)?;
        self.segments[SegReg::Ss as usize] = stack;
        self.segments[SegReg::Cs as usize] = code;
        self.update_mode();
        for seg in [SegReg::Es, SegReg::Ds, SegReg::Fs, SegReg::Gs] {
            let selector = Selector(self.segment(seg).selector);
            if !selector.is_null() {
                let segment = self.task_data_segment(selector, cpl)?;
                self.segments[seg as usize] = segment;
            }
        }
        self.update_mode();
        Ok(())
    }

    fn task_code_segment(&mut self, selector: Selector) -> Result<Segment, Fault> {
        if selector.is_null() {
            return Err(self.selector_fault(Exception::Ts, selector));
        }
        let descriptor = self.descriptor(selector, Exception::Ts)?;
        let level_fits = if descriptor.is_conforming() {
            descriptor.dpl() <= selector.rpl()
        } else {
            descriptor.dpl() == selector.rpl()
        };
        if !descriptor.is_code() || !level_fits {
            return Err(self.selector_fault(Exception::Ts, selector));
        }
        if !descriptor.is_present() {
            return Err(self.selector_fault(Exception::Np, selector));
        }
        self.accessed(selector, descriptor)
    }

    fn task_data_segment(&mut self, selector: Selector, cpl: u8) -> Result<Segment, Fault> {
        let descriptor = self.descriptor(selector, Exception::Ts)?;
        let lowest = selector.rpl().max(cpl);
        if !descriptor.is_readable() || !descriptor.is_conforming() && lowest > descriptor.dpl() {
            return Err(self.selector_fault(Exception::Ts, selector));
        }
        if !descriptor.is_present() {
            return Err(self.selector_fault(Exception::Np, selector));
        }
        self.accessed(selector, descriptor)
    }
}
