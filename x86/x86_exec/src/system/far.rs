//! Far transfers: JMP, CALL and RET to other segments, through gates and to tasks (SDM vol. 2A,
//! CALL, JMP; vol. 2B, RET).

use x86_decode::{Insn, OperandKind};
use x86_state::bits::Efer;
use x86_state::{Exception, SegReg, Segment};

use super::descriptor::{Descriptor, Selector, kind};
use super::segments::{real_segment, v86_segment};
use super::stack::Stack;
use super::task::Link;
use crate::memory::is_canonical;
use crate::{Cpu, Env, Fault, Mode};

/// A far JMP or CALL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transfer {
    Jump,
    Call,
}

/// JMP far.
pub(super) fn jump<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    far(cpu, insn, Transfer::Jump)
}

/// CALL far.
pub(super) fn call<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    far(cpu, insn, Transfer::Call)
}

/// Bytes of the offset in a far pointer operand.
fn offset_size(insn: &Insn) -> u8 {
    use x86_decode::Code as C;
    match insn.code {
        C::Jmp_ptr1616 | C::Call_ptr1616 | C::Jmp_m1616 | C::Call_m1616 => 2,
        C::Jmp_ptr1632 | C::Call_ptr1632 | C::Jmp_m1632 | C::Call_m1632 => 4,
        _ => 8,
    }
}

fn far<E: Env>(cpu: &mut Cpu<E>, insn: &Insn, transfer: Transfer) -> Result<(), Fault> {
    let size = offset_size(insn);
    let (offset, selector) = if insn.kind(0) == OperandKind::Mem {
        cpu.read_far_pointer(insn, size)?
    } else {
        (insn.imm & 0xffff_ffff, (insn.imm >> 32) as u16)
    };
    if !cpu.mode.is_protected() {
        return cpu.far_real(selector, offset, size, transfer);
    }
    let selector = Selector(selector);
    if selector.is_null() {
        return Err(cpu.gp0());
    }
    let descriptor = cpu.descriptor(selector, Exception::Gp)?;
    if descriptor.is_code() {
        return cpu.far_direct(selector, descriptor, offset, size, transfer);
    }
    if descriptor.is_segment() {
        return Err(cpu.selector_fault(Exception::Gp, selector));
    }
    cpu.far_system(selector, descriptor, transfer)
}

impl<E: Env> Cpu<E> {
    /// Real-address and virtual-8086 mode.
    fn far_real(
        &mut self,
        selector: u16,
        offset: u64,
        size: u8,
        transfer: Transfer,
    ) -> Result<(), Fault> {
        let cs = self.real_code_segment(selector);
        if offset > u64::from(cs.limit) {
            return Err(self.gp0());
        }
        let mut stack = Stack::current(self);
        if transfer == Transfer::Call {
            let old = self.segment(SegReg::Cs).selector;
            self.push_on(&mut stack, old.into(), size)?;
            self.push_on(&mut stack, self.rip, size)?;
        }
        self.set_stack_pointer(&stack);
        self.set_code(cs, offset);
        Ok(())
    }

    pub(super) fn real_code_segment(&self, selector: u16) -> Segment {
        if self.mode == Mode::Virtual8086 {
            v86_segment(selector)
        } else {
            real_segment(self.segment(SegReg::Cs), selector)
        }
    }

    /// Sets CS and RIP.
    pub(super) fn set_code(&mut self, cs: Segment, rip: u64) {
        self.segments[SegReg::Cs as usize] = cs;
        self.rip = rip;
        self.update_mode();
    }

    /// In long mode, a code segment cannot be both 64-bit and 32-bit.
    pub(super) fn is_valid_code(&self, descriptor: Descriptor) -> bool {
        let long = self.efer & Efer::LMA.bits() != 0;
        descriptor.is_code() && !(long && descriptor.has(Segment::L | Segment::DB))
    }

    /// The target is in its segment.
    pub(super) fn check_target(
        &mut self,
        descriptor: Descriptor,
        offset: u64,
    ) -> Result<(), Fault> {
        let long = self.efer & Efer::LMA.bits() != 0 && descriptor.is_long();
        let inside = if long {
            is_canonical(offset)
        } else {
            offset <= u64::from(descriptor.segment(Selector(0)).limit)
        };
        if inside { Ok(()) } else { Err(self.gp0()) }
    }

