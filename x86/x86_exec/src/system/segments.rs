//! Loads of segment registers: MOV, POP, LDS and its kin (SDM vol. 2B, MOV; vol. 3A, 5.6).

use x86_decode::Insn;
use x86_state::{Exception, InterruptShadow, SegReg, Segment};

use super::descriptor::Selector;
use super::stack::Stack;
use crate::{Cpu, Env, Fault, Mode};

/// A segment register's number, as decoded.
pub(super) const fn seg_reg(number: u8) -> SegReg {
    match number {
        0 => SegReg::Es,
        1 => SegReg::Cs,
        2 => SegReg::Ss,
        3 => SegReg::Ds,
        4 => SegReg::Fs,
        _ => SegReg::Gs,
    }
}

/// A segment as real-address mode loads it: only selector and base change.
pub(super) fn real_segment(old: &Segment, selector: u16) -> Segment {
    let limit = if old.has(Segment::UNUSABLE) { 0xffff } else { old.limit };
    let kept = old.attr & (Segment::DB | Segment::G | Segment::AVL);
    Segment { limit, attr: 0x93 | kept, ..Segment::real(selector) }
}

/// A segment as virtual-8086 mode loads it.
pub(super) const fn v86_segment(selector: u16) -> Segment {
    Segment { attr: 0xf3, ..Segment::real(selector) }
}

impl<E: Env> Cpu<E> {
    /// What a load of this data or stack segment register gives; nothing is changed but the
    /// descriptor's accessed bit.
    pub(crate) fn segment_for(&mut self, seg: SegReg, selector: u16) -> Result<Segment, Fault> {
        match self.mode {
            Mode::Real => Ok(real_segment(self.segment(seg), selector)),
            Mode::Virtual8086 => Ok(v86_segment(selector)),
            _ if seg == SegReg::Ss => self.stack_segment(Selector(selector), self.cpl),
            _ => self.data_segment(Selector(selector)),
        }
    }

    /// Loads a data or stack segment register.
    ///
    /// # Errors
    /// The exception.
    pub fn load_segment(&mut self, seg: SegReg, selector: u16) -> Result<(), Fault> {
        let segment = self.segment_for(seg, selector)?;
        self.set_segment(seg, segment);
        Ok(())
    }

    /// Sets a data or stack segment register.
    pub(crate) fn set_segment(&mut self, seg: SegReg, segment: Segment) {
        self.segments[seg as usize] = segment;
        self.update_access();
    }

    fn data_segment(&mut self, selector: Selector) -> Result<Segment, Fault> {
        if selector.is_null() {
            return Ok(Segment::unusable(selector.0, 0));
        }
        let descriptor = self.descriptor(selector, Exception::Gp)?;
        let lowest = selector.rpl().max(self.cpl);
        if !descriptor.is_readable() || !descriptor.is_conforming() && lowest > descriptor.dpl() {
            return Err(self.selector_fault(Exception::Gp, selector));
        }
        if !descriptor.is_present() {
            return Err(self.selector_fault(Exception::Np, selector));
        }
        self.accessed(selector, descriptor)
    }

    fn stack_segment(&mut self, selector: Selector, cpl: u8) -> Result<Segment, Fault> {
        if selector.is_null() {
            return if self.mode.is_64() && cpl < 3 && selector.rpl() == cpl {
                Ok(Segment::unusable(selector.0, 0))
            } else {
                Err(self.gp0())
            };
        }
        self.checked_stack_segment(selector, cpl, Exception::Gp)
    }

    /// A stack segment for this privilege level; `wrong` is raised when it is not one.
    pub(super) fn checked_stack_segment(
        &mut self,
        selector: Selector,
        cpl: u8,
        wrong: Exception,
    ) -> Result<Segment, Fault> {
        let descriptor = self.descriptor(selector, wrong)?;
        if selector.rpl() != cpl || !descriptor.is_writable_data() || descriptor.dpl() != cpl {
            return Err(self.selector_fault(wrong, selector));
        }
        if !descriptor.is_present() {
            return Err(self.selector_fault(Exception::Ss, selector));
        }
        self.accessed(selector, descriptor)
    }

