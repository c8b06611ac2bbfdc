//! What is known of addresses along translated code.

use iced_x86::{CodeSize, Instruction, Mnemonic, OpAccess, OpKind, Register, UsedMemory};

use crate::context::{CONTEXT_SIZE, LOOKS, field};
use crate::views::USER_JUMPS_FOR;

/// An address that was looked up, or is about to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum What {
    /// R10.
    R10,
    /// These registers and a displacement, of the last byte; what is that far before it is on the
    /// same page.
    Sum { base: Register, index: Register, scale: u32, last: i64, before: i64 },
    /// A page whose number is known.
    Page(u64),
    /// The guest's R10.
    Guest,
    /// R10, which is this far from the page of the unit, and is the beginning of a page.
    Near(i64),
}

impl What {
    /// The operand of LEA.
    fn sum(insn: &Instruction) -> Self {
        Self::Sum {
            base: insn.memory_base(),
            index: insn.memory_index(),
            scale: insn.memory_index_scale(),
            last: insn.memory_displacement64() as i64,
            before: 0,
        }
    }

    /// It is another address when this register changes.
    fn rests_on(self, register: Register) -> bool {
        matches!(self, Self::Sum { base, index, .. } if base == register || index == register)
    }

    /// Bytes from the operand, but for RCX, to the end of what was looked up; None outside of it.
    fn room(self, operand: (Register, Register, u32), disp: i64) -> Option<i64> {
        let (own, first, end) = match self {
            // How much was looked for there is not followed.
            Self::R10 | Self::Guest => ((Register::R10, Register::None, 1), 0, i64::MAX),
            Self::Sum { base, index, scale, last, before } => {
                // A multiple of the scale is on one page with what follows up to the next.
                let scale_of_last = i64::from(scale);
                let aligned = base == Register::None && last % scale_of_last == 0;
                let end = last + if aligned { scale_of_last } else { 1 };
                ((base, index, scale), last - before, end)
            }
            Self::Page(_) | Self::Near(_) => ((Register::None, Register::None, 1), 0, 4096),
        };
        let whole = matches!(self, Self::R10 | Self::Guest);
        let fits = operand == own && first <= disp && (!whole || disp == 0);
        fits.then_some(end - disp)
    }
}

/// Where RCX comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Rcx {
    /// An address; when true, less what of it may differ on a page.
    Address(What, bool),
    /// It without so many of its high bits.
    Shifted(What, u8, i64),
    /// The page number of it.
    Number(What),
    /// An entry of the loads' or stores' array, for that address.
    Entry(Register, What),
    /// The same, and the address's base or page.
    Based(Register, What),
    /// The stack window's distance.
    Distance,
    /// The address of what was found in this array, and how much of it follows.
    Place(Register, i64),
    /// The number of the entry for the page of R10 in this array, or of the array's first.
    Index(Register, bool),
    /// The mark of that address's page: true, if it is that of stores.
    Mark(bool, What),
    /// The address shifted right by it.
    Marked(bool, What),
    Other,
}

/// Follows translated code from its beginning to its end.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Walk {
    pub(super) rcx: Rcx,
    /// R10 is the address of what was found, as of [`Rcx::Place`].
    r10_place: Option<(Register, i64)>,
    /// A number R10 was loaded with.
    r10: Option<u64>,
    /// How far it is from the page of the unit.
    r10_near: Option<i64>,
    /// Which sum it is.
    r10_sum: Option<What>,
    /// It is the guest's; and it is the number of a page.
    r10_guest: bool,
    r10_number: bool,
    /// Of sums: what is known to be on the page of the last byte.
    before: i64,
    /// What was found and put into the context.
    kept: [Rcx; LOOKS],
    /// Where marks are good.
    marked: [Option<(bool, What)>; MARKED],
    /// The frame's is.
    frame: bool,
    /// RCX is the address of the unit's page.
    rcx_is_code_page: bool,
    /// What RCX is compared with zero for.
    pub(super) compared: bool,
}

/// Marks known at a time.
const MARKED: usize = 16;

impl Walk {
    pub(super) const START: Self = Self {
        rcx: Rcx::Other,
        r10_place: None,
        r10: None,
        r10_near: None,
        r10_sum: None,
        r10_guest: false,
        r10_number: false,
        before: 0,
        kept: [Rcx::Other; LOOKS],
        marked: [None; MARKED],
        frame: false,
        rcx_is_code_page: false,
        compared: false,
    };

