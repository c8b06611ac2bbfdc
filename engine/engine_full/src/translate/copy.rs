//! Instructions that are copied.

use x86_decode::native::{Access, Class, Encoding, File, Native};
use x86_encode::{Mem, Reg, Substitution, reencode};

use super::{GUEST_R10, GUEST_R11, GUEST_RCX, HOST, Translator, in_context};

/// Which temporaries an instruction's registers are in.
struct Places {
    gpr: [Reg; 16],
    /// Guest registers that are in a temporary instead of their own place.
    moved: [Option<(u8, Reg)>; 3],
}

/// Where the guest's R10 and R11 are while they are held.
const TEMPORARIES: [Reg; 2] = [Reg::R10, Reg::RCX];

/// What a temporary holds of the guest register that is the context's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Held {
    /// Something else.
    #[default]
    Nothing,
    /// Its value.
    Same,
    /// Its value, which the context does not have.
    Newer,
}

/// Guest registers that fields of the encoding other than the memory operand name, by bits.
fn named(insn: &Native) -> u16 {
    let mut named = 0;
    if insn.reg_field.is_gpr() {
        named |= 1 << low_of_high_byte(insn, insn.reg_field, insn.reg());
    }
    if insn.rm_field.is_gpr() && insn.mem.is_none() {
        named |= 1 << low_of_high_byte(insn, insn.rm_field, insn.rm());
    }
    if insn.opcode_reg.is_gpr() {
        named |= 1 << low_of_high_byte(insn, insn.opcode_reg, insn.opcode_register());
    }
    if insn.vvvv.is_gpr() {
        named |= 1 << insn.vvvv();
    }
    named
}

/// AH, CH, DH and BH are parts of registers 0 to 3.
fn low_of_high_byte(insn: &Native, file: File, number: u8) -> u8 {
    let high = file == File::Gpr8 && insn.rex == 0 && (4..8).contains(&number);
    if high { number - 4 } else { number }
}

fn has(set: u16, register: u8) -> bool {
    set & 1 << register != 0
}

/// The instruction needs the guest's RCX in RCX itself.
fn needs_rcx(insn: &Native) -> bool {
    has(insn.gpr_implicit, GUEST_RCX) || insn.high_byte != 0 && has(named(insn), GUEST_RCX)
}

fn is_lea(insn: &Native) -> bool {
    insn.opcode_len == 1 && insn.opcode() == 0x8d
}

/// It uses the x87 state, MMX registers included.
fn uses_x87(insn: &Native) -> bool {
    let opcode = insn.opcode();
    let mmx = insn.reg_field == File::Mmx || insn.rm_field == File::Mmx;
    match insn.opcode_len {
        1 => matches!(opcode, 0x9b | 0xd8..=0xdf),
        2 => mmx || insn.encoding == Encoding::Legacy && opcode == 0x77,
        _ => mmx,
    }
}

/// There are temporaries enough, and an encoding.
pub(super) fn is_possible(insn: &Native) -> bool {
    debug_assert_eq!(insn.class, Class::Copy);
    let named = named(insn);
    let moved = [GUEST_R10, GUEST_R11].iter().filter(|r| has(named, **r)).count();
    let rcx = usize::from(needs_rcx(insn));
    let accesses = insn.mem.is_some_and(|m| m.access != Access::None);
    let lea = insn.mem.is_some() && !accesses;
    match (accesses, insn.high_byte != 0) {
        // The address takes one, what is left is RCX.
        (true, false) => moved + rcx <= 1,
        (true, true) => moved + rcx == 0,
        (false, _) => (!lea || is_lea(insn) && insn.op_size != 2) && moved + rcx <= 2,
    }
}

/// It can neither fault nor leave, and needs no temporary for anything but R10 and R11.
fn stays_inside(insn: &Native) -> bool {
    let divides = insn.opcode_len == 1
        && matches!(insn.opcode(), 0xf6 | 0xf7)
        && insn.modrm.is_some_and(|modrm| modrm >> 3 & 7 >= 6);
    insn.mem.is_none() && !insn.vector && !divides && !needs_rcx(insn)
}

/// It needs neither the guest's R11 nor RCX in a temporary, nor the x87 state unless that is at hand.
pub(super) fn is_plain(insn: &Native, x87_at_hand: bool) -> bool {
    let used = insn.gpr_read | insn.gpr_written | named(insn);
    !has(used, GUEST_R11)
        && !needs_rcx(insn)
        && insn.high_byte == 0
        && (x87_at_hand || !uses_x87(insn))
}