    /// Interrupts and debug traps wait for the instruction after a load of SS.
    fn shadow_stack_load(&mut self, seg: SegReg) {
        if seg == SegReg::Ss {
            self.shadow = InterruptShadow::MovSs;
        }
    }
}

/// MOV Sreg, r/m16.
pub(super) fn mov_to<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let seg = seg_reg(insn.reg0());
    if seg == SegReg::Cs {
        return Err(cpu.ud());
    }
    let selector = cpu.read_op::<u16>(insn, 1)?;
    cpu.load_segment(seg, selector)?;
    cpu.shadow_stack_load(seg);
    Ok(())
}

/// MOV r/m16, Sreg. To a wider register it is zero-extended; to memory always 16 bits.
pub(super) fn mov_from<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    if insn.reg1() > 5 {
        return Err(cpu.ud());
    }
    let selector = cpu.segment(seg_reg(insn.reg1())).selector;
    cpu.store_selector(insn, selector)
}

impl<E: Env> Cpu<E> {
    /// Stores a 16-bit system value into the first operand: memory takes two bytes, a register
    /// its operand size.
    pub(super) fn store_selector(&mut self, insn: &Insn, value: u16) -> Result<(), Fault> {
        if insn.is_mem() {
            return self.write(insn.seg, self.ea(insn), value);
        }
        match insn.op_size {
            2 => self.set_reg(insn.reg0(), value),
            4 => self.set_reg(insn.reg0(), u32::from(value)),
            _ => self.set_reg(insn.reg0(), u64::from(value)),
        }
        Ok(())
    }
}

/// PUSH Sreg.
pub(super) fn push<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let selector = cpu.segment(seg_reg(insn.reg0())).selector;
    let mut stack = Stack::current(cpu);
    // Current CPUs write two bytes of four or eight (SDM vol. 2B, PUSH); so do we.
    cpu.push_selector(&mut stack, selector, insn.op_size)?;
    cpu.set_stack_pointer(&stack);
    Ok(())
}

/// POP Sreg.
pub(super) fn pop<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let seg = seg_reg(insn.reg0());
    let mut stack = Stack::current(cpu);
    let selector = cpu.pop_selector(&mut stack, insn.op_size)?;
    let segment = cpu.segment_for(seg, selector)?;
    cpu.set_stack_pointer(&stack);
    cpu.set_segment(seg, segment);
    cpu.shadow_stack_load(seg);
    Ok(())
}

/// LDS, LES, LFS, LGS, LSS: a far pointer into a general and a segment register.
pub(super) fn load_far_pointer<E: Env>(
    cpu: &mut Cpu<E>,
    insn: &Insn,
    seg: SegReg,
) -> Result<(), Fault> {
    let (offset, selector) = cpu.read_far_pointer(insn, insn.op_size)?;
    let segment = cpu.segment_for(seg, selector)?;
    match insn.op_size {
        2 => cpu.set_reg(insn.reg0(), offset as u16),
        4 => cpu.set_reg(insn.reg0(), offset as u32),
        _ => cpu.set_reg(insn.reg0(), offset),
    }
    cpu.set_segment(seg, segment);
    cpu.check_events = true;
    Ok(())
}

impl<E: Env> Cpu<E> {
    /// A far pointer in memory: an offset of `size` bytes, and a selector.
    pub(super) fn read_far_pointer(&mut self, insn: &Insn, size: u8) -> Result<(u64, u16), Fault> {
        let mut bytes = [0; 10];
        let ea = self.ea(insn);
        let size = usize::from(size);
        self.read_bytes(insn.seg, ea, &mut bytes[..size + 2])?;
        let selector = u16::from_le_bytes([bytes[size], bytes[size + 1]]);
        bytes[size..].fill(0);
        let mut offset = [0; 8];
        offset.copy_from_slice(&bytes[..8]);
        Ok((u64::from_le_bytes(offset), selector))
    }
}
