//! STOS, MOVS, LODS, and the first two repeated.
//!
//! A repeated one is done by the host's own, for as much as lies in one page of source and
//! destination; between two such pieces interrupts get their chance. Its registers hold host
//! addresses only where nothing can fault: each page is touched before.

use x86_decode::native::Native;
use x86_encode::{Alu, Cond, Mem, Reg, Shift};
use x86_state::SegReg;

use super::{Cold, Translator, context};
use crate::cache::Reason;
use crate::context::field;

/// What a string instruction does, apart from its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Move {
    Store,
    Copy,
    Load,
}

fn what(insn: &Native) -> Option<Move> {
    match insn.opcode() {
        0xaa | 0xab => Some(Move::Store),
        0xa4 | 0xa5 => Some(Move::Copy),
        0xac | 0xad if insn.rep == 0 => Some(Move::Load),
        _ => None,
    }
}

/// SCAS and CMPS are the interpreter's, as is what is relative to FS or GS.
pub(super) fn is_possible(insn: &Native, word: u8) -> bool {
    let own_segment = insn.seg.is_none_or(|seg| (seg as u8) < 4);
    // What 32-bit code repeats is the interpreter's, too, which does whole pages of it at once.
    let one = insn.rep == 0 && insn.seg != Some(SegReg::Cs);
    insn.addr_size == word
        && own_segment
        && !insn.lock
        && what(insn).is_some()
        && (word == 8 || one)
}

/// Bytes of an element.
fn element(insn: &Native) -> u8 {
    match (insn.opcode() & 1, insn.rex & 8, insn.op66) {
        (0, ..) => 1,
        (_, 8, _) => 8,
        (_, _, true) => 2,
        _ => 4,
    }
}

impl Translator {
    pub(super) fn string(&mut self, index: usize, insn: &Native) {
        let Some(what) = what(insn) else { return };
        self.unit.distance_at_hand = false;
        if insn.rep != 0 {
            self.repeated(index, insn, what);
            return;
        }
        self.check_direction(insn);
        self.once(index, insn, what, element(insn));
        self.unit.distance_at_hand = false;
    }

    /// Leaves when DF is set.
    fn check_direction(&mut self, insn: &Native) {
        let out = self.way_out(Reason::Interpret, self.rip_of(insn), 0);
        let up = self.asm.label();
        self.asm.load(8, Reg::RCX, context(field!(direction)));
        self.asm.jrcxz(up);
        self.asm.jmp(out);
        self.asm.bind(up);
    }

    fn once(&mut self, index: usize, insn: &Native, what: Move, size: u8) {
        let (bytes, word) = (u16::from(size), self.word());
        if what != Move::Store {
            self.asm.mov_rr(word, Reg::R10, Reg::RSI);
            let from = self.check(index, insn, bytes, false, 1);
            self.asm.load(size, Reg::R10, from);
        }
        match what {
            Move::Load if size == 4 => self.asm.mov_rr(4, Reg::RAX, Reg::R10),
            Move::Load => self.asm.mov_rr(size, Reg::RAX, Reg::R10),
            Move::Copy => {
                let kept = context(field!(pushed));
                self.asm.store(8, kept, Reg::R10);
                self.asm.mov_rr(word, Reg::R10, Reg::RDI);
                let to = self.check(index, insn, bytes, true, 1);
                self.asm.lea(8, Reg::R10, to);
                self.asm.load(8, Reg::RCX, kept);
                self.asm.store(size, Mem::at(Reg::R10, 0), Reg::RCX);
            }
            Move::Store => {
                self.asm.mov_rr(word, Reg::R10, Reg::RDI);
                let to = self.check(index, insn, bytes, true, 1);
                self.asm.store(size, to, Reg::RAX);
            }
        }
        let step = i32::from(size);
        if what != Move::Store {
            self.asm.lea(word, Reg::RSI, Mem::at(Reg::RSI, step));
        }
        if what != Move::Load {
            self.asm.lea(word, Reg::RDI, Mem::at(Reg::RDI, step));
        }
    }

    /// `kept` = distance to the page of the linear address in R10, which is touched: an address
    /// that is not canonical faults here, where registers are the guest's.
    fn find_page(&mut self, index: usize, insn: &Native, write: bool, kept: Mem) {
        let place = self.check(index, insn, 1, write, 1);
        self.asm.store(8, kept, Reg::RCX);
        self.asm.load(1, Reg::RCX, place);
    }