impl Translator {
    /// Copies an instruction that stays inside: what it leaves of the guest's R10 and R11 in the
    /// temporaries is for the next one to find, because a way through memory takes five times as
    /// long.
    fn copy_inside(&mut self, insn: &Native) -> bool {
        let named = named(insn);
        let mut gpr = HOST;
        for (slot, register) in [GUEST_R10, GUEST_R11].into_iter().enumerate() {
            if !has(named, register) {
                continue;
            }
            let temporary = TEMPORARIES[slot];
            gpr[usize::from(register)] = temporary;
            if temporary == Reg::RCX {
                self.unit.distance_at_hand = false;
                self.unit.looked = None;
            }
            if self.unit.held[slot] == Held::Nothing {
                if has(insn.gpr_read, register) {
                    self.asm.load(8, temporary, in_context(register));
                }
                self.unit.held[slot] = Held::Same;
            }
        }
        if reencode(&mut self.asm, insn, &Substitution { gpr, mem: None }).is_err() {
            return false;
        }
        for (slot, register) in [GUEST_R10, GUEST_R11].into_iter().enumerate() {
            if has(named, register) && has(insn.gpr_written, register) {
                self.unit.held[slot] = Held::Newer;
            }
        }
        true
    }

    /// What the temporaries hold of the guest goes where it lives.
    pub(super) fn put_back(&mut self) {
        for (slot, register) in [GUEST_R10, GUEST_R11].into_iter().enumerate() {
            if self.unit.held[slot] == Held::Newer {
                self.asm.store(8, in_context(register), TEMPORARIES[slot]);
                self.unit.held[slot] = Held::Same;
            }
        }
    }

    /// The temporaries are for other use, too.
    pub(super) fn let_go(&mut self) {
        self.unit.looked = None;
        for (slot, register) in [GUEST_R10, GUEST_R11].into_iter().enumerate() {
            if std::mem::take(&mut self.unit.held[slot]) == Held::Newer {
                self.asm.store(8, in_context(register), TEMPORARIES[slot]);
            }
        }
    }

    /// Copies an instruction; false when that is not possible after all.
    pub(super) fn copy(&mut self, index: usize, insn: &Native) -> bool {
        let copied = if stays_inside(insn) {
            self.copy_inside(insn)
        } else if is_plain(insn, self.unit.x87_at_hand) {
            self.copy_plain(index, insn)
        } else {
            self.copy_any(index, insn)
        };
        self.forget_looked(insn.gpr_written);
        copied
    }

    /// Copies an instruction of which at most R10 is not in its place.
    fn copy_plain(&mut self, index: usize, insn: &Native) -> bool {
        let mem = match insn.mem {
            Some(mem) if mem.access == Access::None => return self.copy_plain_address(insn, &mem),
            Some(mem) => {
                // RCX is what leads to memory from here on.
                self.put_back();
                self.unit.held[1] = Held::Nothing;
                Some(self.find_operand(index, insn, &mem))
            }
            None => {
                self.put_back();
                None
            }
        };
        let named = named(insn);
        if has(named, GUEST_R10) {
            if mem
                .is_some_and(|mem| mem.base == Some(Reg::R10) && self.unit.held[0] == Held::Nothing)
            {
                return self.copy_with(insn, named, mem);
            }
            if has(insn.gpr_read, GUEST_R10) {
                self.hold_r10();
            }
        }
        if reencode(&mut self.asm, insn, &Substitution { gpr: HOST, mem }).is_err() {
            return false;
        }
        if has(named, GUEST_R10) {
            self.unit.held[0] =
                if has(insn.gpr_written, GUEST_R10) { Held::Newer } else { Held::Same };
        }
        true
    }

    /// Copies an instruction whose operand uses R10 for an address that is not in RCX.
    fn copy_with(&mut self, insn: &Native, named: u16, mem: Option<Mem>) -> bool {
        self.let_go();
        let operand = mem.map(|at| self.collapse(at, false, true));
        let places = self.places(insn, named, false, true);
        self.load_moved(insn, &places);
        let to = Substitution { gpr: places.gpr, mem: operand };
        if reencode(&mut self.asm, insn, &to).is_err() {
            return false;
        }
        self.store_moved(insn, &places);
        true
    }

    /// LEA that does not use R11.
    fn copy_plain_address(&mut self, insn: &Native, mem: &x86_decode::native::NativeMem) -> bool {
        let to = HOST[usize::from(insn.reg())];
        if (1 << GUEST_R10) & insn.gpr_read != 0 && !mem.rip_relative {
            self.hold_r10();
        }
        let size = insn.op_size.min(mem.addr_size);
        if mem.rip_relative {
            self.effective_address(to, size, insn, mem);
        } else {
            let operand = Mem {
                seg: None,
                base: mem.base.map(|r| HOST[usize::from(r)]),
                index: mem.index.map(|r| (HOST[usize::from(r)], mem.scale)),
                disp: mem.disp,
            };
            self.asm.lea(size, to, operand);
        }
        if insn.reg() == GUEST_R10 {
            self.unit.held[0] = Held::Newer;
        }
        true
    }

