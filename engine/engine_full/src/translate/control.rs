//! Ways from one unit to the next.

use x86_decode::native::Native;
use x86_encode::{Alu, Cond, Label, Mem, Reg};

use super::{Translator, context};
use crate::cache::{Mode, Reason};
use crate::context::field;
use crate::views::USER_JUMPS;

impl Translator {
    /// Guest address a near branch goes to.
    pub(super) fn target_of(&self, insn: &Native) -> u64 {
        self.rip_after(insn).wrapping_add(insn.imm as u64)
    }

    /// Goes on at a guest address. `free`: the flags are dead there.
    pub(super) fn go(&mut self, rip: u64, free: bool) {
        if self.is_backward(rip) {
            let out = self.way_out(Reason::Go, rip, 0);
            self.poll(free, out);
        }
        if !self.is_linkable(rip) {
            // Backward ones have looked, and no loop is without one or a jump by a register.
            self.set_address(Reg::R10, 8, rip);
            self.jump_at_once(self.own_jumps());
        } else if rip == self.unit.rip && !self.loops_inside() {
            self.asm.jmp(self.unit.body);
        } else {
            self.asm.align_for_rel32(1);
            let at = self.here() + 1;
            let out = self.way_out(Reason::Link, rip, at);
            self.asm.jmp(out);
        }
    }

    /// A jump back to the unit's beginning is linked as to others: the look at its frame is passed over
    /// then, or it leads to the unit that has a look of its own.
    fn loops_inside(&self) -> bool {
        let known = self.unit.frame.zip(self.form.own_frame());
        self.unit.mode.contains(Mode::NO_WINDOW) || known.is_some_and(|(known, own)| known.has(own))
    }

    /// Leaves when the vCPU was kicked. RCX is overwritten.
    pub(super) fn poll(&mut self, free: bool, out: Label) {
        let mask = context(field!(jump_mask));
        if free {
            self.asm.alu_mi(Alu::Cmp, 4, mask, 0);
            self.asm.jcc(Cond::E, out);
            return;
        }
        self.unit.distance_at_hand = false;
        self.asm.load(8, Reg::RCX, mask);
        self.need_rcx(out);
    }

    /// Code there may come back here without a poll elsewhere.
    fn is_backward(&self, rip: u64) -> bool {
        // The last page's end is address zero.
        rip.wrapping_sub(self.unit.rip) as i64 <= self.form.size() as i64
    }

    /// The translation there stays the one there as long as this one stays.
    fn is_linkable(&self, rip: u64) -> bool {
        let own = Mode::USER | Mode::LOCAL;
        rip >> 12 == self.unit.rip >> 12
            || rip >> 47 == self.unit.rip >> 47 && !self.unit.mode.intersects(own)
    }

    /// Jcc.
    pub(super) fn jump_if(&mut self, index: usize, insn: &Native) {
        let target = self.target_of(insn);
        let condition = Cond::new(insn.condition);
        if self.is_linkable(target) && !self.is_backward(target) {
            self.asm.align_for_rel32(2);
            let at = self.here() + 2;
            let out = self.way_out(Reason::Link, target, at);
            self.asm.jcc(condition, out);
            return;
        }
        let over = self.asm.label();
        self.asm.jcc(condition.not(), over);
        let before = self.unit.distance_at_hand;
        self.go(target, self.form.taken[index] == 0);
        self.unit.distance_at_hand = before;
        self.asm.bind(over);
    }

    /// LOOP and JRCXZ.
    pub(super) fn jump_by_rcx(&mut self, index: usize, insn: &Native) {
        self.unit.distance_at_hand = false;
        let (is_loop, word) = (insn.opcode() == 0xe2, self.word());
        if is_loop {
            self.asm.lea(word, Reg::R11, Mem::at(Reg::R11, -1));
        }
        let (zero, over) = (self.asm.label(), self.asm.label());
        self.asm.mov_rr(word, Reg::RCX, Reg::R11);
        self.asm.jrcxz(zero);
        if is_loop {
            self.go(self.target_of(insn), self.form.taken[index] == 0);
            self.asm.bind(zero);
        } else {
            self.asm.jmp(over);
            self.asm.bind(zero);
            self.go(self.target_of(insn), self.form.taken[index] == 0);
        }
        self.asm.bind(over);
        self.unit.distance_at_hand = false;
    }

    /// What was loaded into R10 for a jump becomes the address the jump is found by. No flag is touched.
    pub(super) fn mark_target(&mut self) {
        if self.compat() {
            // Less 2^32: see [`Mode::jump_address`].
            self.asm.lea(8, Reg::R10, Mem::at(Reg::R10, i32::MIN));
            self.asm.lea(8, Reg::R10, Mem::at(Reg::R10, i32::MIN));
        }
    }

    /// Goes on at the guest address in R10, by the jumps known. No flag is touched.
    pub(super) fn jump_to_r10(&mut self) {
        self.jump_through(self.own_jumps());
    }

    fn own_jumps(&self) -> i32 {
        if self.user() { USER_JUMPS } else { field!(jumps) }
    }

    /// The same, by the jumps of this table. Whoever was kicked finds a miss there, and leaves.
    ///
    /// PEXT rcx, r10, [mask]; JMP [table + rcx * 8]. Units rely on what is left in RCX.
    pub(super) fn jump_through(&mut self, table: i32) {
        self.unit.distance_at_hand = false;
        self.asm.pext_rm(Reg::RCX, Reg::R10, context(field!(jump_mask)));
        self.asm.jmp_m(Mem::gs(table).index(Reg::RCX, 3));
    }

    /// The same without a look whether the vCPU was kicked.
    fn jump_at_once(&mut self, table: i32) {
        self.unit.distance_at_hand = false;
        self.asm.movzx(2, Reg::RCX, Reg::R10);
        self.asm.jmp_m(Mem::gs(table).index(Reg::RCX, 3));
    }
}
