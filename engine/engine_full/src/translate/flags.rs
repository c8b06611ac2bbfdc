//! RFLAGS: PUSHF, POPF, CLI, STI, CLD, STD.
//!
//! The arithmetic flags are the host's own; the others are in the context, IF, DF and AC
//! apart.

use x86_decode::native::Native;
use x86_encode::{Alu, Cond, Label, Mem, Reg, Shift};
use x86_state::bits::Rflags;

use super::{Translator, context};
use crate::cache::Reason;
use crate::context::field;

/// CF, PF, AF, ZF, SF, OF.
pub(super) const ARITHMETIC: u64 = 0x8d5;
/// Defined bits.
const DEFINED: u64 = 0x3f_7fd5;

impl Translator {
    /// R10 = RFLAGS. RCX is overwritten, no flag is touched.
    pub(super) fn gather_flags(&mut self) {
        self.unit.distance_at_hand = false;
        self.asm.mov_rr(8, Reg::R10, Reg::RAX);
        self.asm.lahf();
        self.asm.setcc(Cond::O, Reg::RAX);
        self.asm.movzx(2, Reg::RAX, Reg::RAX);
        // RORX EAX, EAX, 8: AH's flags first, OF at bit 24.
        self.asm.raw(&[0xc4, 0xe3, 0x7b, 0xf0, 0xc0, 8]);
        self.asm.pext_rm(Reg::RCX, Reg::RAX, context(field!(flags_mask)));
        self.asm.mov_rr(8, Reg::RAX, Reg::R10);
        self.gather_system_flags();
    }

    /// R10 = RCX and the system flags.
    fn gather_system_flags(&mut self) {
        let parts = [field!(system_flags), field!(interrupts), field!(direction), field!(access)];
        for part in parts {
            self.asm.load(8, Reg::R10, context(part));
            self.asm.lea(8, Reg::RCX, Mem::at(Reg::RCX, 0).index(Reg::R10, 0));
        }
        self.asm.mov_rr(8, Reg::R10, Reg::RCX);
    }

    pub(super) fn push_flags(&mut self, index: usize, insn: &Native) {
        self.gather_flags();
        self.push_r10(index, insn);
    }

    /// POPF: what changes anything but arithmetic flags and, in the kernel, IF is the
    /// interpreter's.
    pub(super) fn pop_flags(&mut self, index: usize, insn: &Native) {
        let out = self.way_out(Reason::Interpret, self.rip_of(insn), 0);
        let place = self.stack_place(index, insn, 0, false);
        let word = self.word();
        self.asm.load(word, Reg::R10, place);
        self.check_flags(out);
        self.asm.lea(word, Reg::RSP, Mem::at(Reg::RSP, i32::from(word)));
        self.set_flags();
    }

    /// Leaves when the flags in R10 differ from those in force in more than those
    /// [`Translator::set_flags`] sets, or what is to come needs a look. RCX and the arithmetic
    /// flags are overwritten.
    ///
    /// RF is passed over: POPF clears it, and what IRET sets ends with the next instruction, for
    /// which there is no breakpoint as long as code is translated.
    pub(super) fn check_flags(&mut self, out: Label) {
        self.unit.distance_at_hand = false;
        let interrupts = Rflags::IF.bits();
        self.asm.load(8, Reg::RCX, context(field!(system_flags)));
        self.asm.alu_rm(Alu::Or, 8, Reg::RCX, context(field!(direction)));
        self.asm.alu_rm(Alu::Or, 8, Reg::RCX, context(field!(access)));
        self.asm.alu_rr(Alu::Xor, 8, Reg::RCX, Reg::R10);
        let mut others = DEFINED & !ARITHMETIC & !interrupts & !Rflags::RF.bits();
        if self.user() {
            // Level 3 changes neither, unless IOPL lets it change IF.
            others &= !Rflags::IOPL.bits();
            self.asm.test_mi(4, context(field!(system_flags)), Rflags::IOPL.bits() as i32);
            self.asm.jcc(Cond::Ne, out);
        }
        self.asm.test_ri(4, Reg::RCX, others as i32);
        self.asm.jcc(Cond::Ne, out);
        if !self.user() {
            self.check_waiting(out);
        }
    }