    /// Arrives by two ways: knows what is known by both.
    pub(super) fn join(&mut self, other: &Self) {
        if self == other {
            return;
        }
        self.rcx = Rcx::Other;
        self.frame &= other.frame;
        for own in &mut self.marked {
            *own = own.filter(|mark| other.marked.contains(&Some(*mark)));
        }
        for (own, other) in self.kept.iter_mut().zip(&other.kept) {
            if own != other {
                *own = Rcx::Other;
            }
        }
    }

    /// Which array the operand was found in, with what is in RCX, and how much follows.
    fn found(&self, operand: (Register, Register, u32), disp: i64) -> Option<(Register, i64)> {
        let (array, what, own) = match (self.rcx, operand) {
            (Rcx::Distance, (Register::RSP, Register::RCX, 1)) => {
                return Some((Register::FS, i64::MAX));
            }
            (Rcx::Place(array, room), (Register::RCX, Register::None, _)) if disp == 0 => {
                return Some((array, room));
            }
            (Rcx::Entry(array, what), (base, Register::RCX, 1)) => {
                (array, what, (base, Register::None, 1))
            }
            // Without a base, there is nothing to be added.
            (
                Rcx::Entry(array, what @ What::Sum { base: Register::None, .. }),
                (Register::RCX, index, scale),
            ) => (array, what, (Register::None, index, scale)),
            (Rcx::Based(array, what), (Register::RCX, index, scale)) => {
                let base = if let What::Sum { base, .. } = what { base } else { Register::None };
                (array, what, (base, index, scale))
            }
            _ => return None,
        };
        what.room(own, disp).map(|room| (array, room))
    }

    /// The register has this address.
    fn is_of(what: What, register: Register) -> bool {
        match what {
            What::Sum { base, index: Register::None, last: 0, .. } => base == register,
            What::Near(_) => register == Register::R10,
            _ => false,
        }
    }

    /// Behind a branch that leads here only if RCX was zero.
    pub(super) fn is_zero(&mut self) {
        let Rcx::Marked(write, what) = self.rcx else { return };
        self.frame |= matches!(what, What::Sum { base: Register::RSP, index: Register::None, .. });
        if let Some(free) = self.marked.iter_mut().find(|mark| mark.is_none()) {
            *free = Some((write, what));
        }
    }

    /// It is in the window, less than a page away from where a mark is good.
    fn is_mirrored(&self, memory: &UsedMemory, disp: i64, size: i64, writes: bool) -> bool {
        let [base, index] = [memory.base(), memory.index()].map(Register::full_register);
        if (base, index) == (Register::RSP, Register::None) && self.frame {
            return true;
        }
        let by_r10 = (base, index) == (Register::R10, Register::None);
        let own = |what: What| match what {
            What::Sum { .. } if by_r10 => (self.r10_sum == Some(what)).then_some(0),
            What::Near(from) if by_r10 => (self.r10_near == Some(from)).then_some(0),
            What::Guest => (by_r10 && self.r10_guest).then_some(0),
            What::R10 => by_r10.then_some(0),
            What::Sum { base: b, index: i, scale, last, .. } => {
                let same =
                    (b, i) == (base, index) && (i == Register::None || scale == memory.scale());
                same.then_some(last)
            }
            What::Near(page) => {
                let code_page =
                    self.rcx_is_code_page && (base, index) == (Register::RCX, Register::None);
                code_page.then_some(page)
            }
            What::Page(_) => None,
        };
        self.marked.iter().flatten().any(|(stores, what)| {
            let reaches = |at: i64| disp >= at - 4096 && disp + size <= at + 4096;
            (*stores || !writes) && own(*what).is_some_and(reaches)
        })
    }

