//! What translated code may do, whatever the guest's instructions are.

use std::collections::HashMap;

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess,
    OpKind, Register, UsedMemory,
};
use x86_decode::native::Class;
use x86_state::CpuFeatures;

use super::{Source, Translator};
use crate::cache::{Cache, Key, Mode};
use crate::code::CODE_SIZE;
use crate::context::{CONTEXT_SIZE, LOOKS, field};
use crate::views::USER_JUMPS_FOR;

/// splitmix64.
struct Random(u64);

impl Random {
    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A page of what decodes more often than chance would have it.
    fn page(&mut self) -> [u8; 4096] {
        let mut page = [0; 4096];
        let mut at = 0;
        while at < 4096 - 20 {
            let choice = self.number();
            let mut put = |byte: u64| {
                page[at] = byte as u8;
                at += 1;
            };
            match choice & 7 {
                0 => put(*[0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x64, 0x65, 0x3e]
                    .get((choice >> 8 & 7) as usize)
                    .unwrap_or(&0x66)),
                1 => put(0x0f),
                2 => put(0xd8 | choice >> 8 & 7),
                _ => {}
            }
            if choice >> 16 & 1 == 0 {
                put(0x40 | choice >> 17 & 15);
            }
            if choice >> 24 & 3 == 0 {
                put(0x0f);
            }
            put(choice >> 32);
            put(choice >> 40);
            put(choice >> 48);
        }
        page
    }
}

/// An address that was looked up, or is about to be.
#[derive(Debug, Clone, Copy, PartialEq)]
enum What {
    /// R10.
    R10,
    /// These registers and a displacement, of the last byte; what is that far before it is on the
    /// same page.
    Sum { base: Register, index: Register, scale: u32, last: i64, before: i64 },
    /// A page whose number is known.
    Page(u64),
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
            Self::R10 => ((Register::R10, Register::None, 1), 0, i64::MAX),
            Self::Sum { base, index, scale, last, before } => {
                // A multiple of the scale is on one page with what follows up to the next.
                let scale_of_last = i64::from(scale);
                let aligned = base == Register::None && last % scale_of_last == 0;
                let end = last + if aligned { scale_of_last } else { 1 };
                ((base, index, scale), last - before, end)
            }
            Self::Page(_) | Self::Near(_) => ((Register::None, Register::None, 1), 0, 4096),
        };
        let fits = operand == own && first <= disp && (self != Self::R10 || disp == 0);
        fits.then_some(end - disp)
    }
}

/// Where RCX comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Rcx {
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
    Other,
}

/// Follows translated code from its beginning to its end.
#[derive(Clone, Copy, PartialEq)]
struct Walk {
    rcx: Rcx,
    /// R10 is the address of what was found, as of [`Rcx::Place`].
    r10_place: Option<(Register, i64)>,
    /// A number R10 was loaded with.
    r10: Option<u64>,
    /// How far it is from the page of the unit.
    r10_near: Option<i64>,
    /// Of sums: what is known to be on the page of the last byte.
    before: i64,
    /// What was found and put into the context.
    kept: [Rcx; LOOKS],
}

impl Walk {
    const START: Self = Self {
        rcx: Rcx::Other,
        r10_place: None,
        r10: None,
        r10_near: None,
        before: 0,
        kept: [Rcx::Other; LOOKS],
    };

