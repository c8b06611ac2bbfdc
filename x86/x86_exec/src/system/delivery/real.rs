//! Delivery in real-address mode: through the vector table (SDM vol. 3B, 21.1.4).

use x86_mmu::Privilege;
use x86_state::SegReg;

use super::Event;
use crate::system::segments::real_segment;
use crate::system::stack::Stack;
use crate::{Cpu, Env, Fault};

impl<E: Env> Cpu<E> {
    pub(super) fn deliver_real(&mut self, event: &Event) -> Result<(), Fault> {
        let entry = u64::from(event.vector) * 4;
        if entry + 3 > u64::from(self.idtr.limit) {
            return Err(self.raise_code(x86_state::Exception::Gp, event.idt_error()));
        }
        let pointer = self.idtr.base.wrapping_add(entry);
        let target = self.read_linear::<u32>(pointer, Privilege::Supervisor)?;
        let mut stack = Stack::current(self);
        self.push_on(&mut stack, event.rflags, 2)?;
        self.push_on(&mut stack, self.cs_selector(), 2)?;
        self.push_on(&mut stack, event.rip, 2)?;
        self.set_stack_pointer(&stack);
        self.clear_flags_for_handler(true);
        let cs = real_segment(self.segment(SegReg::Cs), (target >> 16) as u16);
        self.segments[SegReg::Cs as usize] = cs;
        self.rip = u64::from(target & 0xffff);
        self.update_mode();
        Ok(())
    }
}
