//! Delivery in protected mode outside of long mode (SDM vol. 3A, 6.12).

use x86_mmu::Privilege;
use x86_state::{Exception, SegReg, Segment};

use super::{Event, Source};
use crate::system::descriptor::{Descriptor, Selector, kind};
use crate::system::stack::Stack;
use crate::system::task::Link;
use crate::{Cpu, Env, Fault, Mode};

impl<E: Env> Cpu<E> {
    pub(super) fn deliver_protected(&mut self, event: &Event) -> Result<(), Fault> {
        let gate = self.interrupt_gate(event)?;
        if gate.kind() == kind::TASK_GATE {
            self.rip = event.rip;
            self.switch_task_by_event(gate.gate_selector(), event.rflags, event.error_code)?;
            return Ok(());
        }
        let size = if gate.kind() & 8 != 0 { 4 } else { 2 };
        let offset = if size == 4 { gate.gate_offset() } else { gate.gate_offset() & 0xffff };
        let (cs, cpl) = self.handler_segment(gate.gate_selector(), false)?;
        let from_v86 = self.mode == Mode::Virtual8086;
        if from_v86 && cpl != 0 {
            return Err(self.delivery_fault(Exception::Gp, gate.gate_selector()));
        }
        let switches = cpl < self.cpl;
        let mut stack = if switches { self.inner_stack(cpl)? } else { Stack::current(self) };
        if offset > u64::from(cs.limit) {
            return Err(self.gp0());
        }
        if from_v86 {
            for seg in [SegReg::Gs, SegReg::Fs, SegReg::Ds, SegReg::Es] {
                let selector = self.segment(seg).selector;
                self.push_on(&mut stack, selector.into(), size)?;
            }
        }
        if switches {
            let ss = self.segment(SegReg::Ss).selector;
            self.push_on(&mut stack, ss.into(), size)?;
            self.push_on(&mut stack, self.gpr[4], size)?;
        }
        self.push_on(&mut stack, event.rflags, size)?;
        self.push_on(&mut stack, self.cs_selector(), size)?;
        self.push_on(&mut stack, event.rip, size)?;
        if let Some(code) = event.error_code {
            self.push_on(&mut stack, code.into(), size)?;
        }
        if from_v86 {
            for seg in [SegReg::Gs, SegReg::Fs, SegReg::Ds, SegReg::Es] {
                self.segments[seg as usize] = Segment::unusable(0, 0);
            }
        }
        self.segments[SegReg::Ss as usize] = stack.segment;
        self.segments[SegReg::Cs as usize] = cs;
        self.rip = offset;
        self.clear_flags_for_handler(gate.kind() & 1 == 0);
        self.update_mode();
        self.set_stack_pointer(&stack);
        Ok(())
    }

    fn interrupt_gate(&mut self, event: &Event) -> Result<Descriptor, Fault> {
        let entry = u64::from(event.vector) * 8;
        if entry + 7 > u64::from(self.idtr.limit) {
            return Err(self.idt_fault(Exception::Gp, event));
        }
        let at = self.idtr.base.wrapping_add(entry);
        let gate = Descriptor { raw: self.read_linear(at, Privilege::Supervisor)?, at };
        let is_gate = !gate.is_segment()
            && matches!(
                gate.kind(),
                kind::TASK_GATE
                    | kind::INTERRUPT_GATE16
                    | kind::TRAP_GATE16
                    | kind::INTERRUPT_GATE32
                    | kind::TRAP_GATE32
            );
        if !is_gate || event.source == Source::Software && gate.dpl() < self.cpl {
            return Err(self.idt_fault(Exception::Gp, event));
        }
        if !gate.is_present() {
            return Err(self.idt_fault(Exception::Np, event));
        }
        Ok(gate)
    }

    /// The stack for a more privileged level, from the TSS.
    pub(in crate::system) fn inner_stack(&mut self, cpl: u8) -> Result<Stack, Fault> {
        let (pointer, selector) = self.tss_stack(cpl)?;
        let selector = Selector(selector);
        if selector.is_null() {
            return Err(self.raise_code(Exception::Ts, 0));
        }
        let segment = self.checked_stack_segment(selector, cpl, Exception::Ts)?;
        Ok(Stack::new(self, segment, pointer, cpl, false))
    }

    /// SS:ESP for a privilege level, from a 16- or 32-bit TSS.
    fn tss_stack(&mut self, cpl: u8) -> Result<(u64, u16), Fault> {
        let wide = self.tr.kind() & 8 != 0;
        let (offset, size) =
            if wide { (u64::from(cpl) * 8 + 4, 6) } else { (u64::from(cpl) * 4 + 2, 4) };
        if offset + size - 1 > u64::from(self.tr.limit) {
            return Err(self.selector_fault(Exception::Ts, Selector(self.tr.selector)));
        }
        let at = self.tr.base.wrapping_add(offset);
        let (pointer, selector_at) = if wide {
            (self.read_linear::<u32>(at, Privilege::Supervisor)?.into(), at.wrapping_add(4))
        } else {
            (self.read_linear::<u16>(at, Privilege::Supervisor)?.into(), at.wrapping_add(2))
        };
        Ok((pointer, self.read_linear(selector_at, Privilege::Supervisor)?))
    }

    /// A task gate in the IDT: the error code goes to the new task's stack.
    fn switch_task_by_event(
        &mut self,
        selector: Selector,
        rflags: u64,
        error_code: Option<u32>,
    ) -> Result<(), Fault> {
        let (rip, flags) = (self.rip, self.rflags());
        self.set_rflags(rflags);
        let done = self.switch_task(selector, Link::Nest);
        if done.is_err() {
            self.rip = rip;
            self.set_rflags(flags);
            return done;
        }
        let wide = self.tr.kind() & 8 != 0;
        if let Some(code) = error_code {
            let mut stack = Stack::current(self);
            self.push_on(&mut stack, code.into(), if wide { 4 } else { 2 })?;
            self.set_stack_pointer(&stack);
        }
        Ok(())
    }
}