    fn repeated(&mut self, index: usize, insn: &Native, what: Move) {
        let size = element(insn);
        let log = size.trailing_zeros() as u8;
        let (to, from) = (context(field!(pushed)), context(field!(called)));
        let (done, top) = (self.asm.label(), self.asm.label_here());
        self.asm.mov_rr(8, Reg::RCX, Reg::R11);
        let some = self.asm.label();
        let none = self.asm.label();
        self.asm.jrcxz(none);
        self.asm.jmp_short(some);
        self.asm.bind(none);
        self.asm.jmp(done);
        self.asm.bind(some);
        self.check_direction(insn);
        if what == Move::Copy {
            self.asm.mov_rr(8, Reg::R10, Reg::RSI);
            self.find_page(index, insn, false, from);
        }
        self.asm.mov_rr(8, Reg::R10, Reg::RDI);
        self.find_page(index, insn, true, to);
        self.keep_flags(index);
        self.count_piece(index, insn, what, log);
        if what == Move::Copy {
            self.asm.alu_rm(Alu::Add, 8, Reg::RSI, from);
        }
        self.asm.alu_rm(Alu::Add, 8, Reg::RDI, to);
        self.host_string(insn, size);
        if what == Move::Copy {
            self.asm.alu_rm(Alu::Sub, 8, Reg::RSI, from);
        }
        self.asm.alu_rm(Alu::Sub, 8, Reg::RDI, to);
        self.asm.mov_rr(8, Reg::RCX, Reg::RDI);
        self.asm.alu_rr(Alu::Sub, 8, Reg::RCX, Reg::R10);
        self.asm.shift_ri(Shift::Shr, 8, Reg::RCX, log);
        self.asm.alu_rr(Alu::Sub, 8, Reg::R11, Reg::RCX);
        self.put_back_flags(index);
        // Only what has iterations left may be begun again.
        self.asm.mov_rr(8, Reg::RCX, Reg::R11);
        self.asm.jrcxz(done);
        let out = self.way_out(Reason::Go, self.rip_of(insn), 0);
        self.poll(self.flags_free(index), out);
        self.asm.jmp(top);
        self.asm.bind(done);
    }

    /// RCX = how many elements are done at once; leaves when the first lies in two pages. R10 is
    /// RDI.
    fn count_piece(&mut self, index: usize, insn: &Native, what: Move, log: u8) {
        self.asm.mov_rr(4, Reg::RCX, Reg::R10);
        self.asm.alu_ri(Alu::And, 4, Reg::RCX, 0xfff);
        if what == Move::Copy {
            self.asm.mov_rr(4, Reg::R10, Reg::RSI);
            self.asm.alu_ri(Alu::And, 4, Reg::R10, 0xfff);
            self.asm.alu_rr(Alu::Cmp, 4, Reg::RCX, Reg::R10);
            self.asm.cmov_rr(Cond::B, 4, Reg::RCX, Reg::R10);
            self.asm.mov_rr(8, Reg::R10, Reg::RDI);
        }
        self.asm.neg(4, Reg::RCX);
        self.asm.alu_ri(Alu::Add, 4, Reg::RCX, 0x1000);
        if log > 0 {
            let crossing = self.asm.label();
            self.asm.shift_ri(Shift::Shr, 4, Reg::RCX, log);
            self.asm.jcc(Cond::E, crossing);
            let out = self.way_out(Reason::Interpret, self.rip_of(insn), 0);
            self.cold.push((crossing, Cold::PutBackFlags { index, out }));
        }
        self.asm.alu_rr(Alu::Cmp, 8, Reg::R11, Reg::RCX);
        self.asm.cmov_rr(Cond::B, 8, Reg::RCX, Reg::R11);
    }

    /// The host's REP MOVS or REP STOS.
    fn host_string(&mut self, insn: &Native, size: u8) {
        if size == 2 {
            self.asm.raw(&[0x66]);
        }
        self.asm.raw(&[0xf3]);
        if size == 8 {
            self.asm.raw(&[0x48]);
        }
        self.asm.raw(&[insn.opcode()]);
    }
}
