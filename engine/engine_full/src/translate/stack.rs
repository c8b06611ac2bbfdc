//! PUSH, POP, CALL, RET, LEAVE.

use x86_decode::native::Native;
use x86_encode::{Mem, Reg};

use super::{GUEST_R10, GUEST_R11, GUEST_RCX, GUEST_RSP, HOST, Translator, context, in_context};
use crate::context::field;

impl Translator {
    /// Where what is pushed at a distance from RSP is, checked unless the window has them. R10 is
    /// overwritten when it has not.
    pub(super) fn stack_place(
        &mut self,
        index: usize,
        insn: &Native,
        disp: i32,
        write: bool,
    ) -> Mem {
        if self.form.stack[index].is_some() {
            return self.in_window(disp);
        }
        let word = self.word();
        self.asm.lea(word, Reg::R10, Mem::at(Reg::RSP, disp));
        self.check(index, insn, u16::from(word), write, 1)
    }

    fn move_stack(&mut self, by: i32) {
        let word = self.word();
        self.asm.lea(word, Reg::RSP, Mem::at(Reg::RSP, by));
    }

    /// The value of R10 is put where PUSH would put it. R10 is overwritten where the window
    /// does not have them.
    fn store_below(&mut self, index: usize, insn: &Native) {
        let word = self.word();
        if self.form.stack[index].is_some() {
            let place = self.in_window(-i32::from(word));
            self.asm.store(word, place, Reg::R10);
            return;
        }
        let pushed = context(field!(pushed));
        self.asm.store(8, pushed, Reg::R10);
        let place = self.stack_place(index, insn, -i32::from(word), true);
        self.asm.lea(8, Reg::R10, place);
        self.asm.load(8, Reg::RCX, pushed);
        self.asm.store(word, Mem::at(Reg::R10, 0), Reg::RCX);
    }

    /// PUSH of R10, which is overwritten.
    pub(super) fn push_r10(&mut self, index: usize, insn: &Native) {
        self.store_below(index, insn);
        self.move_stack(-i32::from(self.word()));
    }

    pub(super) fn push(&mut self, index: usize, insn: &Native) {
        let word = self.word();
        let below = -i32::from(word);
        if let Some(mem) = insn.mem {
            let from = self.operand(index, insn, &mem);
            self.asm.load(word, Reg::R10, from);
            self.store_below(index, insn);
        } else if !insn.opcode_reg.is_gpr() && !insn.rm_field.is_gpr() {
            let place = self.stack_place(index, insn, below, true);
            self.asm.store_imm32(word, place, insn.imm as i32);
        } else {
            let register =
                if insn.opcode_reg.is_gpr() { insn.opcode_register() } else { insn.rm() };
            if register == GUEST_R10 || register == GUEST_R11 {
                self.asm.load(8, Reg::R10, in_context(register));
                self.store_below(index, insn);
            } else {
                let place = self.stack_place(index, insn, below, true);
                self.asm.store(word, place, HOST[usize::from(register)]);
            }
        }
        self.move_stack(below);
    }

    pub(super) fn pop(&mut self, index: usize, insn: &Native) {
        let word = self.word();
        let register = if insn.opcode_reg.is_gpr() { insn.opcode_register() } else { insn.rm() };
        let place = self.stack_place(index, insn, 0, false);
        match register {
            GUEST_RSP => {
                self.asm.load(word, Reg::RSP, place);
                return;
            }
            GUEST_R10 | GUEST_R11 => {
                self.asm.load(word, Reg::R10, place);
                self.asm.store(8, in_context(register), Reg::R10);
            }
            GUEST_RCX => self.asm.load(word, Reg::R11, place),
            other => self.asm.load(word, HOST[usize::from(other)], place),
        }
        self.move_stack(i32::from(word));
    }

    /// MOV RSP, RBP; POP RBP.
    pub(super) fn leave_frame(&mut self, index: usize) {
        let insn = self.form.insns[index];
        let word = self.word();
        self.asm.lea(word, Reg::R10, Mem::at(Reg::RBP, 0));
        let place = self.check(index, &insn, u16::from(word), false, 1);
        self.asm.load(word, Reg::R10, place);
        self.asm.lea(word, Reg::RSP, Mem::at(Reg::RBP, i32::from(word)));
        self.asm.mov_rr(word, Reg::RBP, Reg::R10);
    }

    pub(super) fn call(&mut self, index: usize, insn: &Native) {
        self.push_return(index, insn);
        let target = self.target_of(insn);
        self.go(target, self.flags_free(index));
    }

    /// Pushes the address behind the instruction. R10 is overwritten.
    fn push_return(&mut self, index: usize, insn: &Native) {
        let address = self.rip_after(insn);
        match i32::try_from(address as i64) {
            Ok(imm) if !self.user() => {
                let place = self.stack_place(index, insn, -8, true);
                self.asm.store_imm32(8, place, imm);
            }
            _ => {
                let word = self.word();
                self.set_address(Reg::R10, word, address);
                self.store_below(index, insn);
            }
        }
        self.move_stack(-i32::from(self.word()));
    }

    pub(super) fn call_indirect(&mut self, index: usize, insn: &Native) {
        self.load_target(index, insn);
        self.mark_target();
        let short = !self.user() && i32::try_from(self.rip_after(insn) as i64).is_ok();
        if short && self.form.stack[index].is_some() {
            self.push_return(index, insn);
        } else {
            let target = context(field!(called));
            self.asm.store(8, target, Reg::R10);
            self.push_return(index, insn);
            self.asm.load(8, Reg::R10, target);
        }
        self.jump_to_r10();
    }

    pub(super) fn jump_indirect(&mut self, index: usize, insn: &Native) {
        self.load_target(index, insn);
        self.mark_target();
        self.jump_to_r10();
    }

    /// R10 = what an indirect CALL or JMP goes to.
    fn load_target(&mut self, index: usize, insn: &Native) {
        let word = self.word();
        if let Some(mem) = insn.mem {
            let place = self.operand(index, insn, &mem);
            self.asm.load(word, Reg::R10, place);
            return;
        }
        match insn.rm() {
            register @ (GUEST_R10 | GUEST_R11) => {
                self.asm.load(8, Reg::R10, in_context(register));
            }
            other => self.asm.mov_rr(word, Reg::R10, HOST[usize::from(other)]),
        }
    }

    pub(super) fn ret(&mut self, index: usize, insn: &Native) {
        let place = self.stack_place(index, insn, 0, false);
        let word = self.word();
        self.asm.load(word, Reg::R10, place);
        self.move_stack(i32::from(word) + insn.imm as i32);
        self.mark_target();
        self.jump_to_r10();
    }
}