    /// Arrives by two ways: knows what is known by both.
    fn join(&mut self, other: &Self) {
        if self == other {
            return;
        }
        self.rcx = Rcx::Other;
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

    /// What the instruction accesses is what was looked up for it.
    fn allows(&self, memory: &UsedMemory) -> bool {
        let disp = memory.displacement() as i64;
        let size = memory.memory_size().size() as i64;
        let writes = !matches!(memory.access(), OpAccess::Read | OpAccess::CondRead);
        let page = matches!(self.rcx, Rcx::Number(_));
        let found = match (memory.segment(), memory.base(), memory.index()) {
            (Register::GS, Register::None, Register::None) => {
                return (-(CONTEXT_SIZE as i64)..0).contains(&disp);
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
    fn forget(&mut self, written: &[Register]) {
        for known in self.kept.iter_mut().chain([&mut self.rcx]) {
            if let Rcx::Address(what, _)
            | Rcx::Shifted(what, ..)
            | Rcx::Number(what)
            | Rcx::Entry(_, what)
            | Rcx::Based(_, what) = *known
                && written.iter().any(|register| what.rests_on(*register))
            {
                *known = Rcx::Other;
            }
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

    fn follow(&mut self, insn: &Instruction, written: &[Register]) {
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
        let (r10, r10_near) = (self.r10, self.r10_near);
        if written.contains(&Register::R10) {
            self.r10_place = place;
            let displacement = insn.memory_displacement64() as i64;
            let code_page = insn.segment_prefix() == Register::GS
                && displacement == i64::from(field!(code_page))
                && (base, index) == (Register::None, Register::None);
            self.r10_near = match (load && code_page, lea && base == Register::R10) {
                (true, _) => Some(0),
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
        self.forget(written);
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
            // The page's first byte.
            Register::None if lea && base == Register::RCX && index == Register::R10 => {
                match (before, r10) {
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
            seg @ (Register::GS | Register::FS) if load && index == Register::RCX => match before {
                Rcx::Number(what) => Rcx::Entry(seg, what),
                _ => Rcx::Other,
            },
            Register::GS if load && Self::slot(insn).is_some() => {
                Self::slot(insn).map_or(Rcx::Other, |slot| self.kept[slot])
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

fn is_harmless(insn: &Instruction) -> bool {
    use Mnemonic as M;
    let branch = match insn.flow_control() {
        FlowControl::Next | FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch => {
            true
        }
        FlowControl::IndirectBranch => insn.segment_prefix() == Register::GS,
        _ => insn.mnemonic() == M::Int3,
    };
    let state = matches!(
        insn.mnemonic(),
        M::Cld | M::Std | M::Popf | M::Popfq | M::Wrfsbase | M::Wrgsbase | M::Wrpkru | M::Swapgs
    ) || matches!(
        insn.mnemonic(),
        M::Xrstor | M::Xrstor64 | M::Fxrstor | M::Fxrstor64 | M::Xsetbv
    );
    let segment = insn.op0_register().is_segment_register();
    branch && !state && !segment && !insn.is_privileged() && !insn.is_stack_instruction()
}

#[test]
fn translated_code_accesses_only_what_it_has_looked_up() {
    let mut cache = Cache::new(CODE_SIZE).unwrap();
    let mut translator = Translator::default();
    let mut factory = InstructionInfoFactory::new();
    let mut random = Random(7);
    let (mut accesses, mut units) = (0, 0);
    for round in 0..24_000_u64 {
        let page = random.page();
        let upper = if round & 1 == 0 { 0 } else { 0xffff_8000_0000_0000 };
        let last = if round & 0x1f == 1 { !0xfff } else { upper };
        let rip = last | random.number() & 0x3fff_ffff_f3ff;
        let mut mode = Mode::empty();
        mode.set(Mode::USER, upper == 0);
        mode.set(Mode::NO_WINDOW, round & 6 == 0);
        mode.set(Mode::COMPAT, upper == 0 && round % 5 == 0);
        if !cache.has_room() {
            cache.clear();
        }
        let jumped_to = round & 8 == 0;
        let rip = if upper == 0 { rip & 0xfff } else { rip };
        let key = Key { rip, page: 0, second: None, mode };
        translator.translate(
            &key,
            &Source {
                rip,
                bytes: &page,
                features: CpuFeatures::all(),
                mode,
                jumped_to,
                frame: None,
            },
            &mut cache,
        );
        let own = |class: Class| !matches!(class, Class::System | Class::String);
        if !translator.form.insns.iter().all(|insn| own(insn.class)) {
            continue;
        }
        units += 1;
        let (code, cold) = translator.asm.code().split_at(translator.cold_from);
        let cold_at = translator.cold_at();
        let listed = || {
            let cold = Decoder::with_ip(64, cold, cold_at, DecoderOptions::NONE);
            Decoder::new(64, code, DecoderOptions::NONE).into_iter().chain(cold)
        };
        let mut walk = Walk::START;
        // Jumps ahead, and what is known there; after a jump, nothing else is.
        let mut ahead: HashMap<u64, Walk> = HashMap::new();
        let mut arrives = true;
        for insn in listed() {
            let wrong = |why: &str| -> ! {
                let listing: Vec<_> = listed().map(|i| format!("{:x}: {i}", i.ip())).collect();
                panic!("round {round}: {insn} at {:x}: {why}\n{}", insn.ip(), listing.join("\n"))
            };
            match ahead.remove(&insn.ip()) {
                Some(there) if !arrives => walk = there,
                Some(there) => walk.join(&there),
                _ => {}
            }
            if !is_harmless(&insn) {
                wrong("not for translated code");
            }
            let info = factory.info(&insn);
            for memory in info.used_memory() {
                if memory.access() == OpAccess::NoMemAccess {
                    continue;
                }
                accesses += 1;
                if !walk.allows(memory) {
                    wrong(&format!("not looked up, {:?}", walk.rcx));
                }
            }
            let written: Vec<_> = info
                .used_registers()
                .iter()
                .filter(|used| !matches!(used.access(), OpAccess::Read | OpAccess::CondRead))
                .map(|used| used.register().full_register())
                .collect();
            walk.follow(&insn, &written);
            arrives = !matches!(
                insn.flow_control(),
                FlowControl::UnconditionalBranch | FlowControl::IndirectBranch
            );
            if insn.op0_kind() == OpKind::NearBranch64 {
                ahead.insert(insn.near_branch_target(), walk);
            }
        }
    }
    assert!(units > 10_000 && accesses > 100_000, "{units} units, {accesses} accesses");
}

#[test]
fn a_loop_at_the_end_of_all_addresses_can_be_left() {
    let mut cache = Cache::new(CODE_SIZE).unwrap();
    let mut translator = Translator::default();
    let mut page = [0x90; 4096];
    page[0xffe..].copy_from_slice(&[0xeb, 0xfe]); // JMP to itself
    let source = Source {
        rip: u64::MAX - 1,
        bytes: &page,
        features: CpuFeatures::all(),
        mode: Mode::empty(),
        jumped_to: false,
        frame: None,
    };
    let key = Key { rip: source.rip, page: 0, second: None, mode: source.mode };
    translator.translate(&key, &source, &mut cache);
    let code = translator.asm.code();
    let kick = |insn: &Instruction| {
        insn.segment_prefix() == Register::GS
            && insn.memory_displacement64() as i32 == field!(jump_mask)
    };
    assert!(Decoder::new(64, code, DecoderOptions::NONE).iter().any(|insn| kick(&insn)));
}

/// A kernel's page with these instructions at these offsets, and HLT elsewhere.
fn kernel_page(parts: &[(usize, &[u8])]) -> [u8; 4096] {
    let mut page = [0xf4; 4096];
    for (at, bytes) in parts {
        page[*at..*at + bytes.len()].copy_from_slice(bytes);
    }
    page
}

fn kernel_unit(cache: &mut Cache, page: &[u8; 4096], offset: u64) -> (Translator, Key) {
    let (rip, mode) = (0xffff_8000_0000_0000 + offset, Mode::empty());
    let key = Key { rip, page: 0, second: None, mode };
    let features = CpuFeatures::all();
    let source = Source { rip, bytes: page, features, mode, jumped_to: false, frame: None };
    let mut translator = Translator::default();
    translator.translate(&key, &source, cache);
    (translator, key)
}

fn hot_code(translator: &Translator) -> Vec<Instruction> {
    let code = &translator.asm.code()[..translator.cold_from];
    Decoder::new(64, code, DecoderOptions::NONE).into_iter().collect()
}

#[test]
fn what_was_found_is_not_looked_for_again_when_another_was_in_between() {
    let mut cache = Cache::new(CODE_SIZE).unwrap();
    // MOV RAX, [RBX]; MOV RDX, [RDI]; MOV RSI, [RBX+8]; XOR ECX, ECX
    let code = [0x48, 0x8b, 0x03, 0x48, 0x8b, 0x17, 0x48, 0x8b, 0x73, 0x08, 0x31, 0xc9];
    let (translator, _) = kernel_unit(&mut cache, &kernel_page(&[(0x100, &code)]), 0x100);
    let is_look = |insn: &&Instruction| {
        insn.segment_prefix() == Register::GS && insn.memory_index() == Register::RCX
    };
    assert_eq!(hot_code(&translator).iter().filter(is_look).count(), 2);
}

#[test]
fn a_link_over_a_look_at_the_frame_is_undone_when_its_unit_is_retired() {
    let mut cache = Cache::new(CODE_SIZE).unwrap();
    let page = kernel_page(&[
        // PUSH RBX; SUB RSP, 16; JMP 0x200
        (0x100, &[0x53, 0x48, 0x83, 0xec, 0x10, 0xe9, 0xf6, 0, 0, 0]),
        // MOV RAX, [RSP+8]; XOR ECX, ECX
        (0x200, &[0x48, 0x8b, 0x44, 0x24, 0x08, 0x31, 0xc9]),
    ]);
    let (_, target) = kernel_unit(&mut cache, &page, 0x200);
    let body = cache.find(&target).unwrap().body;
    let start = cache.memory.next();
    let (translator, _) = kernel_unit(&mut cache, &page, 0x100);
    let code = hot_code(&translator);
    let jump = code.iter().find(|insn| insn.mnemonic() == Mnemonic::Jmp).unwrap();
    let to = start.wrapping_add(jump.near_branch_target() as u32);
    assert!((body + 1..body + 48).contains(&to), "it goes to {to:#x}, not behind {body:#x}");
    assert!(cache.retire(0, 1 << (0x200 / 64)).is_some());
    let at = start + jump.next_ip() as u32 - 4;
    let now = cache.memory.read4(at);
    assert_ne!(now, to.wrapping_sub(at + 4));
}

/// Translates pages of their own until no generation is empty, or until the next one grows.
fn fill(cache: &mut Cache, random: &mut Random, until_next: bool) {
    let mut translator = Translator::default();
    let begun = cache.memory.current();
    while cache.has_room() && !(until_next && cache.memory.current() != begun) {
        let (page, mode) = (random.page(), Mode::empty());
        let key = Key {
            rip: 0xffff_9000_0000_0000,
            page: 1 + random.number() as u32 % (1 << 30),
            second: None,
            mode,
        };
        let features = CpuFeatures::all();
        let source =
            Source { rip: key.rip, bytes: &page, features, mode, jumped_to: false, frame: None };
        translator.translate(&key, &source, cache);
    }
}

#[test]
fn a_generation_is_dropped_with_its_units_and_the_links_to_them() {
    let mut cache = Cache::new(0).unwrap();
    let mut random = Random(11);
    let page = kernel_page(&[
        // JMP 0x200
        (0x100, &[0xe9, 0xfb, 0, 0, 0]),
        (0x200, &[0x31, 0xc9]),
        (0x300, &[0x31, 0xd2]),
    ]);
    let (_, target) = kernel_unit(&mut cache, &page, 0x200);
    let (_, retired) = kernel_unit(&mut cache, &page, 0x300);
    fill(&mut cache, &mut random, true);
    let start = cache.memory.next();
    let (translator, source) = kernel_unit(&mut cache, &page, 0x100);
    let jump = hot_code(&translator).into_iter().find(|insn| insn.mnemonic() == Mnemonic::Jmp);
    let jump = jump.unwrap();
    let goes_to = |cache: &Cache| {
        let behind = start + jump.next_ip() as u32;
        behind.wrapping_add(cache.memory.read4(behind - 4))
    };
    assert_eq!(goes_to(&cache), cache.find(&target).unwrap().link);
    // One of a later generation is replaced by one of the first.
    let by = cache.find(&retired).unwrap().body;
    let (_, later) = kernel_unit(&mut cache, &kernel_page(&[(0x400, &[0x31, 0xdb])]), 0x400);
    let (body, exit) = {
        let later = cache.find(&later).unwrap();
        (later.body, later.retired_exit)
    };
    cache.retire(0, 1 << (0x400 / 64));
    cache.replace(body, by);
    fill(&mut cache, &mut random, false);
    assert!(cache.find(&target).is_some() && cache.find(&source).is_some());

    let empty_pages = cache.drop_oldest();
    assert!(cache.find(&target).is_none() && cache.find(&source).is_some());
    assert!(!empty_pages.contains(&0) && !empty_pages.is_empty());
    let out = goes_to(&cache);
    assert!(cache.memory.is_cold(out), "it goes to {out:#x}, which is not a way out");
    assert_eq!(cache.memory.generation_of(out), cache.memory.generation_of(start));
    assert_eq!(body.wrapping_add(5).wrapping_add(cache.memory.read4(body + 1)), exit);
    let (_, again) = kernel_unit(&mut cache, &page, 0x200);
    assert!(cache.find(&again).is_some() && cache.has_room());
}

#[test]
fn code_takes_no_more_memory_than_it_may() {
    let mut cache = Cache::new(4 << 20).unwrap();
    let mut random = Random(12);
    for _ in 0..20 {
        fill(&mut cache, &mut random, false);
        assert!(cache.memory.bytes() <= 4 << 20);
        cache.drop_oldest();
    }
    assert!(cache.memory.bytes() > 1 << 20);
}
