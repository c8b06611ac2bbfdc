//! Random hardware task switches, and random accesses under 32-bit paging, PSE and PAE, on `emu`
//! and on Bochs.
//!
//! `SYSTEM_GUESTS` sets the number of guests of each kind, `SYSTEM_SEED` where they begin.

use iced_x86::code_asm::*;
use system::{Asm, Oracle, Protected, Random, setting};

const CASES: usize = 150;
/// Protected mode's second task, and its descriptor.
const TASK: u32 = 0x10_d000;
const DESCRIPTOR: u32 = 0x10_1070;
/// Words of a TSS (SDM vol. 3A, figure 8-2).
const FLAGS: u32 = 0x24;
const SELECTORS: u32 = 0x48;
const CS: u32 = SELECTORS + 4;
const SS: u32 = SELECTORS + 8;
const LDT: u32 = 0x60;
const TRAP: u32 = 0x64;
/// Of a task that can be run.
const SOUND: [u32; 7] = [0x10, 0x08, 0x10, 0x10, 0x20, 0x38, 0];

fn guests(make: fn(&mut Protected, &mut Random, &str), seed: u64) -> (Vec<u8>, Vec<String>) {
    let mut random = Random(seed);
    let mut guest = Protected::default();
    for case in 0..CASES {
        make(&mut guest, &mut random, &format!("seed {seed}, case {case}"));
    }
    guest.finish()
}

fn check(make: fn(&mut Protected, &mut Random, &str)) {
    let (count, seed) = (setting("SYSTEM_GUESTS", 2), setting("SYSTEM_SEED", 1));
    let guests = (seed..seed + count).map(|seed| guests(make, seed));
    system::check(Oracle::Bochs, guests, &Protected::LAYOUT, &[]);
}

/// A task that is sound but for at most one selector, and its descriptor. Not CS, whose faults are
/// also SS's: which of two comes first is the CPU's own.
fn prepare(a: &mut CodeAssembler, random: &mut Random) -> Asm {
    for (index, selector) in SOUND.into_iter().enumerate() {
        a.mov(dword_ptr(TASK + SELECTORS + index as u32 * 4), selector as i32)?;
    }
    let flags = random.pick(&[2, 0x3ad7, 0x102, 0x1_0002, 0x4002, 0x4_0002]);
    a.mov(dword_ptr(TASK + FLAGS), flags)?;
    a.mov(dword_ptr(TASK + TRAP), 0x68 << 16 | i32::from(random.below(8) == 0))?;
    if random.below(6) == 0 {
        // A task of ring 3.
        for (at, selector) in [(CS, 0x1b), (SS, 0x23), (SELECTORS, 0x23), (SELECTORS + 12, 0x23)] {
            a.mov(dword_ptr(TASK + at), selector)?;
        }
    }
    if random.below(2) == 0 {
        let selector = (random.below(34) as i32 * 8) | random.pick(&[0, 0, 3, 4]);
        let at = random.pick(&[SELECTORS, SS, SS + 4, SS + 8, SS + 12, LDT]);
        // With a stack of 16 bits, no handler would run; with one that is not present, what runs
        // depends on when the CPU changes its CPL.
        let no_stack = at == SS && matches!(selector & !7, 0x30..0x50 | 0x58);
        a.mov(dword_ptr(TASK + at), if no_stack { 0x50 } else { selector })?;
    }
    match random.below(10) {
        0 => a.mov(byte_ptr(DESCRIPTOR + 5), random.pick(&[0x69, 0x83, 0xeb, 0x89])),
        1 => a.mov(byte_ptr(DESCRIPTOR), random.pick(&[0x66, 0x2b, 0x67])),
        _ => Ok(()),
    }
}

fn switch(a: &mut CodeAssembler, random: &mut Random, ring0: bool) -> Asm {
    let selector = random.pick(&[0x70, 0x70, 0xa0, 0xa3, 0x73, 0xb8, 0xc8, 0xf8, 0x68]);
    match random.below(6) {
        0 => a.int(0x91),
        1 if ring0 => {
            // Back to a task that is busy.
            a.mov(dword_ptr(0x10_3000u32), selector)?;
            a.mov(byte_ptr(DESCRIPTOR + 5), 0xebu32 as i32)?;
            a.push(0x4002)?;
            a.popfd()?;
            a.iretd()
        }
        2 | 3 => {
            a.push(selector)?;
            a.push(0)?;
            a.jmp(fword_ptr(esp))
        }
        _ => {
            a.push(selector)?;
            a.push(0)?;
            a.call(fword_ptr(esp))
        }
    }
}

