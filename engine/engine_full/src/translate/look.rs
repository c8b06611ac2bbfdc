//! One look for several accesses: those at small distances from the same registers, or in the same
//! page, need it only once while nothing else happens to RCX or the registers.
//!
//! What was found is kept in the context for what comes later in the unit, when something else has had
//! RCX in between.
//!
//! Looking takes RCX alone. What may be on two pages is left to a unit that looks at each access by
//! itself ([`crate::cache::Mode::NO_WINDOW`]).

use x86_decode::native::{Access, Class, Native, NativeMem};
use x86_encode::{Alu, Cond, Label, Mem, Reg, Segment, Shift};
use x86_state::SegReg;

use super::copy::{Held, is_plain};
use super::form::by_stack_pointer;
use super::{Cold, GUEST_R10, GUEST_R11, HOST, Translator, context, in_context};
use crate::cache::{Mode, Reason, SiteKind};
use crate::context::field;

/// Bytes of a group at most: the more, the more often it is on two pages.
const GROUP_MAX: i64 = 256;
/// The same where something else has had RCX in between.
const KEPT_MAX: i64 = 128;
const PAGE_SIZE: i64 = 4096;

/// What addresses of a group have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// Guest registers: the second is multiplied by two to the power of the number.
    Registers(Option<u8>, Option<(u8, u8)>),
    /// The page of this number.
    Page(u64),
    /// The page this many pages behind that of the user's unit.
    Near(i64),
}

impl Origin {
    /// Of a memory operand, and its distance from there. None for one that is looked at otherwise.
    /// `user`: addresses of code are distances.
    fn of(mem: &NativeMem, rip_after: u64, user: bool, word: u8) -> Option<(Self, i64)> {
        let named = mem.base.is_some() || mem.index.is_some();
        // Sums of registers that are less wide than addresses are looked up one by one.
        if mem.addr_size != word || word == 4 && named || matches!(mem.seg, SegReg::Fs | SegReg::Gs)
        {
            return None;
        }
        if mem.rip_relative || mem.base.is_none() && mem.index.is_none() {
            let from = if mem.rip_relative { rip_after } else { 0 };
            let address = from.wrapping_add(mem.disp as i64 as u64) & (u64::MAX >> (64 - 8 * word));
            let offset = (address & (PAGE_SIZE as u64 - 1)) as i64;
            let origin = if mem.rip_relative && user {
                Self::Near(address as i64 >> 12)
            } else {
                Self::Page(address >> 12)
            };
            return (offset + size_of(mem) <= PAGE_SIZE).then_some((origin, offset));
        }
        let index = mem.index.map(|index| (index, mem.scale));
        let origin = Self::Registers(mem.base, index);
        let fits = size_of(mem) <= GROUP_MAX * 2 && mem.disp < i32::MAX - 4 * GROUP_MAX as i32;
        (fits && origin.registers() & 1 << GUEST_R11 == 0).then_some((origin, i64::from(mem.disp)))
    }

    /// `first..end` is all on one page, wherever it is: what is a multiple of its size is.
    fn is_aligned(self, first: i64, end: i64) -> bool {
        let Self::Registers(None, Some((_, scale))) = self else { return false };
        let size = end - first;
        size.count_ones() == 1 && size <= 1 << scale && first % size == 0
    }

    /// The guest registers, by bits.
    fn registers(self) -> u16 {
        match self {
            Self::Registers(base, index) => {
                base.map_or(0, |r| 1 << r) | index.map_or(0, |(r, _)| 1 << r)
            }
            Self::Page(_) | Self::Near(_) => 0,
        }
    }

    /// The host's operand at a distance from there.
    fn at(self, distance: i64) -> Mem {
        match self {
            Self::Registers(base, index) => Mem {
                seg: None,
                base: base.map(|r| HOST[usize::from(r)]),
                index: index.map(|(r, scale)| (HOST[usize::from(r)], scale)),
                disp: distance as i32,
            },
            Self::Page(_) | Self::Near(_) => Mem::at(Reg::RCX, distance as i32),
        }
    }

    /// The host's operand for it, when RCX is what was found.
    fn found_at(self, distance: i64) -> Mem {
        let at = self.at(distance);
        match self {
            Self::Registers(Some(_), None) => at.index(Reg::RCX, 0),
            Self::Registers(..) => Mem { base: Some(Reg::RCX), ..at },
            Self::Page(_) | Self::Near(_) => at,
        }
    }
}

/// The logarithm of the size of pieces of a page, of which two hold this many bytes wherever in the
/// first they begin.
fn piece(size: i64) -> i32 {
    64 - (size - 2).leading_zeros() as i32
}

/// Where a unit keeps what it has found.
fn kept_at(slot: usize) -> Mem {
    context(field!(looks) + 8 * slot as i32)
}