    /// To a code segment, at the same level.
    fn far_direct(
        &mut self,
        selector: Selector,
        descriptor: Descriptor,
        offset: u64,
        size: u8,
        transfer: Transfer,
    ) -> Result<(), Fault> {
        let level_fits = if descriptor.is_conforming() {
            descriptor.dpl() <= self.cpl
        } else {
            selector.rpl() <= self.cpl && descriptor.dpl() == self.cpl
        };
        if !self.is_valid_code(descriptor) || !level_fits {
            return Err(self.selector_fault(Exception::Gp, selector));
        }
        if !descriptor.is_present() {
            return Err(self.selector_fault(Exception::Np, selector));
        }
        let mut stack = Stack::current(self);
        if transfer == Transfer::Call {
            let old = self.segment(SegReg::Cs).selector;
            self.push_on(&mut stack, old.into(), size)?;
            self.push_on(&mut stack, self.rip, size)?;
        }
        self.check_target(descriptor, offset)?;
        let cs = self.accessed(selector.with_rpl(self.cpl), descriptor)?;
        self.set_stack_pointer(&stack);
        self.set_code(cs, offset);
        Ok(())
    }

    /// To a call gate, a task gate or a TSS.
    fn far_system(
        &mut self,
        selector: Selector,
        descriptor: Descriptor,
        transfer: Transfer,
    ) -> Result<(), Fault> {
        let long = self.efer & Efer::LMA.bits() != 0;
        let known = match descriptor.kind() {
            kind::CALL_GATE32 => true,
            kind::CALL_GATE16 | kind::TASK_GATE | kind::TSS16 | kind::TSS32 => !long,
            _ => false,
        };
        if !known || descriptor.dpl() < self.cpl.max(selector.rpl()) {
            return Err(self.selector_fault(Exception::Gp, selector));
        }
        if !descriptor.is_present() {
            return Err(self.selector_fault(Exception::Np, selector));
        }
        let link = if transfer == Transfer::Call { Link::Nest } else { Link::Jump };
        match descriptor.kind() {
            kind::TASK_GATE => self.switch_task(descriptor.gate_selector(), link),
            kind::TSS16 | kind::TSS32 => self.switch_task(selector, link),
            _ => self.call_gate(selector, descriptor, transfer),
        }
    }

    fn call_gate(
        &mut self,
        selector: Selector,
        gate: Descriptor,
        transfer: Transfer,
    ) -> Result<(), Fault> {
        let long = self.efer & Efer::LMA.bits() != 0;
        let mut offset = gate.gate_offset();
        if long {
            let high = self.descriptor_high(selector, Exception::Gp)?;
            // The upper half's type must be 0.
            if high >> 40 & 0x1f != 0 {
                return Err(self.selector_fault(Exception::Gp, selector));
            }
            offset |= high << 32;
        }
        let size = match (long, gate.kind()) {
            (true, _) => 8,
            (false, kind::CALL_GATE16) => 2,
            (false, _) => 4,
        };
        if size == 2 {
            offset &= 0xffff;
        }
        let target = gate.gate_selector();
        if target.is_null() {
            return Err(self.gp0());
        }
        let descriptor = self.descriptor(target, Exception::Gp)?;
        let right_size = !long || descriptor.is_long() && !descriptor.has(Segment::DB);
        if !descriptor.is_code() || descriptor.dpl() > self.cpl || !right_size {
            return Err(self.selector_fault(Exception::Gp, target));
        }
        let inner = !descriptor.is_conforming() && descriptor.dpl() < self.cpl;
        if inner && transfer == Transfer::Jump {
            return Err(self.selector_fault(Exception::Gp, target));
        }
        if !descriptor.is_present() {
            return Err(self.selector_fault(Exception::Np, target));
        }
        let cpl = if inner { descriptor.dpl() } else { self.cpl };
        let parameters = if long { 0 } else { gate.gate_parameters() };
        let stack = match transfer {
            Transfer::Jump => Stack::current(self),
            Transfer::Call => self.gate_frame(inner.then_some(cpl), size, parameters)?,
        };
        self.check_target(descriptor, offset)?;
        let cs = self.accessed(target.with_rpl(cpl), descriptor)?;
        if inner {
            self.segments[SegReg::Ss as usize] = stack.segment;
        }
        self.set_code(cs, offset);
        self.set_stack_pointer(&stack);
        Ok(())
    }

    /// Pushes what a call gate pushes: on the current stack, or on that of level `inner` with
    /// SS:SP and parameters of the old one.
    fn gate_frame(&mut self, inner: Option<u8>, size: u8, parameters: u64) -> Result<Stack, Fault> {
        let mut stack = match inner {
            None => Stack::current(self),
            Some(cpl) if size == 8 => {
                let pointer = self.tss_word64(4 + u64::from(cpl) * 8)?;
                Stack::new(self, Segment::unusable(cpl.into(), 0), pointer, cpl, true)
            }
            Some(cpl) => self.inner_stack(cpl)?,
        };
        if inner.is_some() {
            let mut old = Stack::current(self);
            let ss = self.segment(SegReg::Ss).selector;
            self.push_on(&mut stack, ss.into(), size)?;
            self.push_on(&mut stack, self.gpr[4], size)?;
            let mut copied = [0; 31];
            for value in &mut copied[..parameters as usize] {
                *value = self.pop_from(&mut old, size)?;
            }
            for value in copied[..parameters as usize].iter().rev() {
                self.push_on(&mut stack, *value, size)?;
            }
        } else if size == 8 && !self.mode.is_64() {
            stack = Stack::new(self, stack.segment, stack.pointer, self.cpl, true);
        }
        let cs = self.segment(SegReg::Cs).selector;
        self.push_on(&mut stack, cs.into(), size)?;
        self.push_on(&mut stack, self.rip, size)?;
        Ok(stack)
    }
}