    /// What the instruction accesses is what was looked up for it.
    pub(super) fn allows(&self, memory: &UsedMemory) -> bool {
        let disp = memory.displacement() as i64;
        let size = memory.memory_size().size() as i64;
        let writes = !matches!(memory.access(), OpAccess::Read | OpAccess::CondRead);
        if memory.address_size() == CodeSize::Code32 {
            let disp = i64::from(disp as i32);
            return memory.segment() == Register::FS
                && self.is_mirrored(memory, disp, size, writes);
        }
        let page = matches!(self.rcx, Rcx::Number(_));
        let found = match (memory.segment(), memory.base(), memory.index()) {
            (Register::GS, Register::None, Register::None) => {
                return (-(CONTEXT_SIZE as i64)..0).contains(&disp);
            }
            (Register::GS, Register::RCX, Register::RCX) => {
                return !writes
                    && page
                    && memory.scale() == 1
                    && (0..2).contains(&disp)
                    && size == 1;
            }
            (Register::DS, Register::None, Register::RCX) if disp == 0 && memory.scale() == 8 => {
                return !writes && matches!(self.rcx, Rcx::Index(_, true));
            }
            (Register::GS, Register::None, Register::RCX) => {
                return !writes
                    && (disp == 0 && page || disp >= i64::from(USER_JUMPS_FOR) && disp < 0);
            }
            (Register::FS, Register::None, Register::RCX) => return !writes && disp == 0 && page,
            (_, Register::R10, Register::None) if disp == 0 => self.r10_place,
            (_, base, index) => self.found((base, index, memory.scale()), disp),
        };
        found.is_some_and(|(array, room)| size <= room && (array == Register::FS || !writes))
    }

    /// What RCX or the context holds is gone when a register has changed that it rests on.
    fn forget(&mut self, written: &[Register], is_own: bool) {
        for known in self.kept.iter_mut().chain([&mut self.rcx]) {
            if let Rcx::Address(what, _)
            | Rcx::Shifted(what, ..)
            | Rcx::Number(what)
            | Rcx::Entry(_, what)
            | Rcx::Mark(_, what)
            | Rcx::Marked(_, what)
            | Rcx::Based(_, what) = *known
                && written.iter().any(|register| what.rests_on(*register))
            {
                *known = Rcx::Other;
            }
        }
        if self.r10_sum.is_some_and(|sum| written.iter().any(|register| sum.rests_on(*register))) {
            self.r10_sum = None;
        }
        for known in &mut self.marked {
            let rests = |what: What| match what {
                What::R10 => written.contains(&Register::R10),
                // Of R10's writers only the guest's own change it.
                What::Guest => written.contains(&Register::R10) && self.r10_guest && !is_own,
                // It is the page that was looked at, whatever the register is now.
                What::Near(_) => false,
                what => written.iter().any(|register| what.rests_on(*register)),
            };
            *known = known.filter(|(_, what)| !rests(*what));
        }
    }

    /// The place in the context an instruction loads from or stores to, among those for what is kept.
    fn slot(insn: &Instruction) -> Option<usize> {
        let plain = (insn.memory_base(), insn.memory_index()) == (Register::None, Register::None);
        let own = insn.mnemonic() == Mnemonic::Mov && insn.segment_prefix() == Register::GS;
        let from = (insn.memory_displacement64() as i32).wrapping_sub(field!(looks));
        let slot = usize::try_from(from / 8).ok().filter(|slot| *slot < LOOKS);
        slot.filter(|_| plain && own && from % 8 == 0 && from >= 0)
    }