/// Bytes of a memory operand.
fn size_of(mem: &NativeMem) -> i64 {
    i64::from(mem.size_bytes.max(1))
}

/// What was found, which is in RCX: of `first..end` from the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Looked {
    origin: Origin,
    first: i64,
    end: i64,
    write: bool,
}

impl Looked {
    fn has(&self, origin: Origin, first: i64, end: i64, write: bool) -> bool {
        self.origin == origin && self.first <= first && end <= self.end && (self.write || !write)
    }
}

/// A look in the making.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    wanted: Looked,
    rip: u64,
    /// The guest's flags may be overwritten.
    free: bool,
    /// It is for more than one access.
    grouped: bool,
    /// Where what is found is kept.
    kept: Option<usize>,
    /// Distance of the access it begins with from the origin.
    own: i64,
    /// That has to be aligned, which is looked at before its page.
    aligned: bool,
    /// R10 is to be the guest's afterwards.
    held: bool,
    /// Where it begins, and where RCX is known to be an address on the page of all bytes.
    top: Label,
    good: Label,
}

impl Translator {
    /// The registers of this set have changed.
    pub(super) fn forget_looked(&mut self, written: u16) {
        for known in self.unit.kept.iter_mut().chain([&mut self.unit.looked]) {
            if known.is_some_and(|looked| looked.origin.registers() & written != 0) {
                *known = None;
            }
        }
    }

    /// The host's operand for one whose address needs no more than RCX. The guest's R10, where it is
    /// held, is in the context, too.
    pub(super) fn look_for(&mut self, index: usize, insn: &Native, mem: &NativeMem) -> Option<Mem> {
        let (origin, first) = Origin::of(mem, self.rip_after(insn), self.user(), self.word())?;
        let write = matches!(mem.access, Access::Write | Access::ReadWrite);
        let end = first + size_of(mem);
        let has = |known: &Option<Looked>| known.is_some_and(|l| l.has(origin, first, end, write));
        if has(&self.unit.looked) {
            // In RCX still.
        } else if let Some(slot) = self.unit.kept.iter().position(has) {
            self.look_again(slot);
        } else {
            let alone = Looked { origin, first, end, write };
            let (wanted, again) = self.group(index, insn, alone);
            let free = self.unit.kept.iter().position(Option::is_none);
            let look = Look {
                wanted,
                rip: self.rip_of(insn),
                free: self.flags_free(index),
                grouped: wanted.first < first || wanted.end > end,
                kept: free.filter(|_| again),
                own: first,
                aligned: mem.aligned > 1,
                held: false,
                top: self.asm.label(),
                good: self.asm.label(),
            };
            self.look(look);
        }
        if origin.registers() & 1 << GUEST_R10 != 0 {
            self.hold_r10();
        }
        Some(origin.found_at(first))
    }

    /// R10 is the guest's.
    pub(super) fn hold_r10(&mut self) {
        if self.unit.held[0] == Held::Nothing {
            self.asm.load(8, Reg::R10, in_context(GUEST_R10));
            self.unit.held[0] = Held::Same;
        }
    }

    /// What is to be looked at together with the access of an instruction, and whether some of that
    /// is to be accessed once something else has had RCX.
    fn group(&self, index: usize, insn: &Native, alone: Looked) -> (Looked, bool) {
        let mut wanted = alone;
        if let Origin::Page(_) | Origin::Near(_) = alone.origin {
            wanted = Looked { first: 0, end: PAGE_SIZE, ..alone };
        }
        let registers = alone.origin.registers();
        if self.unit.mode.contains(Mode::NO_WINDOW) || insn.gpr_written & registers != 0 {
            return (wanted, false);
        }
        let (mut at_hand, mut again) = (true, false);
        for (i, next) in self.form.insns.iter().enumerate().skip(index + 1) {
            match next.class {
                Class::Nop | Class::JumpIf => continue,
                Class::Copy | Class::Push | Class::Pop => {}
                _ => break,
            }
            at_hand &= next.class == Class::Copy && is_plain(next, self.unit.x87_at_hand);
            if let Some(mem) = next.mem.filter(|mem| mem.access != Access::None) {
                let windowed =
                    by_stack_pointer(next, self.word()).and(self.form.stack[i]).is_some();
                let found = Origin::of(&mem, self.rip_after(next), self.user(), self.word());
                match found.filter(|found| !windowed && found.0 == wanted.origin) {
                    Some((origin, first)) => {
                        let end = wanted.end.max(first + size_of(&mem));
                        let first = wanted.first.min(first);
                        let writes = matches!(mem.access, Access::Write | Access::ReadWrite);
                        let limit = if at_hand { GROUP_MAX } else { KEPT_MAX };
                        let fits = registers == 0 || end - first <= limit;
                        if fits && (wanted.write || !writes) {
                            wanted = Looked { origin, first, end, ..wanted };
                            again |= !at_hand;
                        } else {
                            at_hand = false;
                        }
                    }
                    None => at_hand = false,
                }
            }
            if next.gpr_written & registers != 0 {
                break;
            }
        }
        (wanted, again)
    }

