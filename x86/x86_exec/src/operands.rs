//! Registers, effective addresses, and operands that may be either.

use x86_decode::{GPR_RIP, Insn, OperandKind};

use crate::{Cpu, Env, Fault, Word};

/// Masks that make a register number an index without a check.
pub(crate) const FILE: usize = 31;

impl<E: Env> Cpu<E> {
    /// A general register, or its part, by the number in an [`Insn`] (AH to BH are 16 to 19).
    #[inline(always)]
    pub fn reg<T: Word>(&self, number: u8) -> T {
        let number = usize::from(number);
        if T::SIZE == 1 {
            T::from_u64(self.gpr[number & 15] >> ((number & 16) >> 1))
        } else {
            T::from_u64(self.gpr[number & FILE])
        }
    }

    /// Sets a general register or its part: 32 bits clear the upper half, fewer leave the rest.
    #[inline(always)]
    pub fn set_reg<T: Word>(&mut self, number: u8, value: T) {
        let number = usize::from(number);
        match T::SIZE {
            1 => {
                let shift = (number & 16) >> 1;
                let reg = &mut self.gpr[number & 15];
                *reg = *reg & !(0xff << shift) | value.to_u64() << shift;
            }
            2 => {
                let reg = &mut self.gpr[number & 15];
                *reg = *reg & !0xffff | value.to_u64();
            }
            _ => self.gpr[number & 15] = value.to_u64(),
        }
    }

    /// The effective address of the memory operand, cut to the address size.
    #[inline(always)]
    pub fn ea(&self, insn: &Insn) -> u64 {
        let base = self.gpr[usize::from(insn.base) & FILE];
        let index = self.gpr[usize::from(insn.index) & FILE] << (insn.scale & 3);
        cut(base.wrapping_add(index).wrapping_add(insn.disp), insn.addr_size)
    }

    /// The address of `insn`, which is running.
    #[inline]
    pub fn this_rip(&self, insn: &Insn) -> u64 {
        self.code_offset(u64::from(insn.offset))
    }

    /// The address after `insn`, which is running.
    #[inline]
    pub fn next_rip(&self, insn: &Insn) -> u64 {
        self.code_offset(u64::from(insn.offset) + u64::from(insn.len))
    }

    #[inline(always)]
    fn code_offset(&self, distance: u64) -> u64 {
        let rip = self.gpr[usize::from(GPR_RIP)].wrapping_add(distance);
        if self.mode.is_64() { rip } else { rip & 0xffff_ffff }
    }

    /// Operand `index`: register, memory or immediate.
    ///
    /// # Errors
    /// What memory raises.
    #[inline]
    pub fn read_op<T: Word>(&mut self, insn: &Insn, index: u32) -> Result<T, Fault> {
        match insn.kind(index) {
            OperandKind::Mem => self.read(insn.seg, self.ea(insn)),
            OperandKind::Imm => Ok(T::from_u64(insn.imm)),
            _ => Ok(self.reg(insn.reg(index as usize))),
        }
    }

    /// Sets operand `index`: register or memory.
    ///
    /// # Errors
    /// What memory raises.
    #[inline]
    pub fn write_op<T: Word>(&mut self, insn: &Insn, index: u32, value: T) -> Result<(), Fault> {
        if insn.kind(index) == OperandKind::Mem {
            return self.write(insn.seg, self.ea(insn), value);
        }
        self.set_reg(insn.reg(index as usize), value);
        Ok(())
    }

    /// Changes the first operand, register or memory, atomically when the instruction is locked.
    /// `change` gives the new value and what the caller wants to know; it may run more than once.
    ///
    /// # Errors
    /// What memory raises.
    #[inline]
    pub fn modify_op<T: Word, R>(
        &mut self,
        insn: &Insn,
        change: impl Fn(T) -> (T, R),
    ) -> Result<R, Fault> {
        if insn.kind(0) == OperandKind::Mem {
            return self.modify(insn.seg, self.ea(insn), insn.locked(), change);
        }
        let (new, result) = change(self.reg(insn.reg0()));
        self.set_reg(insn.reg0(), new);
        Ok(result)
    }
}

/// Cuts an offset to the address size.
#[inline(always)]
pub(crate) const fn cut(offset: u64, addr_size: u8) -> u64 {
    match addr_size {
        8 => offset,
        4 => offset & 0xffff_ffff,
        _ => offset & 0xffff,
    }
}