    /// Copies any other.
    fn copy_any(&mut self, index: usize, insn: &Native) -> bool {
        self.let_go();
        if uses_x87(insn) {
            self.need_x87(insn);
        }
        if let Some(mem) = insn.mem.filter(|m| m.access == Access::None) {
            return self.copy_address(insn, &mem);
        }
        let named = named(insn);
        let wants_rcx = needs_rcx(insn);
        let moves = has(named, GUEST_R10) || has(named, GUEST_R11);
        let mut operand = None;
        if let Some(mem) = insn.mem {
            let at = self.operand(index, insn, &mem);
            operand = Some(self.collapse(at, insn.high_byte != 0, wants_rcx || moves));
        }
        let places = self.places(insn, named, wants_rcx, operand.is_some());
        self.load_moved(insn, &places);
        let to = Substitution { gpr: places.gpr, mem: operand };
        if reencode(&mut self.asm, insn, &to).is_err() {
            return false;
        }
        self.store_moved(insn, &places);
        true
    }

    /// LEA.
    fn copy_address(&mut self, insn: &Native, mem: &x86_decode::native::NativeMem) -> bool {
        let to = insn.reg();
        self.unit.distance_at_hand = false;
        let own = if to == GUEST_R10 || to == GUEST_R11 { Reg::R10 } else { HOST[usize::from(to)] };
        self.effective_address(own, insn.op_size.min(mem.addr_size), insn, mem);
        if own == Reg::R10 {
            self.asm.store(8, in_context(to), Reg::R10);
        }
        true
    }

    /// Frees a temporary that an operand uses, if need be.
    fn collapse(&mut self, at: Mem, into_rcx: bool, into_r10: bool) -> Mem {
        let to = if into_rcx {
            Reg::RCX
        } else if into_r10 {
            Reg::R10
        } else {
            return at;
        };
        self.unit.distance_at_hand = false;
        self.unit.looked = None;
        self.asm.lea(8, to, at);
        Mem::at(to, 0)
    }

    fn places(&mut self, insn: &Native, named: u16, wants_rcx: bool, has_mem: bool) -> Places {
        let mut places = Places { gpr: HOST, moved: [None; 3] };
        let mut free = [(!wants_rcx).then_some(Reg::RCX), (!has_mem).then_some(Reg::R10)];
        if wants_rcx {
            places.gpr[usize::from(GUEST_RCX)] = Reg::RCX;
            places.moved[0] = Some((GUEST_RCX, Reg::RCX));
        }
        for (slot, register) in [GUEST_R10, GUEST_R11].into_iter().enumerate() {
            if has(named, register)
                && let Some(temporary) = free.iter_mut().rev().find_map(Option::take)
            {
                places.gpr[usize::from(register)] = temporary;
                places.moved[slot + 1] = Some((register, temporary));
            }
        }
        if insn.high_byte != 0 || places.moved.iter().any(Option::is_some) {
            self.unit.distance_at_hand = false;
        }
        places
    }

    fn load_moved(&mut self, insn: &Native, places: &Places) {
        for (register, temporary) in places.moved.into_iter().flatten() {
            if !has(insn.gpr_read, register) {
                continue;
            }
            if register == GUEST_RCX {
                self.asm.mov_rr(8, temporary, Reg::R11);
            } else {
                self.asm.load(8, temporary, in_context(register));
            }
        }
    }

    fn store_moved(&mut self, insn: &Native, places: &Places) {
        for (register, temporary) in places.moved.into_iter().flatten() {
            if !has(insn.gpr_written, register) {
                continue;
            }
            if register == GUEST_RCX {
                self.asm.mov_rr(8, Reg::R11, temporary);
            } else {
                self.asm.store(8, in_context(register), temporary);
            }
        }
    }

    /// The x87 state is in the CPU from here on.
    fn need_x87(&mut self, insn: &Native) {
        use crate::cache::Reason;
        use crate::context::field;
        if std::mem::replace(&mut self.unit.x87_at_hand, true) {
            return;
        }
        self.unit.distance_at_hand = false;
        self.unit.looked = None;
        self.asm.load(8, Reg::RCX, super::context(field!(x87_at_hand)));
        let (absent, there) = (self.asm.label(), self.asm.label());
        let retry = self.here();
        let out = self.way_out(Reason::X87, self.rip_of(insn), retry);
        self.asm.jrcxz(absent);
        self.asm.jmp_short(there);
        self.asm.bind(absent);
        self.asm.jmp(out);
        self.asm.bind(there);
    }
}
