//! What translated code may do, whatever the guest's instructions are.

mod walk;

use std::collections::HashMap;

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess,
    OpKind, Register,
};
use x86_decode::native::Class;
use x86_state::CpuFeatures;

use super::{Source, Translator};
use crate::cache::{Cache, Key, Mode};
use crate::code::CODE_SIZE;
use crate::context::field;
use walk::Walk;

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
            let compared = walk.compared;
            walk.follow(&insn, &written);
            arrives = !matches!(
                insn.flow_control(),
                FlowControl::UnconditionalBranch | FlowControl::IndirectBranch
            );
            if insn.op0_kind() == OpKind::NearBranch64 {
                let mut there = walk;
                if insn.mnemonic() == Mnemonic::Jrcxz {
                    there.is_zero();
                }
                ahead.insert(insn.near_branch_target(), there);
            }
            if insn.mnemonic() == Mnemonic::Jne && compared {
                walk.is_zero();
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
