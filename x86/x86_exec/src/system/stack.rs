//! Stacks other than the current one, and frames on them.

use x86_mmu::Privilege;
use x86_state::bits::Rflags;
use x86_state::{Exception, SegReg, Segment};

use crate::memory::{in_limit, is_canonical};
use crate::{Cpu, Env, Fault, Mode};

/// RSP's number.
const RSP: usize = 4;

/// A stack that something is pushed on or popped from. SP is written back by
/// [`Cpu::set_stack_pointer`] when all has succeeded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stack {
    /// SS.
    pub segment: Segment,
    /// SP, ESP or RSP, as wide as `mask`.
    pub pointer: u64,
    /// The bits of the pointer that are used.
    mask: u64,
    /// 64-bit mode: no base, no limit.
    flat: bool,
    privilege: Privilege,
    /// Error code of #SS.
    error: u32,
}

impl Stack {
    /// The current one.
    pub fn current<E: Env>(cpu: &Cpu<E>) -> Self {
        let segment = *cpu.segment(SegReg::Ss);
        let mask = mask_of(&segment, cpu.mode.is_64());
        Self {
            segment,
            pointer: cpu.gpr[RSP] & mask,
            mask,
            flat: cpu.mode.is_64(),
            privilege: cpu.mmu.privilege(),
            error: 0,
        }
    }

    /// Another one, of this privilege level.
    pub fn new<E: Env>(cpu: &Cpu<E>, segment: Segment, pointer: u64, cpl: u8, flat: bool) -> Self {
        let mask = mask_of(&segment, flat);
        let ac = cpu.system_flag(Rflags::AC);
        let privilege = match (cpl, ac) {
            (3, _) => Privilege::User,
            (_, true) => Privilege::SupervisorAc,
            (_, false) => Privilege::Supervisor,
        };
        let error = if flat { 0 } else { u32::from(segment.selector & 0xfffc) };
        Self { segment, pointer: pointer & mask, mask, flat, privilege, error }
    }

    /// Takes bytes off without looking at them.
    pub fn skip(&mut self, bytes: u64) {
        self.pointer = self.pointer.wrapping_add(bytes) & self.mask;
    }
}

fn mask_of(segment: &Segment, flat: bool) -> u64 {
    match (flat, segment.has(Segment::DB)) {
        (true, _) => u64::MAX,
        (false, true) => 0xffff_ffff,
        (false, false) => 0xffff,
    }
}

impl<E: Env> Cpu<E> {
    fn stack_linear(&mut self, stack: &Stack, pointer: u64, size: u8) -> Result<u64, Fault> {
        let last = u64::from(size) - 1;
        let (linear, valid) = if stack.flat {
            (pointer, is_canonical(pointer) && is_canonical(pointer.wrapping_add(last)))
        } else {
            let usable = self.mode == Mode::Real || !stack.segment.has(Segment::UNUSABLE);
            let linear = stack.segment.base.wrapping_add(pointer) & 0xffff_ffff;
            (linear, usable && in_limit(&stack.segment, pointer, last))
        };
        if valid { Ok(linear) } else { Err(self.raise_code(Exception::Ss, stack.error)) }
    }

    /// Pushes 2, 4 or 8 bytes.
    pub(crate) fn push_on(&mut self, stack: &mut Stack, value: u64, size: u8) -> Result<(), Fault> {
        let pointer = stack.pointer.wrapping_sub(u64::from(size)) & stack.mask;
        let linear = self.stack_linear(stack, pointer, size)?;
        match size {
            2 => self.write_linear(linear, value as u16, stack.privilege)?,
            4 => self.write_linear(linear, value as u32, stack.privilege)?,
            _ => self.write_linear(linear, value, stack.privilege)?,
        }
        stack.pointer = pointer;
        Ok(())
    }

    /// Pushes a selector in `size` bytes, of which two are written.
    pub(crate) fn push_selector(
        &mut self,
        stack: &mut Stack,
        selector: u16,
        size: u8,
    ) -> Result<(), Fault> {
        let pointer = stack.pointer.wrapping_sub(u64::from(size)) & stack.mask;
        let linear = self.stack_linear(stack, pointer, 2)?;
        self.write_linear(linear, selector, stack.privilege)?;
        stack.pointer = pointer;
        Ok(())
    }

    /// Pops 2, 4 or 8 bytes.
    pub(crate) fn pop_from(&mut self, stack: &mut Stack, size: u8) -> Result<u64, Fault> {
        let linear = self.stack_linear(stack, stack.pointer, size)?;
        let value = match size {
            2 => self.read_linear::<u16>(linear, stack.privilege)?.into(),
            4 => self.read_linear::<u32>(linear, stack.privilege)?.into(),
            _ => self.read_linear::<u64>(linear, stack.privilege)?,
        };
        stack.skip(size.into());
        Ok(value)
    }

    /// Pops a selector that takes `size` bytes, of which two are read.
    pub(crate) fn pop_selector(&mut self, stack: &mut Stack, size: u8) -> Result<u16, Fault> {
        let linear = self.stack_linear(stack, stack.pointer, 2)?;
        let value = self.read_linear::<u16>(linear, stack.privilege)?;
        stack.skip(size.into());
        Ok(value)
    }

    /// SP, ESP or RSP is the stack's pointer from now on. SS is the caller's.
    pub(crate) fn set_stack_pointer(&mut self, stack: &Stack) {
        let rsp = &mut self.gpr[RSP];
        *rsp = match stack.mask {
            0xffff => *rsp & !0xffff | stack.pointer,
            _ => stack.pointer,
        };
    }
}
