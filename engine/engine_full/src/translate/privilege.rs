//! From one privilege level to the other: SYSCALL, SYSRET, IRET, and what goes with them.
//!
//! The context has what the registers of the system would load, derived when the registers were
//! given. What is not the usual is the interpreter's: see [`crate::transition`].

use x86_decode::native::Native;
use x86_encode::{Alu, Cond, Label, Mem, Reg, Shift};
use x86_state::SegReg;
use x86_state::bits::Rflags;

use super::flags::ARITHMETIC;
use super::{GUEST_R10, GUEST_R11, HOST, Translator, context, in_context};
use crate::cache::Reason;
use crate::context::field;
use crate::transition::{TO_KERNEL, TO_USER};
use crate::views::USER_JUMPS;

/// A frame of IRET in 64-bit code: RIP, CS, RFLAGS, RSP, SS.
const FRAME_SIZE: i32 = 40;
/// What SYSRET may find in R11.
const SYSRET_FLAGS: u64 = ARITHMETIC | 0x202 | Rflags::ID.bits();

impl Translator {
    pub(super) fn interpret(&mut self, insn: &Native) -> Label {
        self.unit.distance_at_hand = false;
        self.way_out(Reason::Interpret, self.rip_of(insn), 0)
    }

    /// Leaves when RCX is zero; no flag is touched.
    pub(super) fn need_rcx(&mut self, out: Label) {
        let (zero, there) = (self.asm.label(), self.asm.label());
        self.asm.jrcxz(zero);
        self.asm.jmp_short(there);
        self.asm.bind(zero);
        self.asm.jmp(out);
        self.asm.bind(there);
    }

    /// What addresses mean is another view's business from here on. RCX is overwritten.
    fn switch_view(&mut self, bases: i32) {
        self.asm.load(8, Reg::RCX, context(bases + 8));
        self.asm.wrfsbase(Reg::RCX);
        self.asm.load(8, Reg::RCX, context(bases));
        self.asm.wrgsbase(Reg::RCX);
    }

    /// CS and SS are these, and the privilege level is theirs. RCX is overwritten, no flag is
    /// touched.
    fn note_transition(&mut self, to: i32, selectors: i32) {
        for (i, register) in [SegReg::Cs, SegReg::Ss].into_iter().enumerate() {
            self.asm.load(8, Reg::RCX, context(selectors + 8 * i as i32));
            self.asm.store(8, context(field!(selectors) + 8 * register as i32), Reg::RCX);
        }
        self.asm.store_imm32(8, context(field!(transition)), to);
    }

    /// CLAC and STAC.
    pub(super) fn set_access(&mut self, on: bool) {
        self.unit.distance_at_hand = false;
        let value = if on { Rflags::AC.bits() as i32 } else { 0 };
        self.asm.store_imm32(8, context(field!(access)), value);
        self.switch_view(if on { field!(space_bases) } else { field!(kernel_bases) });
    }

    pub(super) fn swap_gs(&mut self) {
        self.unit.distance_at_hand = false;
        let (own, other) = (field!(segment_base) + 8, field!(kernel_gs_base));
        self.asm.load(8, Reg::RCX, context(own));
        self.asm.load(8, Reg::R10, context(other));
        self.asm.store(8, context(own), Reg::R10);
        self.asm.store(8, context(other), Reg::RCX);
    }

    /// RDFSBASE and RDGSBASE.
    pub(super) fn read_base(&mut self, insn: &Native, gs: bool) {
        let out = self.interpret(insn);
        self.asm.load(8, Reg::RCX, context(field!(base_instructions)));
        self.need_rcx(out);
        let base = context(field!(segment_base) + 8 * i32::from(gs));
        self.asm.load(insn.op_size, Reg::RCX, base);
        self.set_register(insn.rm(), Reg::RCX);
    }

