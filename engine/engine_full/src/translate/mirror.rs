//! Memory of user code whose address space has a mirror ([`crate::views::Mirror`]).
//!
//! A look is off the way from an address to its data, and touches no flag:
//!
//! ```text
//!        pext  rcx, base, gs:[page_mask]
//!        movzx ecx, byte gs:[rcx*2 + array]   ; a mark: 47, or 0
//!        shrx  rcx, base, rcx                 ; zero, if it is good and the address the user's
//!        jrcxz there                          ; TEST and JNE where flags may be overwritten
//!        jmp   careful
//! there: mov   rax, fs:[ebase + displacement]
//! ```
//!
//! Nothing has to be kept of it: what is less than a page away from there needs no other look. Where the mark is
//! not good goes on in a unit that looks at each access in the flat map ([`Mode::NO_WINDOW`]), as for stack
//! frames without a window; the stack's frame is looked at like anything else.

use x86_decode::native::{Access, Class, Native, NativeMem};
use x86_encode::{Cond, Label, Mem, Reg, Segment, Shift};

use super::copy::Held;
use super::look::{Looked, Origin, size_of};
use super::{Cold, GUEST_R10, HOST, Translator, context};
use crate::cache::{Mode, Reason};
use crate::context::{LOOKS, field};
use crate::views::REACH;

/// What is in the window at an address.
fn in_mirror(at: Mem) -> Mem {
    at.seg(Segment::Fs).low()
}

impl Translator {
    /// The unit finds memory by a mirror.
    pub(super) fn by_mirror(&self) -> bool {
        self.has_mirror() && !self.unit.mode.contains(Mode::NO_WINDOW)
    }

    /// The address space has one.
    pub(super) fn has_mirror(&self) -> bool {
        self.unit.mode.contains(Mode::MIRROR)
    }

    /// The host's operand for one whose registers are in their places. The guest's R10, where it is
    /// held, is in the context, too.
    pub(super) fn mirrored(&mut self, index: usize, insn: &Native, mem: &NativeMem) -> Option<Mem> {
        let (origin, first) = Origin::of(mem, self.rip_after(insn), true, self.word())?;
        let write = matches!(mem.access, Access::Write | Access::ReadWrite);
        let end = first + size_of(mem);
        match origin {
            Origin::Page(_) => return None,
            Origin::Near(page) => _ = i32::try_from((page << 12) + first).ok()?,
            Origin::Registers(..) => {}
        }
        let known = |known: &Looked| known.has(origin, first, end, write);
        if !self.unit.kept.iter().flatten().any(known) {
            let write = write || self.writes_soon(index, insn, origin);
            let (from, at) = self.look_from(origin, first, end)?;
            let free = self.flags_free(index);
            self.look_at_mark(self.rip_of(insn), free, from, write);
            self.keep_mark(Looked { origin, first: at - REACH, end: at + REACH, write });
        }
        if origin.registers() & 1 << GUEST_R10 != 0 {
            self.hold_r10();
        }
        if let Origin::Near(page) = origin {
            self.forget_rcx();
            self.asm.load(8, Reg::RCX, context(field!(code_page)));
            return Some(in_mirror(Mem::at(Reg::RCX, ((page << 12) + first) as i32)));
        }
        Some(in_mirror(origin.at(first)))
    }

    /// The register with the address to be looked at, and how far that is from the origin.
    fn look_from(&mut self, origin: Origin, first: i64, end: i64) -> Option<(Reg, i64)> {
        match origin {
            Origin::Registers(Some(base), None) if first >= -REACH && end <= REACH => {
                if base == GUEST_R10 {
                    self.hold_r10();
                }
                return Some((HOST[usize::from(base)], 0));
            }
            Origin::Registers(..) if origin.registers() & 1 << GUEST_R10 != 0 => return None,
            Origin::Near(page) => {
                self.forget_rcx();
                self.asm.load(8, Reg::RCX, context(field!(code_page)));
                self.asm.lea(8, Reg::R10, Mem::at(Reg::RCX, (page << 12) as i32));
            }
            _ => self.asm.lea(8, Reg::R10, origin.at(first)),
        }
        self.unit.held[0] = Held::Nothing;
        Some((Reg::R10, if let Origin::Near(_) = origin { 0 } else { first }))
    }

    fn forget_rcx(&mut self) {
        self.unit.distance_at_hand = false;
        self.unit.looked = None;
    }

    /// There are no marks to be kept in registers: the unit's translation knows of what it has looked at.
    fn keep_mark(&mut self, looked: Looked) {
        let free = self.unit.kept.iter().position(Option::is_none);
        // Of many, the oldest is not worth more than another.
        let slot = free.unwrap_or(self.points.len() % LOOKS);
        self.unit.kept[slot] = Some(looked);
    }