    /// RCX = what a look has found before and kept:
    ///
    /// ```text
    /// mov rcx, gs:[slot]
    /// lea rcx, [base + rcx]    ; where there is an index, too
    /// ```
    ///
    /// A slot that was closed since forms no address: from the guest's, which is canonical or was refused
    /// at the look, to one that is not.
    fn look_again(&mut self, slot: usize) {
        self.unit.looked = self.unit.kept[slot];
        let Some(Looked { origin, .. }) = self.unit.looked else { return };
        self.unit.distance_at_hand = false;
        self.asm.load(8, Reg::RCX, kept_at(slot));
        if origin.registers() & 1 << GUEST_R10 != 0 {
            self.hold_r10();
        }
        self.add_base(origin);
    }

    /// RCX, a distance, gets the base of an address that has an index, too: an operand has no place for
    /// three.
    fn add_base(&mut self, origin: Origin) {
        if let Origin::Registers(Some(base), Some(_)) = origin {
            let base = Mem::at(HOST[usize::from(base)], 0);
            self.asm.lea(8, Reg::RCX, base.index(Reg::RCX, 0));
        }
    }

    /// What a look has found is kept, if it is to be.
    fn keep(&mut self, look: &Look) {
        if let Some(slot) = look.kept {
            self.asm.store(8, kept_at(slot), Reg::RCX);
            self.unit.kept[slot] = Some(look.wanted);
        }
    }

    fn look(&mut self, mut look: Look) {
        let Looked { origin, first, end, write } = look.wanted;
        self.unit.distance_at_hand = false;
        let empty = self.asm.label();
        let segment = if write { Segment::Fs } else { Segment::Gs };
        let entry = Mem::absolute(0).index(Reg::RCX, 3).seg(segment);
        if let Origin::Page(number) = origin {
            self.asm.bind(look.top);
            let pages = if self.user() { 35 } else { 36 };
            self.asm.mov_ri(Reg::RCX, number & ((1 << pages) - 1));
            self.asm.load(8, Reg::RCX, entry);
            self.need_found(look.free, empty, None);
            self.unit.held[0] = Held::Nothing;
            self.asm.mov_ri(Reg::R10, number << 12);
            self.asm.lea(8, Reg::RCX, Mem::at(Reg::RCX, 0).index(Reg::R10, 0));
            self.keep(&look);
        } else if let Origin::Near(pages) = origin {
            self.unit.held[0] = Held::Nothing;
            self.asm.bind(look.top);
            self.set_address(Reg::R10, 8, (pages as u64) << 12);
            self.asm.pext_rm(Reg::RCX, Reg::R10, context(field!(page_mask)));
            self.asm.load(8, Reg::RCX, entry);
            self.need_found(look.free, empty, None);
            self.asm.lea(8, Reg::RCX, Mem::at(Reg::RCX, 0).index(Reg::R10, 0));
            self.keep(&look);
        } else {
            if origin.registers() & 1 << GUEST_R10 != 0 {
                self.hold_r10();
            }
            look.held = self.unit.held[0] != Held::Nothing;
            self.asm.bind(look.top);
            let near = self.find_page_of(&look);
            let from = match origin {
                Origin::Registers(Some(base), None) if (first, end) == (0, 1) => {
                    HOST[usize::from(base)]
                }
                _ => Reg::RCX,
            };
            self.take_page_number(from, look.free);
            self.asm.load(8, Reg::RCX, entry);
            self.need_found(look.free, empty, near);
            self.keep(&look);
            self.add_base(origin);
        }
        self.cold.push((empty, Cold::Empty(look)));
        self.unit.looked = Some(look.wanted);
    }

    /// RCX = what of an address counts, from bit 12 on: see [`crate::context::Context::page_mask`].
    fn take_page_number(&mut self, from: Reg, free: bool) {
        if !free || from != Reg::RCX {
            let mask = context(field!(page_mask) + if self.user() { 0 } else { 8 });
            self.asm.pext_rm(Reg::RCX, from, mask);
            return;
        }
        // Shorter.
        let above = if self.user() { 17 } else { 16 };
        self.asm.shift_ri(Shift::Shl, 8, Reg::RCX, above);
        self.asm.shift_ri(Shift::Shr, 8, Reg::RCX, above + 12);
    }