    /// WRFSBASE and WRGSBASE: an address that is not canonical is the interpreter's.
    pub(super) fn write_base(&mut self, insn: &Native, gs: bool) {
        let out = self.interpret(insn);
        self.asm.load(8, Reg::RCX, context(field!(base_instructions)));
        self.need_rcx(out);
        match insn.rm() {
            from @ (GUEST_R10 | GUEST_R11) => {
                self.asm.load(insn.op_size, Reg::R10, in_context(from));
            }
            from => self.asm.mov_rr(insn.op_size, Reg::R10, HOST[usize::from(from)]),
        }
        let fine = self.asm.label();
        self.asm.mov_ri(Reg::RCX, 47);
        self.asm.shiftx(Shift::Sar, 8, Reg::RCX, Reg::R10, Reg::RCX);
        self.asm.jrcxz(fine);
        self.asm.lea(8, Reg::RCX, Mem::at(Reg::RCX, 1));
        self.asm.jrcxz(fine);
        self.asm.jmp(out);
        self.asm.bind(fine);
        let base = context(field!(segment_base) + 8 * i32::from(gs));
        self.asm.store(8, base, Reg::R10);
    }

    /// MOV from CR0, CR2, CR3, CR4.
    pub(super) fn read_control(&mut self, insn: &Native) {
        self.unit.distance_at_hand = false;
        let value = context(field!(control) + 8 * i32::from(insn.reg()));
        self.asm.load(8, Reg::RCX, value);
        self.set_register(insn.rm(), Reg::RCX);
    }

    fn set_register(&mut self, to: u8, from: Reg) {
        match to {
            GUEST_R10 | GUEST_R11 => self.asm.store(8, in_context(to), from),
            to => self.asm.mov_rr(8, HOST[usize::from(to)], from),
        }
    }

    /// SYSCALL of user code. IA32_FMASK clears the arithmetic flags, IF, DF and AC, or the context
    /// has no target.
    pub(super) fn syscall(&mut self, insn: &Native) {
        let out = self.interpret(insn);
        self.asm.load(8, Reg::RCX, context(field!(syscall_target)));
        self.need_rcx(out);
        self.gather_flags();
        self.asm.store(8, in_context(GUEST_R11), Reg::R10);
        self.set_address(Reg::R11, 8, self.rip_after(insn));
        self.asm.load(8, Reg::RCX, context(field!(system_flags)));
        self.asm.alu_rm(Alu::And, 8, Reg::RCX, context(field!(syscall_mask)));
        self.asm.store(8, context(field!(system_flags)), Reg::RCX);
        for part in [field!(interrupts), field!(direction), field!(access)] {
            self.asm.store_imm32(8, context(part), 0);
        }
        self.note_transition(TO_KERNEL, field!(syscall_selectors));
        self.switch_view(field!(kernel_bases));
        // One plus zero has none of the arithmetic flags.
        self.asm.mov_ri(Reg::RCX, 1);
        self.asm.alu_ri(Alu::Add, 4, Reg::RCX, 0);
        self.asm.load(8, Reg::R10, context(field!(syscall_target)));
        self.jump_through(field!(jumps));
    }

    /// SYSRET to 64-bit code.
    pub(super) fn sysret(&mut self, insn: &Native) {
        let out = self.interpret(insn);
        self.asm.load(8, Reg::RCX, context(field!(syscall_target)));
        self.need_rcx(out);
        self.asm.mov_rr(8, Reg::RCX, Reg::R11);
        self.asm.shift_ri(Shift::Shr, 8, Reg::RCX, 47);
        self.asm.jcc(Cond::Ne, out);
        self.asm.load(8, Reg::R10, in_context(GUEST_R11));
        self.asm.test_ri(8, Reg::R10, !SYSRET_FLAGS as i32);
        self.asm.jcc(Cond::Ne, out);
        self.check_waiting(out);
        self.set_interrupt_flag();
        self.asm.mov_rr(4, Reg::RCX, Reg::R10);
        self.asm.alu_ri(Alu::And, 4, Reg::RCX, Rflags::ID.bits() as i32);
        self.asm.store(8, context(field!(system_flags)), Reg::RCX);
        for part in [field!(direction), field!(access)] {
            self.asm.store_imm32(8, context(part), 0);
        }
        self.set_arithmetic_flags();
        self.note_transition(TO_USER, field!(sysret_selectors));
        self.switch_view(field!(space_bases));
        self.asm.mov_rr(8, Reg::R10, Reg::R11);
        self.jump_through(USER_JUMPS);
    }