    /// What is read there is written, too, before the code can go another way: one look does for both.
    fn writes_soon(&self, index: usize, insn: &Native, origin: Origin) -> bool {
        let mut changed = insn.gpr_written;
        for next in self.form.insns.iter().skip(index + 1) {
            if changed & origin.registers() != 0 || next.class != Class::Copy {
                return false;
            }
            changed |= next.gpr_written;
            let Some(mem) = next.mem else { continue };
            let found = Origin::of(&mem, self.rip_after(next), true, self.word());
            let near = found.is_some_and(|(own, first)| {
                own == origin && first >= -REACH && first + size_of(&mem) <= REACH
            });
            if near && matches!(mem.access, Access::Write | Access::ReadWrite) {
                return true;
            }
        }
        false
    }

    /// Goes on only where user code may access what is at the address in a register, and less than a page
    /// away from there. RCX is overwritten.
    fn look_at_mark(&mut self, rip: u64, free: bool, address: Reg, write: bool) {
        self.forget_rcx();
        let mark = Mem::at(Reg::RCX, i32::from(write)).index(Reg::RCX, 0).seg(Segment::Gs);
        self.asm.pext_rm(Reg::RCX, address, context(field!(page_mask)));
        self.asm.load(1, Reg::RCX, mark);
        self.asm.shiftx(Shift::Shr, 8, Reg::RCX, address, Reg::RCX);
        let out = self.asm.label();
        self.cold.push((out, Cold::Careful { rip }));
        if free {
            self.asm.test_rr(8, Reg::RCX, Reg::RCX);
            self.asm.jcc(Cond::Ne, out);
            return;
        }
        let there = self.asm.label();
        self.asm.jrcxz(there);
        self.asm.jmp(out);
        self.asm.bind(there);
    }

    /// Out of line: a jump to the unit of this address that looks in the flat map.
    pub(super) fn be_careful(&mut self, rip: u64) {
        self.asm.align_for_rel32(1);
        let at = self.here() + 1;
        let out = self.way_out(Reason::Careful, rip, at);
        self.asm.jmp(out);
    }

    /// The frame may be accessed, or this is not the unit to run. Flags are dead.
    pub(super) fn look_at_frame(&mut self, first: i32, end: i32) {
        let reach = REACH as i32;
        let from = if first >= -reach && end <= reach {
            Reg::RSP
        } else {
            self.asm.lea(8, Reg::R10, Mem::at(Reg::RSP, first));
            Reg::R10
        };
        self.look_at_mark(self.unit.rip, true, from, true);
    }

    /// What is at a distance from RSP, in the frame.
    pub(super) fn in_frame(disp: i32) -> Mem {
        in_mirror(Mem::at(Reg::RSP, disp))
    }

    /// What is at the linear address in R10.
    pub(super) fn mirrored_at_r10(&mut self, index: usize, insn: &Native, write: bool) -> Mem {
        let free = self.flags_free(index);
        self.look_at_mark(self.rip_of(insn), free, Reg::R10, write);
        in_mirror(Mem::at(Reg::R10, 0))
    }

    /// The same by a register with the operand's address; it needs neither RCX nor another.
    pub(super) fn moved_to(&mut self, to: Reg, place: Mem) -> Mem {
        if !place.low {
            self.asm.lea(8, to, place);
            return Mem::at(to, 0);
        }
        self.asm.lea(4, to, Mem { seg: None, low: false, ..place });
        in_mirror(Mem::at(to, 0))
    }

    /// RCX = the flat map's entry for the linear address in R10. No flag is touched. `counts`: so many
    /// looks end with the page in the mirror.
    pub(super) fn load_entry_beside_mirror(&mut self, write: bool, counts: Option<Label>) {
        let (address, left) = (context(field!(looked_for)), context(field!(looks_left)));
        if let Some(out) = counts {
            self.asm.load(8, Reg::RCX, left);
            self.asm.lea(8, Reg::RCX, Mem::at(Reg::RCX, -1));
            self.asm.store(8, left, Reg::RCX);
            self.need_rcx(out);
        }
        self.asm.store(8, address, Reg::R10);
        self.asm.pext_rm(Reg::R10, Reg::R10, context(field!(page_mask)));
        self.asm.load(8, Reg::RCX, context(field!(arrays) + 8 * i32::from(write)));
        self.asm.lea(8, Reg::RCX, Mem::at(Reg::RCX, 0).index(Reg::R10, 0));
        self.asm.load(8, Reg::R10, address);
        self.asm.load(8, Reg::RCX, Mem::absolute(0).index(Reg::RCX, 3));
    }
}
