//! What translated code may do, whatever the guest's instructions are.

use std::collections::HashMap;

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess,
    OpKind, Register, UsedMemory,
};
use x86_decode::native::Class;

use super::{Source, Translator};
use crate::cache::{Cache, Key, Mode};
use crate::context::{CONTEXT_SIZE, field};
use crate::views::USER_JUMPS;

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

/// Where RCX comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Rcx {
    /// The page number of the address in R10.
    Page,
    /// An entry of the loads' or stores' array, for that address.
    Entry(Register),
    /// The stack window's distance.
    Distance,
    /// The address of what was found so.
    Place,
    Other,
}

/// Follows translated code from its beginning to its end.
#[derive(Clone, Copy, PartialEq)]
struct Walk {
    rcx: Rcx,
    /// R10 is the address of what was found.
    r10_is_place: Option<Rcx>,
    rcx_place: Rcx,
}

impl Walk {
    /// What the instruction accesses is what was looked up for it.
    fn allows(&self, memory: &UsedMemory) -> bool {
        let disp = memory.displacement() as i64;
        let writes = !matches!(memory.access(), OpAccess::Read | OpAccess::CondRead);
        let fits = |from: Rcx| match from {
            Rcx::Entry(Register::GS) => !writes,
            Rcx::Entry(_) | Rcx::Distance => true,
            _ => false,
        };
        match (memory.segment(), memory.base(), memory.index()) {
            (Register::GS, Register::None, Register::None) => {
                (-(CONTEXT_SIZE as i64)..0).contains(&disp)
            }
            (Register::GS, Register::None, Register::RCX) => {
                !writes
                    && (disp == 0 && self.rcx == Rcx::Page
                        || disp >= i64::from(USER_JUMPS) && disp < 0)
            }
            (Register::FS, Register::None, Register::RCX) => {
                !writes && disp == 0 && self.rcx == Rcx::Page
            }
            (_, Register::RSP, Register::RCX) => self.rcx == Rcx::Distance,
            (_, Register::R10, Register::RCX) => {
                disp == 0 && memory.scale() == 1 && fits(self.rcx) && self.rcx != Rcx::Distance
            }
            (_, Register::R10, Register::None) => disp == 0 && self.r10_is_place.is_some_and(fits),
            (_, Register::RCX, Register::None) => {
                disp == 0 && self.rcx == Rcx::Place && fits(self.rcx_place)
            }
            _ => false,
        }
    }

    fn follow(&mut self, insn: &Instruction, written: &[Register]) {
        let (base, index) = (insn.memory_base(), insn.memory_index());
        let load = insn.mnemonic() == Mnemonic::Mov && insn.op1_kind() == OpKind::Memory;
        let collapses = insn.mnemonic() == Mnemonic::Lea
            && index == Register::RCX
            && matches!(base, Register::R10 | Register::RSP)
            && matches!(self.rcx, Rcx::Entry(_) | Rcx::Distance);
        let before = self.rcx;
        if written.contains(&Register::R10) {
            self.r10_is_place = collapses.then_some(before);
        }
        if !written.contains(&Register::RCX) {
            return;
        }
        self.rcx = match insn.segment_prefix() {
            _ if collapses => {
                self.rcx_place = before;
                Rcx::Place
            }
            Register::GS
                if insn.mnemonic() == Mnemonic::Pext && insn.op1_register() == Register::R10 =>
            {
                Rcx::Page
            }
            seg @ (Register::GS | Register::FS)
                if load && before == Rcx::Page && index == Register::RCX =>
            {
                Rcx::Entry(seg)
            }
            // The one field that is loaded whole.
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
    let mut cache = Cache::new().unwrap();
    let mut translator = Translator::default();
    let mut factory = InstructionInfoFactory::new();
    let mut random = Random(7);
    let (mut accesses, mut units) = (0, 0);
    for round in 0..20_000_u64 {
        let page = random.page();
        let upper = if round & 1 == 0 { 0 } else { 0xffff_8000_0000_0000 };
        let last = if round & 0x1f == 1 { !0xfff } else { upper };
        let rip = last | random.number() & 0x3fff_ffff_f3ff;
        let mut mode = Mode::empty();
        mode.set(Mode::USER, upper == 0);
        mode.set(Mode::NO_WINDOW, round & 6 == 0);
        if !cache.has_room() {
            cache.clear();
        }
        let key = Key { rip, page: 0, second: None, mode };
        translator.translate(&key, &Source { rip, bytes: &page, mode }, &mut cache);
        let own = |class: Class| !matches!(class, Class::System | Class::String);
        if !translator.form.insns.iter().all(|insn| own(insn.class)) {
            continue;
        }
        units += 1;
        let code = translator.asm.code();
        let mut walk = Walk { rcx: Rcx::Other, r10_is_place: None, rcx_place: Rcx::Other };
        // Jumps ahead, and what is known there; after a jump, nothing else is.
        let mut ahead: HashMap<u64, Walk> = HashMap::new();
        let mut arrives = true;
        for insn in Decoder::new(64, code, DecoderOptions::NONE) {
            let wrong = |why: &str| -> ! {
                let listing: Vec<_> = Decoder::new(64, code, DecoderOptions::NONE)
                    .iter()
                    .map(|i| format!("{:x}: {i}", i.ip()))
                    .collect();
                panic!("round {round}: {insn} at {:x}: {why}\n{}", insn.ip(), listing.join("\n"))
            };
            match ahead.remove(&insn.ip()) {
                Some(there) if !arrives => walk = there,
                Some(there) if there != walk => walk.rcx = Rcx::Other,
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
            arrives = insn.flow_control() != FlowControl::UnconditionalBranch;
            if insn.op0_kind() == OpKind::NearBranch64 {
                ahead.insert(insn.near_branch_target(), walk);
            }
        }
    }
    assert!(units > 10_000 && accesses > 100_000, "{units} units, {accesses} accesses");
}

#[test]
fn a_loop_at_the_end_of_all_addresses_can_be_left() {
    let mut cache = Cache::new().unwrap();
    let mut translator = Translator::default();
    let mut page = [0x90; 4096];
    page[0xffe..].copy_from_slice(&[0xeb, 0xfe]); // JMP to itself
    let source = Source { rip: u64::MAX - 1, bytes: &page, mode: Mode::empty() };
    let key = Key { rip: source.rip, page: 0, second: None, mode: source.mode };
    translator.translate(&key, &source, &mut cache);
    let code = translator.asm.code();
    let kick = |insn: &Instruction| {
        insn.segment_prefix() == Register::GS && insn.memory_displacement64() as i32 == field!(kick)
    };
    assert!(Decoder::new(64, code, DecoderOptions::NONE).iter().any(|insn| kick(&insn)));
}
