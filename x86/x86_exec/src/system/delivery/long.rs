//! Delivery in long mode (SDM vol. 3A, 6.14).

use x86_mmu::Privilege;
use x86_state::{Exception, SegReg, Segment};

use super::{Event, Source};
use crate::memory::is_canonical;
use crate::system::descriptor::{Descriptor, Selector, kind};
use crate::system::stack::Stack;
use crate::{Cpu, Env, Fault};

/// Offset of RSP0 in the 64-bit TSS; RSP1 and RSP2 follow.
const TSS_RSP0: u64 = 4;
/// Offset of IST1 in the 64-bit TSS.
const TSS_IST1: u64 = 36;

impl<E: Env> Cpu<E> {
    pub(super) fn deliver_long(&mut self, event: &Event) -> Result<(), Fault> {
        let (gate, offset) = self.long_gate(event)?;
        let (cs, cpl) = self.handler_segment(gate.gate_selector(), true)?;
        let switches = cpl < self.cpl;
        let mut stack = self.long_stack(gate.gate_ist(), cpl, switches)?;
        let old_sp = self.gpr[4];
        let old_ss = self.segment(SegReg::Ss).selector.into();
        for value in [old_ss, old_sp, event.rflags, self.cs_selector(), event.rip] {
            self.push_on(&mut stack, value, 8)?;
        }
        if let Some(code) = event.error_code {
            self.push_on(&mut stack, code.into(), 8)?;
        }
        if !is_canonical(offset) {
            return Err(self.gp0());
        }
        if switches {
            self.segments[SegReg::Ss as usize] = Segment::unusable(cpl.into(), 0);
        }
        self.segments[SegReg::Cs as usize] = cs;
        self.rip = offset;
        self.clear_flags_for_handler(gate.kind() == kind::INTERRUPT_GATE32);
        self.update_mode();
        self.set_stack_pointer(&stack);
        Ok(())
    }

    /// The gate, checked, and its offset.
    fn long_gate(&mut self, event: &Event) -> Result<(Descriptor, u64), Fault> {
        let entry = u64::from(event.vector) * 16;
        if entry + 15 > u64::from(self.idtr.limit) {
            return Err(self.idt_fault(Exception::Gp, event));
        }
        let at = self.idtr.base.wrapping_add(entry);
        let raw = self.read_linear(at, Privilege::Supervisor)?;
        let high: u64 = self.read_linear(at.wrapping_add(8), Privilege::Supervisor)?;
        let gate = Descriptor { raw, at };
        let is_gate =
            !gate.is_segment() && matches!(gate.kind(), kind::INTERRUPT_GATE32 | kind::TRAP_GATE32);
        if !is_gate || event.source == Source::Software && gate.dpl() < self.cpl {
            return Err(self.idt_fault(Exception::Gp, event));
        }
        if !gate.is_present() {
            return Err(self.idt_fault(Exception::Np, event));
        }
        Ok((gate, gate.gate_offset() | high << 32))
    }

    /// The handler's code segment, and the privilege level it runs at.
    pub(super) fn handler_segment(
        &mut self,
        selector: Selector,
        long: bool,
    ) -> Result<(Segment, u8), Fault> {
        if selector.is_null() {
            return Err(self.gp0());
        }
        let descriptor = self.descriptor(selector, Exception::Gp)?;
        let wrong_size = long && (!descriptor.is_long() || descriptor.has(Segment::DB));
        if !descriptor.is_code() || descriptor.dpl() > self.cpl || wrong_size {
            return Err(self.delivery_fault(Exception::Gp, selector));
        }
        if !descriptor.is_present() {
            return Err(self.delivery_fault(Exception::Np, selector));
        }
        let cpl = if descriptor.is_conforming() { self.cpl } else { descriptor.dpl() };
        let segment = self.accessed(selector.with_rpl(cpl), descriptor)?;
        Ok((segment, cpl))
    }

    fn long_stack(&mut self, ist: u64, cpl: u8, switches: bool) -> Result<Stack, Fault> {
        let pointer = match (ist, switches) {
            (0, false) => self.gpr[4],
            (0, true) => self.tss_word64(TSS_RSP0 + u64::from(cpl) * 8)?,
            (ist, _) => self.tss_word64(TSS_IST1 + (ist - 1) * 8)?,
        };
        let ss = *self.segment(SegReg::Ss);
        Ok(Stack::new(self, ss, pointer & !0xf, cpl, true))
    }

    /// A stack pointer from the 64-bit TSS.
    pub(in crate::system) fn tss_word64(&mut self, offset: u64) -> Result<u64, Fault> {
        if offset + 7 > u64::from(self.tr.limit) {
            return Err(self.selector_fault(Exception::Ts, Selector(self.tr.selector)));
        }
        self.read_linear(self.tr.base.wrapping_add(offset), Privilege::Supervisor)
    }
}