    /// RCX = an address on the page of all bytes, unless the first is near the end of its page: then
    /// goes on out of line, for which an island returned is to be placed near.
    fn find_page_of(&mut self, look: &Look) -> Option<(Label, Label)> {
        let Looked { origin, first, end, .. } = look.wanted;
        if end - first == 1 || origin.is_aligned(first, end) {
            if first != 0 || !matches!(origin, Origin::Registers(Some(_), None)) {
                self.asm.lea(8, Reg::RCX, origin.at(first));
            }
            return None;
        }
        // As far behind the first as the last or further, in steps of a power of two: when it is in
        // the first such piece of a page, the first byte is in the last one of the page before. What
        // begins with a page, as much does, is not mistaken for that.
        let low = piece(end - first);
        let probe = origin.at(first + (1 << low));
        let near = self.asm.label();
        self.asm.lea(8, Reg::RCX, probe);
        let mut island = None;
        if look.free {
            self.asm.test_ri(4, Reg::RCX, 0xfff & (-1 << low));
            self.asm.jcc(Cond::E, near);
        } else {
            let place = self.asm.label();
            self.asm.pext_rm(Reg::RCX, Reg::RCX, context(field!(upper_mask) + 8 * low));
            self.asm.jrcxz(place);
            self.asm.lea(8, Reg::RCX, probe);
            island = Some((place, near));
        }
        self.asm.bind(look.good);
        self.cold.push((near, Cold::Near(*look)));
        island
    }

    /// Goes out of line when RCX is zero. Places an island.
    fn need_found(&mut self, free: bool, empty: Label, island: Option<(Label, Label)>) {
        if free {
            self.asm.test_rr(8, Reg::RCX, Reg::RCX);
            self.asm.jcc(Cond::E, empty);
            return;
        }
        let (none, there) = (self.asm.label(), self.asm.label());
        self.asm.jrcxz(none);
        self.asm.jmp_short(there);
        if let Some((place, to)) = island {
            self.asm.bind(place);
            self.asm.jmp(to);
        }
        self.asm.bind(none);
        self.asm.jmp(empty);
        self.asm.bind(there);
    }

    /// Out of line: the first byte is near the end of its page, and so the last one perhaps in
    /// another.
    pub(super) fn look_closer(&mut self, look: &Look) {
        let Looked { origin, first, end, .. } = look.wanted;
        let size = (end - first) as i32;
        let (crossing, inside) = (self.asm.label(), self.asm.label());
        if look.free {
            self.asm.alu_ri(Alu::And, 4, Reg::RCX, 0xfff);
            self.asm.alu_ri(Alu::Cmp, 4, Reg::RCX, (1 << piece(end - first)) - size);
            self.asm.jcc_short(Cond::G, crossing);
        } else {
            self.asm.lea(8, Reg::RCX, origin.at(first));
            self.asm.pext_rm(Reg::RCX, Reg::RCX, context(field!(offset_mask)));
            self.asm.lea(8, Reg::RCX, Mem::at(Reg::RCX, size - 1));
            self.asm.pext_rm(Reg::RCX, Reg::RCX, context(field!(carry_mask)));
            self.asm.jrcxz(inside);
            self.asm.jmp_short(crossing);
        }
        self.asm.bind(inside);
        self.asm.lea(8, Reg::RCX, origin.at(first));
        self.asm.jmp(look.good);
        self.asm.bind(crossing);
        if look.grouped {
            self.asm.align_for_rel32(1);
            let at = self.here() + 1;
            let out = self.way_out(Reason::Careful, look.rip, at);
            self.asm.jmp(out);
        } else {
            // The interpreter does what is on two pages.
            let site = self.site(Reason::Interpret, look.rip, 0);
            self.leave(site);
        }
    }

    /// Out of line: nothing is known of the page. R10 tells which.
    pub(super) fn look_up(&mut self, look: &Look) {
        let Looked { origin, write, .. } = look.wanted;
        let reason = if write { Reason::Store } else { Reason::Load };
        // The access's own address: a page fault tells it.
        match origin {
            Origin::Page(number) => self.asm.mov_ri(Reg::R10, (number << 12) + look.own as u64),
            Origin::Near(pages) => {
                self.set_address(Reg::R10, 8, ((pages << 12) + look.own) as u64);
            }
            Origin::Registers(..) => self.asm.lea(8, Reg::R10, origin.at(look.own)),
        }
        let site = self.site(reason, look.rip, 0);
        self.leave(site);
        let retry = self.here();
        if let Some(site) = self.sites.last_mut() {
            site.host = retry;
            site.kind.set(SiteKind::RAISES, !look.aligned);
        }
        if look.held {
            self.asm.load(8, Reg::R10, in_context(GUEST_R10));
        }
        self.asm.jmp(look.top);
    }
}