    /// IRET of the kernel to 64-bit code of its own or of the user, with the selectors there are
    /// as a rule.
    pub(super) fn iret(&mut self, index: usize, insn: &Native) {
        let out = self.interpret(insn);
        self.asm.alu_mi(Alu::Cmp, 4, context(field!(may_return)), 0);
        self.asm.jcc(Cond::E, out);
        self.asm.mov_rr(4, Reg::RCX, Reg::RSP);
        self.asm.alu_ri(Alu::And, 4, Reg::RCX, 0xfff);
        self.asm.alu_ri(Alu::Cmp, 4, Reg::RCX, 0x1000 - FRAME_SIZE);
        self.asm.jcc(Cond::A, out);
        self.asm.mov_rr(8, Reg::R10, Reg::RSP);
        let frame = self.check(index, insn, 1, false, 1);
        self.asm.lea(8, Reg::R10, frame);
        self.asm.store(8, context(field!(called)), Reg::R10);
        self.asm.load(2, Reg::RCX, Mem::at(Reg::R10, 8));
        let to_user = self.asm.label();
        self.asm.alu_rm(Alu::Cmp, 8, Reg::RCX, context(field!(sysret_selectors)));
        self.asm.jcc(Cond::E, to_user);
        self.asm.alu_rm(Alu::Cmp, 8, Reg::RCX, context(field!(return_selectors)));
        self.asm.jcc(Cond::Ne, out);
        self.return_to(index, insn, false, out);
        self.asm.bind(to_user);
        self.asm.alu_mi(Alu::Cmp, 4, context(field!(may_return_outward)), 0);
        self.asm.jcc(Cond::E, out);
        self.return_to(index, insn, true, out);
    }

    /// CS is the one expected; R10 is the frame's host address.
    fn return_to(&mut self, index: usize, insn: &Native, user: bool, out: Label) {
        let (selectors, descriptors, expected) = if user {
            (field!(sysret_selectors), field!(user_descriptors), field!(user_flat))
        } else {
            (field!(return_selectors), field!(kernel_descriptors), field!(kernel_flat))
        };
        self.asm.load(2, Reg::RCX, Mem::at(Reg::R10, 32));
        let fine = self.asm.label();
        self.asm.alu_rm(Alu::Cmp, 8, Reg::RCX, context(selectors + 8));
        if !user {
            // A null SS is the kernel's good right, and Linux's habit.
            self.asm.jcc(Cond::E, fine);
            self.asm.test_rr(4, Reg::RCX, Reg::RCX);
        }
        self.asm.jcc(Cond::Ne, out);
        self.asm.bind(fine);
        self.asm.load(8, Reg::RCX, Mem::at(Reg::R10, 0));
        self.asm.shift_ri(Shift::Sar, 8, Reg::RCX, 47);
        self.asm.alu_ri(Alu::Cmp, 8, Reg::RCX, if user { 0 } else { -1 });
        self.asm.jcc(Cond::Ne, out);
        self.asm.load(8, Reg::R10, context(descriptors));
        self.asm.test_rr(8, Reg::R10, Reg::R10);
        self.asm.jcc(Cond::E, out);
        let pair = self.check(index, insn, 8, false, 1);
        self.asm.lea(8, Reg::R10, pair);
        for i in [0, 8] {
            self.asm.load(8, Reg::RCX, context(expected + i));
            self.asm.alu_rm(Alu::Cmp, 8, Reg::RCX, Mem::at(Reg::R10, i));
            self.asm.jcc(Cond::Ne, out);
        }
        self.asm.load(8, Reg::R10, context(field!(called)));
        self.asm.load(8, Reg::R10, Mem::at(Reg::R10, 16));
        if user {
            self.asm.test_ri(4, Reg::R10, Rflags::AC.bits() as i32);
            self.asm.jcc(Cond::Ne, out);
        }
        self.check_flags(out);
        self.set_flags();
        self.note_transition(if user { TO_USER } else { TO_KERNEL }, selectors);
        self.asm.load(8, Reg::R10, context(field!(called)));
        self.asm.load(2, Reg::RCX, Mem::at(Reg::R10, 32));
        self.asm.store(8, context(field!(selectors) + 8 * SegReg::Ss as i32), Reg::RCX);
        self.asm.load(8, Reg::RSP, Mem::at(Reg::R10, 24));
        self.asm.load(8, Reg::R10, Mem::at(Reg::R10, 0));
        if user {
            self.switch_view(field!(space_bases));
        }
        self.jump_through(if user { USER_JUMPS } else { field!(jumps) });
    }
}
