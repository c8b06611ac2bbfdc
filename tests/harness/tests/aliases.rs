//! One page of user code at several addresses, beside different pages: on the interpreter and
//! translated, both end in one state.
//!
//! UNSAFETY: reads the bytes between two symbols of the assembled section.
#![allow(unsafe_code, reason = "the assembler gives symbols, not slices")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::sync::Arc;

use engine::Engine;
use engine_emu::EmuEngine;
use engine_full::FullEngine;
use harness::{Machine, Subject};
use x86_state::{CpuProfile, Gpr, Segment, Topology, VcpuState};

const PAGE: u64 = 0x1000;
/// Where the pages of code are in memory: what runs, and two it may have behind it.
const CODE: u64 = 0x12_0000;
const FIRST: u64 = CODE + PAGE;
const SECOND: u64 = CODE + 2 * PAGE;
/// The stack, and a page of data.
const STACK: u64 = 0x14_0000;
/// Tables of one address space, and of the next.
const TABLES: [u64; 2] = [0x30_0000, 0x31_0000];
/// Times each address space's code goes from one alias to the other.
const ROUNDS: u64 = 200;

core::arch::global_asm!(
    ".pushsection .rodata.aliases, \"a\"",
    ".balign 4096",
    ".globl aliases_start",
    "aliases_start:",
    // R13 is where this page is, R12 where it is as well.
    "2: lea rax, [rip + 3f]",
    "3: add r14, rax",
    "rol r14, 5",
    "call 5f",
    "call 7f + 0x40",
    "add r14, rax",
    "add r14, [rip + 7f + 0x80]",
    "inc dword ptr [rip + 8f]",
    "add r14d, [rip + 8f]",
    "call 6f",
    "add r14, rax",
    // It is changed by way of the other address.
    "mov [r12 + 0x301], r15d",
    "call 6f",
    "add r14, rax",
    "lea rax, [r12 + 0x300]",
    "call rax",
    "rol r14, 3",
    "add r14, rax",
    "call 9f",
    "add r14, rax",
    "push r14",
    "pop [rip + 7f + 0x88]",
    "test r15d, 7",
    "jz 4f",
    "add r14, 5",
    "4: xchg r12, r13",
    "dec r15d",
    "jz 4f",
    "jmp r13",
    "4: mov edx, 0x80",
    "out dx, al",
    "jmp 4b",
    "5: add r14, [rsp]",
    "ret",
    ".org aliases_start + 0x300",
    "6: mov eax, 1",
    "ret",
    ".balign 1024",
    "8: .long 0",
    // An instruction that ends on the page behind.
    ".org aliases_start + 0xffe",
    "9: .byte 0xb8, 0x11",
    "7: .byte 0x22, 0x33, 0x00",
    "ret",
    ".org aliases_start + 0x1040",
    "mov eax, 7",
    "add rax, [rsp]",
    "ret",
    ".org aliases_start + 0x1080",
    ".quad 0x1234567",
    ".org aliases_start + 0x2000",
    ".byte 0x44, 0x55, 0x66",
    "ret",
    ".org aliases_start + 0x2040",
    "lea rax, [rip]",
    "ret",
    ".org aliases_start + 0x2080",
    ".quad 0x7654321",
    ".org aliases_start + 0x3000",
    ".globl aliases_end",
    "aliases_end:",
    ".popsection"
);

fn code() -> &'static [u8] {
    unsafe extern "C" {
        #[link_name = "aliases_start"]
        static START: u8;
        #[link_name = "aliases_end"]
        static END: u8;
    }
    let (start, end) = (&raw const START, &raw const END);
    // SAFETY: both symbols are in one read-only section, the bytes between them are the assembled
    // lines above, and nothing ever writes there.
    unsafe { std::slice::from_raw_parts(start, end.offset_from_unsigned(start)) }
}

/// Maps a page for the user: the tables are one of each kind, from `root` on.
fn map(machine: &Machine, root: u64, linear: u64, at: u64) {
    for level in 0..4 {
        let entry = root + level * PAGE + (linear >> (39 - 9 * level) & 511) * 8;
        machine.write(entry, if level == 3 { at } else { root + (level + 1) * PAGE } | 7);
    }
}

/// Runs the code in an address space where it begins at `base`, and once more eight pages on.
fn run_at(machine: &mut Machine, root: u64, base: u64, behind: [u64; 2]) -> VcpuState {
    for (alias, behind) in [base, base + 8 * PAGE].into_iter().zip(behind) {
        map(machine, root, alias, CODE);
        map(machine, root, alias + PAGE, behind);
    }
    map(machine, root, base + 16 * PAGE, STACK);
    let mut state = machine.long_mode(0);
    state.cr3 = root;
    let flat = Segment { base: 0, limit: u32::MAX, selector: 0x1b, attr: 0xc0f3 };
    state.segments = [flat; 6];
    state.segments[1] = Segment { selector: 0x23, attr: 0xa0fb, ..flat };
    // Its ports are the user's.
    state.regs.rflags = 0x3002;
    state.regs.rip = base;
    state.regs.gpr[Gpr::Rsp as usize] = base + 17 * PAGE;
    state.regs.gpr[Gpr::R12 as usize] = base + 8 * PAGE;
    state.regs.gpr[Gpr::R13 as usize] = base;
    state.regs.gpr[Gpr::R15 as usize] = ROUNDS;
    machine.vcpus[0].load(&state).unwrap();
    machine.run_until_done();
    machine.vcpus[0].save().unwrap()
}

/// States after each address space, and what the pages hold then.
fn run(engine: Arc<dyn Engine>) -> (Vec<VcpuState>, Vec<u64>) {
    let subject = Subject { engine, tsc_khz: 2_000_000, beyond_host: Vec::new() };
    let mut machine = Machine::new(&subject, 1);
    for (i, chunk) in (0u64..).zip(code().chunks(8)) {
        machine.write(CODE + i * 8, u64::from_le_bytes(chunk.try_into().unwrap()));
    }
    let states = vec![
        run_at(&mut machine, TABLES[0], 0x5555_5540_0000, [FIRST, SECOND]),
        run_at(&mut machine, TABLES[1], 0x7fff_f7a2_3000, [SECOND, FIRST]),
        run_at(&mut machine, TABLES[0], 0x5555_5540_0000, [SECOND, SECOND]),
    ];
    let memory = (CODE..CODE + 3 * PAGE).step_by(8).map(|at| machine.read(at)).collect();
    (states, memory)
}

#[test]
fn a_page_of_code_at_many_addresses_does_the_same_translated_as_interpreted() {
    let profile = CpuProfile::portable(Topology { cores: 1 }, 2_000_000).unwrap();
    if let Err(lacks) = FullEngine.check(&profile) {
        println!("NOT RUN: {}", lacks.reason);
        return;
    }
    let (emu, emu_memory) = run(Arc::new(EmuEngine));
    let (full, full_memory) = run(Arc::new(FullEngine));
    for (full, emu) in full.iter().zip(&emu) {
        assert_eq!(emu.regs.gpr[Gpr::R15 as usize], 0, "the guest came to its end");
        assert_eq!(full.regs, emu.regs);
    }
    assert_eq!(full_memory, emu_memory);
}