    /// Leaves when the flags in R10 let an event in that waits. The arithmetic flags are
    /// overwritten.
    pub(super) fn check_waiting(&mut self, out: Label) {
        let none = self.asm.label();
        self.asm.test_ri(4, Reg::R10, Rflags::IF.bits() as i32);
        self.asm.jcc(Cond::E, none);
        self.asm.alu_mi(Alu::Cmp, 4, context(field!(event_waiting)), 0);
        self.asm.jcc(Cond::Ne, out);
        self.asm.bind(none);
    }

    /// The arithmetic flags and, in the kernel, IF are R10's. RCX and R10 are overwritten.
    pub(super) fn set_flags(&mut self) {
        self.unit.distance_at_hand = false;
        if !self.user() {
            self.set_interrupt_flag();
        }
        self.set_arithmetic_flags();
    }

    /// IF is R10's. RCX and the arithmetic flags are overwritten.
    pub(super) fn set_interrupt_flag(&mut self) {
        self.asm.mov_rr(4, Reg::RCX, Reg::R10);
        self.asm.alu_ri(Alu::And, 4, Reg::RCX, Rflags::IF.bits() as i32);
        self.asm.store(8, context(field!(interrupts)), Reg::RCX);
    }

    /// The arithmetic flags are R10's. RCX is overwritten.
    pub(super) fn set_arithmetic_flags(&mut self) {
        self.asm.mov_rr(8, Reg::RCX, Reg::RAX);
        self.asm.mov_rr(4, Reg::RAX, Reg::R10);
        self.asm.shift_ri(Shift::Shl, 4, Reg::RAX, 8);
        self.asm.bt_ri(4, Reg::R10, 11);
        self.asm.setcc(Cond::B, Reg::RAX);
        // OF by an addition that overflows when it is to be set.
        self.asm.alu_ri(Alu::Add, 1, Reg::RAX, 0x7f);
        self.asm.sahf();
        self.asm.mov_rr(8, Reg::RAX, Reg::RCX);
    }

    pub(super) fn clear_interrupts(&mut self) {
        self.asm.store_imm32(8, context(field!(interrupts)), 0);
    }

    /// STI. When an event waits, its shadow is the interpreter's business; else whoever leaves
    /// before the next instruction tells of it.
    pub(super) fn set_interrupts(&mut self, insn: &Native) {
        self.unit.distance_at_hand = false;
        let out = self.way_out(Reason::Interpret, self.rip_of(insn), 0);
        let none = self.asm.label();
        self.asm.load(4, Reg::RCX, context(field!(event_waiting)));
        self.asm.jrcxz(none);
        self.asm.jmp(out);
        self.asm.bind(none);
        let (off, on) = (self.asm.label(), self.asm.label());
        self.asm.load(8, Reg::RCX, context(field!(interrupts)));
        self.asm.jrcxz(off);
        self.asm.jmp(on);
        self.asm.bind(off);
        self.asm.mov_ri(Reg::R10, self.rip_after(insn));
        self.asm.store(8, context(field!(shadow_rip)), Reg::R10);
        self.asm.store_imm32(8, context(field!(interrupts)), Rflags::IF.bits() as i32);
        self.asm.bind(on);
    }

    pub(super) fn set_direction(&mut self, down: bool) {
        let value = if down { Rflags::DF.bits() as i32 } else { 0 };
        self.asm.store_imm32(8, context(field!(direction)), value);
    }

    /// Keeps the arithmetic flags in the context, unless they are dead.
    pub(super) fn keep_flags(&mut self, index: usize) {
        if self.flags_free(index) {
            return;
        }
        self.asm.store(8, context(field!(borrowed)), Reg::RAX);
        self.asm.lahf();
        self.asm.setcc(Cond::O, Reg::RAX);
        self.asm.store(2, context(field!(kept_flags)), Reg::RAX);
        self.asm.load(8, Reg::RAX, context(field!(borrowed)));
    }

    /// Puts back what [`Translator::keep_flags`] has kept.
    pub(super) fn put_back_flags(&mut self, index: usize) {
        if self.flags_free(index) {
            return;
        }
        self.asm.store(8, context(field!(borrowed)), Reg::RAX);
        self.asm.load(2, Reg::RAX, context(field!(kept_flags)));
        self.asm.alu_ri(Alu::Add, 1, Reg::RAX, 0x7f);
        self.asm.sahf();
        self.asm.load(8, Reg::RAX, context(field!(borrowed)));
    }
}