/// RET far, with the bytes of parameters to drop as the immediate.
pub(super) fn ret<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    use x86_decode::Code as C;
    let drop = if insn.kind(0) == OperandKind::Imm { insn.imm & 0xffff } else { 0 };
    let size = match insn.code {
        C::Retfw | C::Retfw_imm16 => 2,
        C::Retfd | C::Retfd_imm16 => 4,
        _ => 8,
    };
    let mut stack = Stack::current(cpu);
    let rip = cpu.pop_from(&mut stack, size)?;
    let selector = cpu.pop_from(&mut stack, size)? as u16;
    if !cpu.mode.is_protected() {
        let cs = cpu.real_code_segment(selector);
        if rip > u64::from(cs.limit) {
            return Err(cpu.gp0());
        }
        stack.skip(drop);
        cpu.set_stack_pointer(&stack);
        cpu.set_code(cs, rip);
        return Ok(());
    }
    let selector = Selector(selector);
    let descriptor = cpu.return_descriptor(selector)?;
    if selector.rpl() == cpu.cpl {
        cpu.check_target(descriptor, rip)?;
        let cs = cpu.accessed(selector, descriptor)?;
        stack.skip(drop);
        cpu.set_stack_pointer(&stack);
        cpu.set_code(cs, rip);
        return Ok(());
    }
    stack.skip(drop);
    let sp = cpu.pop_from(&mut stack, size)?;
    let ss = cpu.pop_from(&mut stack, size)? as u16;
    cpu.return_outward(selector, descriptor, rip, Selector(ss), sp, drop)
}

impl<E: Env> Cpu<E> {
    /// The code segment RET and IRET return to.
    pub(super) fn return_descriptor(&mut self, selector: Selector) -> Result<Descriptor, Fault> {
        if selector.is_null() {
            return Err(self.gp0());
        }
        let descriptor = self.descriptor(selector, Exception::Gp)?;
        let level_fits = selector.rpl() >= self.cpl
            && if descriptor.is_conforming() {
                descriptor.dpl() <= selector.rpl()
            } else {
                descriptor.dpl() == selector.rpl()
            };
        if !self.is_valid_code(descriptor) || !level_fits {
            return Err(self.selector_fault(Exception::Gp, selector));
        }
        if !descriptor.is_present() {
            return Err(self.selector_fault(Exception::Np, selector));
        }
        Ok(descriptor)
    }

    /// SS for a return, to code of this descriptor and level.
    pub(super) fn return_stack_segment(
        &mut self,
        code: Descriptor,
        cpl: u8,
        selector: Selector,
    ) -> Result<Segment, Fault> {
        if selector.is_null() {
            let to_64 = self.efer & Efer::LMA.bits() != 0 && code.is_long();
            return if to_64 && cpl != 3 && selector.rpl() == cpl {
                Ok(Segment::unusable(selector.0, 0))
            } else {
                Err(self.gp0())
            };
        }
        self.checked_stack_segment(selector, cpl, Exception::Gp)
    }

    /// Finishes a return to a less privileged level.
    pub(super) fn return_outward(
        &mut self,
        selector: Selector,
        descriptor: Descriptor,
        rip: u64,
        ss: Selector,
        sp: u64,
        drop: u64,
    ) -> Result<(), Fault> {
        let cpl = selector.rpl();
        let stack_segment = self.return_stack_segment(descriptor, cpl, ss)?;
        self.check_target(descriptor, rip)?;
        let cs = self.accessed(selector, descriptor)?;
        self.segments[SegReg::Ss as usize] = stack_segment;
        self.set_code(cs, rip);
        let mut stack = Stack::new(self, stack_segment, sp, cpl, self.mode.is_64());
        stack.skip(drop);
        self.set_stack_pointer(&stack);
        self.drop_inner_segments();
        Ok(())
    }

    /// Data segments the new level may not use become null (SDM vol. 2B, RET).
    pub(super) fn drop_inner_segments(&mut self) {
        for seg in [SegReg::Es, SegReg::Fs, SegReg::Gs, SegReg::Ds] {
            let segment = self.segment(seg);
            let conforming = segment.has(Segment::CODE | Segment::DOWN_CONFORMING);
            let usable = !segment.has(Segment::UNUSABLE);
            if usable && !conforming && segment.dpl() < self.cpl {
                self.segments[seg as usize] = Segment::unusable(0, 0);
            }
        }
        self.update_access();
    }
}
