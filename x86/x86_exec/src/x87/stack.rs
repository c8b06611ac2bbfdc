//! The register stack, its faults, and the entry to and the end of each instruction.

use x86_decode::Insn;
use x86_fpu::x87::{BUSY, C1, C2, CONDITIONS, ES, EXCEPTIONS, IE, INDEFINITE, Outcome, SF};
use x86_state::bits::Cr0;
use x86_state::{Exception, SegReg};

use crate::{Cpu, Env, Fault, Fpu};

impl Fpu {
    /// The physical number of ST(i).
    #[inline(always)]
    pub(crate) fn physical(&self, i: u8) -> usize {
        usize::from((self.top.wrapping_add(i)) & 7)
    }

    /// ST(i) holds something.
    #[inline(always)]
    pub(crate) fn is_used(&self, i: u8) -> bool {
        self.in_use >> self.physical(i) & 1 != 0
    }

    /// ST(i), whatever its tag.
    #[inline(always)]
    pub(crate) fn get(&self, i: u8) -> u128 {
        self.st[self.physical(i)]
    }

    /// Sets ST(i), which is in use then.
    #[inline(always)]
    pub(crate) fn set(&mut self, i: u8, value: u128) {
        let at = self.physical(i);
        self.st[at] = value;
        self.in_use |= 1 << at;
    }

    /// ST(i) is empty from now on.
    #[inline(always)]
    pub(crate) fn free(&mut self, i: u8) {
        self.in_use &= !(1 << self.physical(i));
    }

    /// Takes ST(0) off.
    #[inline(always)]
    pub(crate) fn pop(&mut self) {
        self.free(0);
        self.top = (self.top + 1) & 7;
    }

    /// Puts a value on.
    #[inline(always)]
    pub(crate) fn push(&mut self, value: u128) {
        self.top = self.top.wrapping_sub(1) & 7;
        self.set(0, value);
    }

    /// The status word with TOP.
    pub(crate) fn status_word(&self) -> u16 {
        self.fsw | u16::from(self.top) << 11
    }

    /// Derives ES and B anew, after FCW or the exception flags changed.
    pub(crate) fn update_summary(&mut self) {
        self.fsw &= !(ES | BUSY);
        if self.fsw & !self.fcw & EXCEPTIONS != 0 {
            self.fsw |= ES | BUSY;
        }
    }

    /// Adds exceptions and sets C1, or with `conditions` all condition codes.
    #[inline(always)]
    pub(crate) fn note(&mut self, status: u16, conditions: u16) {
        self.fsw = self.fsw & !conditions | status & (EXCEPTIONS | SF | conditions);
        if status & EXCEPTIONS != 0 {
            self.update_summary();
        }
    }
}

/// What an instruction does with ST(0) at its end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pops {
    None,
    One,
    Two,
}

impl<E: Env> Cpu<E> {
    /// #NM when the x87 may not be used (SDM vol. 3A, table 2-2).
    #[inline(always)]
    pub(super) fn x87_available(&mut self) -> Result<(), Fault> {
        if self.cr0 & (Cr0::EM | Cr0::TS).bits() != 0 {
            return Err(self.raise(Exception::Nm));
        }
        Ok(())
    }

    /// The entry of an instruction that waits: #NM, then #MF of an earlier one.
    #[inline(always)]
    pub(super) fn x87_wait(&mut self) -> Result<(), Fault> {
        self.x87_available()?;
        self.x87_pending()
    }

    /// #MF when an unmasked exception is pending.
    #[inline(always)]
    pub(crate) fn x87_pending(&mut self) -> Result<(), Fault> {
        if self.fpu.fsw & ES != 0 {
            return Err(self.raise(Exception::Mf));
        }
        Ok(())
    }

    /// Notes instruction and operand pointers. Called when nothing can fault any more.
    #[inline(always)]
    pub(super) fn x87_retire(&mut self, insn: &Insn) {
        self.fpu.fip = self.this_rip(insn);
        if insn.is_mem() {
            self.fpu.fdp = self.ea(insn);
        }
        if self.fpu.fsw & ES != 0 {
            self.x87_note_opcode(insn);
        }
    }

    #[cold]
    fn x87_note_opcode(&mut self, insn: &Insn) {
        let at = self.this_rip(insn);
        let prefixes = |byte: u8| !(0xd8..=0xdf).contains(&byte);
        for i in 0..u64::from(insn.len) {
            let Ok(byte) = self.read::<u8>(SegReg::Cs, at.wrapping_add(i)) else { return };
            if prefixes(byte) {
                continue;
            }
            if let Ok(modrm) = self.read::<u8>(SegReg::Cs, at.wrapping_add(i + 1)) {
                self.fpu.fop = u16::from(byte & 7) << 8 | u16::from(modrm);
            }
            return;
        }
    }

    /// A stack fault: C1 tells overflow from underflow, and C2 is cleared when `conditions` has
    /// it. True when it is masked, and the instruction goes on with the indefinite value.
    #[cold]
    pub(super) fn x87_stack_fault(&mut self, overflow: bool, conditions: u16) -> bool {
        let c1 = if overflow { C1 } else { 0 };
        self.fpu.note(IE | SF | c1, C1 | conditions & C2);
        self.fpu.fcw & IE != 0
    }

    /// Ends an instruction whose result goes to ST(`to`).
    #[inline(always)]
    pub(super) fn x87_result(&mut self, to: u8, outcome: Outcome, conditions: u16, pops: Pops) {
        self.fpu.note(outcome.status, conditions);
        if outcome.done {
            self.fpu.set(to, outcome.value);
            self.x87_pop(pops);
        }
    }

    /// Ends an instruction that found ST(`to`) or its other operand empty.
    #[cold]
    pub(super) fn x87_underflow(&mut self, to: u8, conditions: u16, pops: Pops) {
        if self.x87_stack_fault(false, conditions) {
            self.fpu.set(to, INDEFINITE);
            self.x87_pop(pops);
        }
    }

    /// Pushes a result, or finds no room for it.
    #[inline(always)]
    pub(super) fn x87_push(&mut self, outcome: Outcome) {
        if self.fpu.is_used(7) {
            if self.x87_stack_fault(true, 0) {
                self.fpu.push(INDEFINITE);
            }
            return;
        }
        self.fpu.note(outcome.status, C1);
        if outcome.done {
            self.fpu.push(outcome.value);
        }
    }

    #[inline(always)]
    pub(super) fn x87_pop(&mut self, pops: Pops) {
        if pops != Pops::None {
            self.fpu.pop();
        }
        if pops == Pops::Two {
            self.fpu.pop();
        }
    }

    /// Ends a compare. Unmasked exceptions only keep it from popping.
    #[inline(always)]
    pub(super) fn x87_compared(&mut self, outcome: Outcome, pops: Pops) {
        self.fpu.note(outcome.status, CONDITIONS);
        if outcome.done {
            self.x87_pop(pops);
        }
    }
}
