//! IRET in all its forms (SDM vol. 2A, IRET).

use x86_decode::{Code, Insn};
use x86_mmu::Privilege;
use x86_state::SegReg;
use x86_state::bits::Rflags;

use super::descriptor::Selector;
use super::segments::v86_segment;
use super::stack::Stack;
use super::task::Link;
use crate::{Cpu, Env, Fault, Mode};

/// What an IRET may change of RFLAGS, whatever the privilege level.
const ALWAYS: u64 = 0x0cd5 | Rflags::TF.bits() | Rflags::NT.bits();
/// The same, with 32 or 64 bits of operand size.
const WIDE: u64 = Rflags::RF.bits() | Rflags::AC.bits() | Rflags::ID.bits();
/// The same, at ring 0 only.
const VIRTUAL_INTERRUPTS: Rflags = Rflags::VIF.union(Rflags::VIP);

/// IRET.
pub(super) fn iret<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let size = match insn.code {
        Code::Iretw => 2,
        Code::Iretd => 4,
        _ => 8,
    };
    let was_masked = std::mem::replace(&mut cpu.nmi_masked, false);
    let done = match cpu.mode {
        Mode::Real => cpu.iret_real(size),
        Mode::Virtual8086 => cpu.iret_v86(size),
        _ => cpu.iret_protected(size),
    };
    if done.is_err() {
        cpu.nmi_masked = was_masked;
    }
    cpu.check_events = true;
    done
}

impl<E: Env> Cpu<E> {
    fn iret_real(&mut self, size: u8) -> Result<(), Fault> {
        let (stack, rip, cs, flags) = self.pop_frame(size)?;
        let segment = self.real_code_segment(cs);
        if rip > u64::from(segment.limit) {
            return Err(self.gp0());
        }
        self.set_stack_pointer(&stack);
        self.return_flags(flags, size, Rflags::IF | Rflags::IOPL);
        self.set_code(segment, rip);
        Ok(())
    }

    fn iret_v86(&mut self, size: u8) -> Result<(), Fault> {
        if self.system_flags & Rflags::IOPL.bits() != Rflags::IOPL.bits() {
            return Err(self.gp0());
        }
        let (stack, rip, cs, flags) = self.pop_frame(size)?;
        if rip > 0xffff {
            return Err(self.gp0());
        }
        self.set_stack_pointer(&stack);
        self.return_flags(flags, size, Rflags::IF);
        self.set_code(v86_segment(cs), rip);
        Ok(())
    }

    fn pop_frame(&mut self, size: u8) -> Result<(Stack, u64, u16, u64), Fault> {
        let mut stack = Stack::current(self);
        let rip = self.pop_from(&mut stack, size)?;
        let cs = self.pop_from(&mut stack, size)? as u16;
        let flags = self.pop_from(&mut stack, size)?;
        Ok((stack, rip, cs, flags))
    }

    fn iret_protected(&mut self, size: u8) -> Result<(), Fault> {
        if self.system_flag(Rflags::NT) {
            return self.iret_task();
        }
        let (mut stack, rip, cs, flags) = self.pop_frame(size)?;
        let to_v86 = flags & Rflags::VM.bits() != 0 && size == 4;
        if to_v86 && self.cpl == 0 && !self.mode.is_long() {
            return self.iret_to_v86(stack, rip, cs, flags);
        }
        let selector = Selector(cs);
        let descriptor = self.return_descriptor(selector)?;
        let outward = selector.rpl() > self.cpl;
        let mut may_change = Rflags::empty();
        if self.cpl == 0 {
            may_change |= Rflags::IOPL | VIRTUAL_INTERRUPTS;
        }
        if u64::from(self.cpl) <= self.system_flags >> 12 & 3 {
            may_change |= Rflags::IF;
        }
        if !outward && !self.mode.is_64() {
            self.check_target(descriptor, rip)?;
            let segment = self.accessed(selector, descriptor)?;
            self.set_stack_pointer(&stack);
            self.return_flags(flags, size, may_change);
            self.set_code(segment, rip);
            return Ok(());
        }
        let sp = self.pop_from(&mut stack, size)?;
        let ss = Selector(self.pop_from(&mut stack, size)? as u16);
        self.iret_with_stack((selector, descriptor, rip), (ss, sp), outward)?;
        self.return_flags(flags, size, may_change);
        self.update_access();
        Ok(())
    }

    /// Outward, and always in 64-bit mode: SS and SP come from the frame.
    fn iret_with_stack(
        &mut self,
        (selector, descriptor, rip): (Selector, super::descriptor::Descriptor, u64),
        (ss, sp): (Selector, u64),
        outward: bool,
    ) -> Result<(), Fault> {
        if outward {
            return self.return_outward(selector, descriptor, rip, ss, sp, 0);
        }
        let cpl = selector.rpl();
        let stack_segment = self.return_stack_segment(descriptor, cpl, ss)?;
        self.check_target(descriptor, rip)?;
        let cs = self.accessed(selector, descriptor)?;
        self.segments[SegReg::Ss as usize] = stack_segment;
        self.set_code(cs, rip);
        let stack = Stack::new(self, stack_segment, sp, cpl, self.mode.is_64());
        self.set_stack_pointer(&stack);
        Ok(())
    }

    fn iret_to_v86(
        &mut self,
        mut stack: Stack,
        rip: u64,
        cs: u16,
        flags: u64,
    ) -> Result<(), Fault> {
        if rip > 0xffff {
            return Err(self.gp0());
        }
        let sp = self.pop_from(&mut stack, 4)?;
        let mut selectors = [0; 5];
        for selector in &mut selectors {
            *selector = self.pop_from(&mut stack, 4)? as u16;
        }
        let order = [SegReg::Ss, SegReg::Es, SegReg::Ds, SegReg::Fs, SegReg::Gs];
        for (seg, selector) in order.into_iter().zip(selectors) {
            self.segments[seg as usize] = v86_segment(selector);
        }
        self.gpr[4] = sp;
        let privileged = Rflags::IF | Rflags::IOPL | Rflags::VM | VIRTUAL_INTERRUPTS;
        self.return_flags(flags, 4, privileged);
        self.set_code(v86_segment(cs), rip);
        Ok(())
    }

    /// Back to the task that called or was interrupted.
    fn iret_task(&mut self) -> Result<(), Fault> {
        if self.mode.is_long() {
            return Err(self.gp0());
        }
        let link = self.read_linear::<u16>(self.tr.base, Privilege::Supervisor)?;
        self.switch_task(Selector(link), Link::Return)
    }

    /// Sets what a return may change of RFLAGS.
    fn return_flags(&mut self, flags: u64, size: u8, privileged: Rflags) {
        let mut mask = ALWAYS | WIDE | privileged.bits();
        if size == 2 {
            mask &= 0xffff;
        }
        let value = self.rflags() & !mask | flags & mask;
        self.set_rflags(value);
    }
}