    pub(super) fn follow(&mut self, insn: &Instruction, written: &[Register]) {
        use Mnemonic as M;
        if let (Some(slot), OpKind::Memory) = (Self::slot(insn), insn.op0_kind()) {
            assert_eq!(insn.op1_register(), Register::RCX, "only what was found is kept");
            self.kept[slot] = match self.rcx {
                found @ (Rcx::Entry(..) | Rcx::Based(..)) => found,
                _ => Rcx::Other,
            };
        }
        let (base, index) = (insn.memory_base(), insn.memory_index());
        let load = insn.mnemonic() == M::Mov && insn.op1_kind() == OpKind::Memory;
        let lea = insn.mnemonic() == M::Lea;
        let place = lea
            .then(|| {
                let operand = (base, index, insn.memory_index_scale());
                self.found(operand, insn.memory_displacement64() as i64)
            })
            .flatten();
        let before = self.rcx;
        if let (M::Test | M::Cmp, Register::ECX) = (insn.mnemonic(), insn.op0_register()) {
            // Behind the jump: the offset in the page of the last byte has one of these bits, or is
            // no less than this number.
            let number = insn.immediate32() as i32;
            self.before = match insn.mnemonic() {
                M::Test => 1 << number.trailing_zeros(),
                _ => i64::from(number),
            };
        }
        self.compared = insn.mnemonic() == M::Test && insn.op0_register() == Register::RCX;
        let mut guest = self.r10_guest;
        let (r10, r10_near) = (self.r10, self.r10_near);
        let rcx_was_code_page = self.rcx_is_code_page;
        if written.contains(&Register::RCX) {
            self.rcx_is_code_page = load
                && insn.segment_prefix() == Register::GS
                && insn.memory_displacement64() as i64 == i64::from(field!(code_page))
                && (base, index) == (Register::None, Register::None);
        }
        let pext = insn.mnemonic() == M::Pext;
        let of_context = load && insn.segment_prefix() == Register::GS && base == Register::None;
        let is_own = of_context || lea || pext || (insn.mnemonic() == M::Mov && !load);
        if written.contains(&Register::R10) {
            let place_of_guest = i64::from(field!(gpr) + 80);
            let sum = lea && ![Register::R10, Register::RCX, Register::RIP].contains(&base);
            self.r10_sum = (sum && index != Register::R10).then(|| What::sum(insn));
            self.r10_number = pext;
            let is_guest = insn.memory_displacement64() as i64 == place_of_guest;
            guest = of_context && is_guest || self.r10_guest && !is_own;
            self.r10_place = place;
            let displacement = insn.memory_displacement64() as i64;
            let code_page = insn.segment_prefix() == Register::GS
                && displacement == i64::from(field!(code_page))
                && (base, index) == (Register::None, Register::None);
            self.r10_near = match (load && code_page, lea && base == Register::R10) {
                (true, _) => Some(0),
                _ if lea
                    && base == Register::RCX
                    && rcx_was_code_page
                    && index == Register::None =>
                {
                    Some(displacement)
                }
                (_, true) if index == Register::None => r10_near.map(|near| near + displacement),
                _ => None,
            };
            let number = insn.mnemonic() == M::Mov && insn.op_count() == 2;
            self.r10 = (number && insn.op1_kind() == OpKind::Immediate64)
                .then(|| insn.immediate64())
                .or((number && insn.op1_kind() == OpKind::Immediate32)
                    .then(|| u64::from(insn.immediate32())))
                .or((number && insn.op1_kind() == OpKind::Immediate32to64)
                    .then(|| insn.immediate32to64() as u64));
        }
        self.forget(written, is_own);
        self.r10_guest = guest;
        if !written.contains(&Register::RCX) {
            return;
        }
        let mask = || insn.memory_displacement64() as i32;
        let pages = [field!(page_mask), field!(page_mask) + 8];
        self.rcx = match insn.segment_prefix() {
            _ if place.is_some() => {
                place.map_or(Rcx::Other, |(array, room)| Rcx::Place(array, room))
            }
            Register::None
                if lea && index == Register::RCX && insn.memory_displacement64() == 0 =>
            {
                match before {
                    Rcx::Entry(array, what @ What::Sum { base: own, index: other, .. })
                        if own == base && other != Register::None =>
                    {
                        Rcx::Based(array, what)
                    }
                    _ => Rcx::Other,
                }
            }
            // The page's first byte; or the entry's number.
            Register::None if lea && base == Register::RCX && index == Register::R10 => {
                match (before, r10) {
                    (Rcx::Index(array, false), _) if self.r10_number => Rcx::Index(array, true),
                    (Rcx::Entry(array, what @ What::Page(number)), Some(at))
                        if at & 0xfff == 0 && (at >> 12 ^ number).trailing_zeros() >= 35 =>
                    {
                        Rcx::Based(array, what)
                    }
                    (Rcx::Entry(array, what @ What::Near(from)), _) if r10_near == Some(from) => {
                        Rcx::Based(array, what)
                    }
                    _ => Rcx::Other,
                }
            }
            Register::None if lea && base != Register::RIP && base != Register::RCX => {
                match before {
                    // Once more, behind a look at where on its page it is.
                    Rcx::Address(_, true) => {}
                    _ => self.before = 0,
                }
                Rcx::Address(What::sum(insn), false)
            }
            Register::None if insn.mnemonic() == M::Mov && insn.op1_kind() != OpKind::Register => {
                Rcx::Number(What::Page(if insn.op1_kind() == OpKind::Immediate64 {
                    insn.immediate64()
                } else {
                    u64::from(insn.immediate32())
                }))
            }
            // The low twelve bits go as well, and of the high ones what does not count.
            Register::None if insn.mnemonic() == M::Shl => match before {
                Rcx::Address(what @ What::Sum { .. }, false)
                    if insn.op1_kind() == OpKind::Immediate8 =>
                {
                    Rcx::Shifted(what, insn.immediate8(), self.before)
                }
                _ => Rcx::Other,
            },
            Register::None if insn.mnemonic() == M::Shr => match before {
                Rcx::Shifted(What::Sum { base, index, scale, last, .. }, above, known)
                    if above >= 16 && insn.immediate8() == above + 12 =>
                {
                    Rcx::Number(What::Sum { base, index, scale, last, before: known })
                }
                _ => Rcx::Other,
            },
            Register::GS if insn.mnemonic() == M::Pext && pages.contains(&mask()) => {
                let known = self.before;
                match (insn.op1_register(), before) {
                    (
                        Register::RCX,
                        Rcx::Address(What::Sum { base, index, scale, last, .. }, false),
                    ) => Rcx::Number(What::Sum { base, index, scale, last, before: known }),
                    (Register::RCX, _) => Rcx::Other,
                    (Register::R10, _) => Rcx::Number(match r10_near {
                        Some(from) if from & 0xfff == 0 => What::Near(from),
                        _ => What::R10,
                    }),
                    (base, _) => Rcx::Number(What::Sum {
                        base,
                        index: Register::None,
                        scale: 1,
                        last: 0,
                        before: 0,
                    }),
                }
            }
            Register::GS if insn.mnemonic() == M::Pext => match before {
                Rcx::Address(what, _) if insn.op1_register() == Register::RCX => {
                    let low = (mask() - field!(upper_mask)) / 8;
                    if (0..12).contains(&low) {
                        self.before = 1 << low;
                    }
                    Rcx::Address(what, true)
                }
                _ => Rcx::Other,
            },
            Register::GS if insn.mnemonic() == M::Movzx && index == Register::RCX => match before {
                Rcx::Number(what) => Rcx::Mark(insn.memory_displacement64() == 1, what),
                _ => Rcx::Other,
            },
            Register::None if insn.mnemonic() == M::Shrx => match (before, insn.op1_register()) {
                (Rcx::Mark(write, What::R10), Register::R10) => {
                    let own = if self.r10_guest { What::Guest } else { What::R10 };
                    Rcx::Marked(write, self.r10_sum.unwrap_or(own))
                }
                (Rcx::Mark(write, what), from) if Self::is_of(what, from) => {
                    Rcx::Marked(write, what)
                }
                _ => Rcx::Other,
            },
            Register::None if load && base == Register::None && index == Register::RCX => {
                match before {
                    Rcx::Index(array, true) => Rcx::Entry(array, What::R10),
                    _ => Rcx::Other,
                }
            }
            seg @ (Register::GS | Register::FS) if load && index == Register::RCX => match before {
                Rcx::Number(what) => Rcx::Entry(seg, what),
                _ => Rcx::Other,
            },
            Register::GS if load && Self::slot(insn).is_some() => {
                Self::slot(insn).map_or(Rcx::Other, |slot| self.kept[slot])
            }
            Register::GS
                if load && index == Register::None && (0..2).contains(&of_arrays(insn)) =>
            {
                Rcx::Index(if of_arrays(insn) == 1 { Register::FS } else { Register::GS }, false)
            }
            // The one other field that is loaded whole.
            Register::GS
                if load && index == Register::None && insn.op0_register() == Register::RCX =>
            {
                Rcx::Distance
            }
            _ => Rcx::Other,
        };
    }
}

/// Which of the arrays' places a load from the context is of.
fn of_arrays(insn: &Instruction) -> i64 {
    let from = i64::from(insn.memory_displacement64() as i32) - i64::from(field!(arrays));
    if from % 8 == 0 { from / 8 } else { -1 }
}
