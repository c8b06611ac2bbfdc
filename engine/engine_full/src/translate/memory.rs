//! Memory operands.

use x86_decode::native::{Access, Native, NativeMem};
use x86_encode::{Alu, Cond, Label, Mem, Reg, Segment};
use x86_state::SegReg;

use super::form::by_stack_pointer;
use super::{Cold, GUEST_R10, GUEST_R11, HOST, Translator, context, in_context};
use crate::cache::Reason;
use crate::context::{field, stack_field};

impl Translator {
    /// The host's operand for an instruction's memory operand, checked. What the temporaries held is
    /// gone.
    pub(super) fn operand(&mut self, index: usize, insn: &Native, mem: &NativeMem) -> Mem {
        let operand = self.find_operand(index, insn, mem);
        self.let_go();
        operand
    }

    /// The same for an instruction that is copied. The guest's R10 is held still, if the address
    /// left it R10; in the context it is in any case.
    pub(super) fn find_operand(&mut self, index: usize, insn: &Native, mem: &NativeMem) -> Mem {
        self.put_back();
        let known = by_stack_pointer(insn, self.word()).and(self.form.stack[index]);
        if known.is_some() {
            return self.in_window(mem.disp);
        }
        if let Some(operand) = self.look_for(index, insn, mem) {
            return operand;
        }
        self.let_go();
        self.address(index, insn, mem);
        let write = matches!(mem.access, Access::Write | Access::ReadWrite);
        self.check(index, insn, mem.size_bytes, write, mem.aligned)
    }

    /// A place in the stack window, by its distance from RSP.
    pub(super) fn in_window(&mut self, disp: i32) -> Mem {
        if !self.unit.distance_at_hand {
            let field = std::mem::offset_of!(crate::context::StackWindow, distance);
            let field = context(stack_field(self.user(), field));
            self.asm.load(8, Reg::RCX, field);
            self.unit.distance_at_hand = true;
            self.unit.looked = None;
        }
        Mem::at(Reg::RSP, disp).index(Reg::RCX, 0)
    }

    /// R10 = linear address of a memory operand. No flag is touched.
    pub(super) fn address(&mut self, index: usize, insn: &Native, mem: &NativeMem) {
        self.effective_address(Reg::R10, mem.addr_size, insn, mem);
        let segment = match mem.seg {
            SegReg::Fs => 0,
            SegReg::Gs => 1,
            _ => return,
        };
        let base = context(field!(segment_base) + 8 * segment);
        let size = self.word();
        if self.flags_free(index) {
            self.asm.alu_rm(Alu::Add, size, Reg::R10, base);
        } else {
            self.unit.distance_at_hand = false;
            self.asm.load(8, Reg::RCX, base);
            self.asm.lea(size, Reg::R10, Mem::at(Reg::R10, 0).index(Reg::RCX, 0));
        }
    }

    /// `to` = offset of a memory operand in its segment, its low `size` bytes; R10 and RCX may be
    /// overwritten.
    pub(super) fn effective_address(&mut self, to: Reg, size: u8, insn: &Native, mem: &NativeMem) {
        if mem.rip_relative {
            let at = self.rip_after(insn).wrapping_add(mem.disp as i64 as u64);
            self.set_address(to, size, at);
            return;
        }
        let mut operand = Mem::absolute(mem.disp);
        if let Some(base) = mem.base {
            operand.base = Some(self.address_register(base, Reg::R10));
        }
        if let Some(register) = mem.index {
            // The same one twice needs one temporary; two different ones, both.
            let own = match (mem.base, register) {
                (Some(base), register) if base == register => operand.base,
                (Some(GUEST_R10 | GUEST_R11), GUEST_R10 | GUEST_R11) => {
                    self.unit.distance_at_hand = false;
                    Some(self.address_register(register, Reg::RCX))
                }
                _ => Some(self.address_register(register, Reg::R10)),
            };
            operand.index = own.map(|own| (own, mem.scale));
        }
        self.asm.lea(size, to, operand);
    }

    /// A guest register where an address can use it: `temporary`, if it lives in the context.
    fn address_register(&mut self, register: u8, temporary: Reg) -> Reg {
        if register == GUEST_R10 || register == GUEST_R11 {
            self.asm.load(8, temporary, in_context(register));
            return temporary;
        }
        HOST[usize::from(register)]
    }

    /// Looks where the access of `size` bytes at the linear address in R10 goes; leaves when that
    /// is not simply memory.
    pub(super) fn check(
        &mut self,
        index: usize,
        insn: &Native,
        size: u16,
        write: bool,
        aligned: u8,
    ) -> Mem {
        self.unit.distance_at_hand = false;
        let reason = if write { Reason::Store } else { Reason::Load };
        let rip = self.rip_of(insn);
        let retry = self.here();
        let slow = self.way_out(reason, rip, retry);
        // Ten bytes of an x87 operand are taken for sixteen: what that finds crossing is interpreted.
        let size = size.next_power_of_two();
        let free = self.flags_free(index);
        let look = self.asm.label();
        if size > 1 {
            let misaligned = self.asm.label();
            let log = size.trailing_zeros() as i32;
            if free {
                self.asm.test_ri(1, Reg::R10, i32::from(size) - 1);
                self.asm.jcc(Cond::Ne, misaligned);
            } else {
                self.asm.pext_rm(Reg::RCX, Reg::R10, context(field!(low_mask) + 8 * log));
                self.asm.jrcxz(look);
                self.asm.jmp(misaligned);
            }
            // The interpreter raises what is to be raised, and does what crosses pages.
            let crossing = self.way_out(Reason::Interpret, rip, 0);
            let cold = if aligned > 1 {
                Cold::Jump(crossing)
            } else {
                Cold::Misaligned { size, back: look, crossing }
            };
            self.cold.push((misaligned, cold));
        }
        self.asm.bind(look);
        let mask = if self.user() { 0 } else { 1 };
        self.asm.pext_rm(Reg::RCX, Reg::R10, context(field!(page_mask) + 8 * mask));
        let seg = Some(if write { Segment::Fs } else { Segment::Gs });
        self.asm.load(8, Reg::RCX, Mem { seg, ..Mem::absolute(0).index(Reg::RCX, 3) });
        if free {
            self.asm.test_rr(8, Reg::RCX, Reg::RCX);
            self.asm.jcc(Cond::E, slow);
        } else {
            let (none, there) = (self.asm.label(), self.asm.label());
            self.asm.jrcxz(none);
            self.asm.jmp_short(there);
            self.asm.bind(none);
            self.asm.jmp(slow);
            self.asm.bind(there);
        }
        Mem::at(Reg::R10, 0).index(Reg::RCX, 0)
    }

    /// Out of line: an access of `size` bytes at R10, which is misaligned, within one page or not.
    /// No flag is touched.
    pub(super) fn misaligned(&mut self, size: u16, back: Label, crossing: Label) {
        self.asm.pext_rm(Reg::RCX, Reg::R10, context(field!(offset_mask)));
        self.asm.lea(8, Reg::RCX, Mem::at(Reg::RCX, i32::from(size) - 1));
        self.asm.pext_rm(Reg::RCX, Reg::RCX, context(field!(carry_mask)));
        let inside = self.asm.label();
        self.asm.jrcxz(inside);
        self.asm.jmp(crossing);
        self.asm.bind(inside);
        self.asm.jmp(back);
    }
}