#[test]
fn tasks_are_switched_as_bochs_does() {
    check(|guest, random, name| {
        let state = random.number();
        // The descriptor as it was: the cases before may have left another.
        let before = |a: &mut CodeAssembler| {
            a.mov(byte_ptr(DESCRIPTOR), 0x67)?;
            prepare(a, &mut Random(state))
        };
        let mut after = Random(state ^ 1);
        if random.below(3) == 0 {
            guest.ring3(name, before, random.pick(&[2, 0x3002]), &|a| {
                switch(a, &mut Random(state ^ 1), false)
            });
        } else {
            guest.ring0(name, |a| {
                before(a)?;
                switch(a, &mut after, true)
            });
        }
    });
}

/// A page-table entry, sometimes with what PAE has no bits for.
fn entry(a: &mut CodeAssembler, random: &mut Random, pae: bool) -> Asm {
    let bits = random.pick(&[0, 1, 3, 5, 7, 7, 7, 0x67, 0x107]);
    if pae {
        let high = random.pick(&[0, 0, 0, 0x8000_0000u32, 0x10_0000, 1 << 30]);
        a.mov(dword_ptr(Protected::TEST_ENTRY_PAE + 4), high as i32)?;
        a.mov(dword_ptr(Protected::TEST_ENTRY_PAE), Protected::DATA as i32 | bits)
    } else {
        a.mov(dword_ptr(Protected::TEST_ENTRY), Protected::DATA as i32 | bits)
    }
}

fn paging(a: &mut CodeAssembler, random: &mut Random, pae: bool) -> Asm {
    entry(a, random, pae)?;
    a.mov(ecx, 0xc000_0080u32)?;
    a.mov(eax, random.pick(&[0u32, 0x800]))?;
    a.xor(edx, edx)?;
    a.wrmsr()?;
    let extensions = random.pick(&[0u32, 0, 1 << 20, 1 << 21, 3 << 20, 1 << 7]);
    let (bits, tables) = match (pae, random.below(2)) {
        (true, _) => (0x20, Protected::CR3_PAE),
        (false, 0) => (0, Protected::CR3_SMALL),
        (false, _) => (0x10, Protected::CR3),
    };
    a.mov(ecx, 0x600 | bits | extensions)?;
    a.mov(cr4, ecx)?;
    a.mov(ecx, tables)?;
    a.mov(cr3, ecx)?;
    a.mov(ecx, 0x8000_0033u32 | random.pick(&[0, 0x1_0000]))?;
    a.mov(cr0, ecx)
}

fn access(a: &mut CodeAssembler, random: &mut Random) -> Asm {
    let at = Protected::TEST + random.pick(&[0, 0x100, 0xffe, 0xffc]);
    match random.below(8) {
        0 => a.mov(ebx, dword_ptr(at)),
        1 => a.mov(dword_ptr(at), ebx),
        2 => a.lock().add(dword_ptr(at), edx),
        3 => {
            a.mov(ebx, Protected::TEST)?;
            a.call(ebx)
        }
        4 => {
            a.mov(edi, at)?;
            a.mov(ecx, 3)?;
            a.rep().stosd()
        }
        5 => a.push(dword_ptr(at)),
        6 => a.cmpxchg8b(qword_ptr(at)),
        _ => a.test(byte_ptr(at), 1),
    }
}

#[test]
fn pages_are_walked_as_bochs_does() {
    check(|guest, random, name| {
        let state = random.number();
        let pae = random.below(2) == 0;
        if random.below(2) == 0 {
            let before = |a: &mut CodeAssembler| paging(a, &mut Random(state), pae);
            guest.paged_ring3(name, before, &|a| {
                let mut random = Random(state ^ 1);
                (0..2).try_for_each(|_| access(a, &mut random))
            });
        } else {
            guest.ring0(name, |a| {
                let mut random = Random(state);
                paging(a, &mut random, pae)?;
                for _ in 0..5 {
                    match random.below(4) {
                        0 => {
                            entry(a, &mut random, pae)?;
                            a.invlpg(byte_ptr(Protected::TEST))?;
                        }
                        1 if random.below(4) == 0 => a.stac()?,
                        _ => access(a, &mut random)?,
                    }
                }
                Ok(())
            });
        }
    });
}
