//! A guest with a kernel and a user, on the interpreter and translated: both end in one state.
//!
//! UNSAFETY: reads the bytes between two symbols of the assembled section.
#![allow(unsafe_code, reason = "the assembler gives symbols, not slices")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::sync::Arc;

use engine::{Engine, Exit};
use engine_emu::EmuEngine;
use engine_full::FullEngine;
use harness::{Machine, Subject};
use x86_state::bits::{Cr4, Efer};
use x86_state::{CpuProfile, Gpr, Topology, VcpuState};

/// The kernel's addresses, over those of the user, which are physical ones.
const KERNEL: u64 = 0xffff_8000_0000_0000;
const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const GDT: u64 = 0x4000;
/// Where SYSCALL goes, from the code's start.
const ENTRY: u64 = 0x800;
/// What the code writes.
const DATA: std::ops::Range<u64> = 0x10_0000..0x11_1000;

core::arch::global_asm!(
    ".pushsection .rodata.privilege, \"a\"",
    ".balign 2048",
    ".globl privilege_start",
    "privilege_start:",
    "lea rcx, [rip + 4f]",
    "mov rax, 0xffff800000000000",
    "sub rcx, rax",
    "mov esp, 0x108000",
    "mov r11d, 0xad7",
    "mov r15d, 300",
    "xor r14d, r14d",
    "swapgs",
    "sysretq",
    // The user.
    "4: pushfq",
    "pop rax",
    "add r14, rax",
    "rol r14, 7",
    "mov eax, cs",
    "add r14, rax",
    "mov r10d, ss",
    "add r14, r10",
    "mov word ptr [0x100100], cs",
    "mov ax, ds",
    "add r14, rax",
    "mov eax, r15d",
    "bts qword ptr [0x100200], rax",
    "adc r14, 1",
    "mov rax, -70",
    "lock btc qword ptr [0x100240], rax",
    "adc r14, 1",
    "mov eax, r15d",
    "neg eax",
    "btr dword ptr [0x100300], eax",
    "adc r14, 1",
    "tzcnt eax, r14d",
    "add r14, rax",
    "mov esi, 0x102f83",
    "mov edi, 0x104e41",
    "mov ecx, 3000",
    "mov byte ptr [rsi + rcx - 7], cl",
    "cmp r15d, 100",
    "rep movsb",
    "adc r14, rdi",
    "mov edi, 0x105ffe",
    "mov ecx, 2100",
    "mov rax, r14",
    "rep stosd",
    "add r14, rdi",
    "mov edi, 0x109ff8",
    "mov esi, 0x105ff8",
    "movsq",
    "movsb",
    "movsw",
    "lodsb",
    "add r14, rax",
    "lodsd",
    "add r14, rax",
    "stosw",
    "std",
    "stosq",
    "movsd",
    "cld",
    "add r14, rsi",
    "add r14, rdi",
    "mov eax, r15d",
    "shl rax, 5",
    "wrfsbase rax",
    "rdfsbase r10",
    "add r14, r10",
    "wrgsbase r10",
    "rdgsbase ecx",
    "add r14, rcx",
    "cmp r14d, r15d",
    "syscall",
    "adc r14, rcx",
    "pushfq",
    "pop rax",
    "add r14, rax",
    "xor r14, r11",
    "push rax",
    "popfq",
    "adc r14, 3",
    "dec r15d",
    "jnz 4b",
    "mov edi, 0xdead",
    "syscall",
    // The kernel.
    ".balign 2048",
    "swapgs",
    "mov gs:[8], rsp",
    "mov rsp, gs:[0]",
    "pushfq",
    "pop rax",
    "add r14, rax",
    "cmp edi, 0xdead",
    "je 9f",
    "push rcx",
    "push r11",
    "mov eax, cs",
    "add r14, rax",
    "mov eax, ss",
    "add r14, rax",
    "mov rax, cr0",
    "add r14, rax",
    "sti",
    "pushfq",
    "pop rax",
    "add r14, rax",
    "cli",
    "pushfq",
    "pop rax",
    "add r14, rax",
    "push 0x282",
    "popfq",
    "pushfq",
    "pop rax",
    "add r14, rax",
    "push 0x847",
    "popfq",
    "pushfq",
    "pop rax",
    "add r14, rax",
    "stac",
    "pushfq",
    "pop rax",
    "add r14, rax",
    "add r14, [0x100200]",
    "clac",
    "mov rax, rsp",
    // Linux returns to itself with a null SS.
    "mov ecx, r15d",
    "and ecx, 0x10",
    "push rcx",
    "push rax",
    "pushfq",
    "push 8",
    "lea rax, [rip + 7f]",
    "push rax",
    "cmp r14, rax",
    "iretq",
    "7: pushfq",
    "pop rax",
    "add r14, rax",
    "mov eax, ss",
    "add r14, rax",
    "test r15d, 1",
    "jz 8f",
    "pop r11",
    "pop rcx",
    "push 0x1b",
    "push qword ptr gs:[8]",
    "push r11",
    "push 0x23",
    "push rcx",
    "swapgs",
    "iretq",
    "8: pop r11",
    "pop rcx",
    "mov rsp, gs:[8]",
    "swapgs",
    "sysretq",
    "9: mov edx, 0x80",
    "out dx, al",
    "2: jmp 2b",
    ".globl privilege_end",
    "privilege_end:",
    // Another: the user keeps the kernel's stack pointer.
    ".globl intruder_start",
    "intruder_start:",
    "lea rcx, [rip + 4f]",
    "mov rax, 0xffff800000000000",
    "sub rcx, rax",
    "mov r11d, 0x3002",
    "mov eax, 5",
    "2: push rax",
    "pop rbx",
    "dec eax",
    "jnz 2b",
    "sysretq",
    "4: xor ebx, ebx",
    "push rbx",
    "mov edx, 0x80",
    "out dx, al",
    "2: jmp 2b",
    ".globl intruder_end",
    "intruder_end:",
    ".popsection"
);

// A kernel in the lower half, as firmware and old systems are, whose user tries to read what it has
// just written.
core::arch::global_asm!(
    ".pushsection .rodata.low, \"a\"",
    ".globl low_start",
    "low_start:",
    "mov r15d, 200",
    "xor r14d, r14d",
    "1: mov [0x100200], r15",
    "add r14, [0x100200]",
    "call 5f",
    "mov ecx, 0x200000",
    "mov r11d, 2",
    "sysretq",
    "5: ret",
    // The page fault.
    ".balign 128",
    "pop rax",
    "add r14, rax",
    "mov rax, cr2",
    "add r14, rax",
    "add r14, [0x200800]",
    "add rsp, 40",
    "dec r15d",
    "jnz 1b",
    "mov edx, 0x80",
    "out dx, al",
    "2: jmp 2b",
    ".globl low_end",
    "low_end:",
    ".popsection"
);

/// Of the user: `mov [0x200800], r15; test r15d, 1; jz +8; mov [0x100300], r15;
/// add r14, [0x100200]; hlt`.
const LOW_USER: [u8; 36] = [
    0x4c, 0x89, 0x3c, 0x25, 0x00, 0x08, 0x20, 0x00, 0x41, 0xf7, 0xc7, 1, 0, 0, 0, 0x74, 0x08, 0x4c,
    0x89, 0x3c, 0x25, 0x00, 0x03, 0x10, 0x00, 0x4c, 0x03, 0x34, 0x25, 0x00, 0x02, 0x10, 0x00, 0xf4,
    0xf4, 0xf4,
];

unsafe extern "C" {
    #[link_name = "privilege_start"]
    static PRIVILEGE: u8;
    #[link_name = "privilege_end"]
    static PRIVILEGE_END: u8;
    #[link_name = "intruder_start"]
    static INTRUDER: u8;
    #[link_name = "intruder_end"]
    static INTRUDER_END: u8;
    #[link_name = "low_start"]
    static LOW: u8;
    #[link_name = "low_end"]
    static LOW_END: u8;
}

fn between(start: *const u8, end: *const u8) -> &'static [u8] {
    // SAFETY: callers name the two symbols of a run of assembled lines above, which are in one
    // read-only section that nothing ever writes to.
    unsafe { std::slice::from_raw_parts(start, end.offset_from_unsigned(start)) }
}

fn low_code() -> &'static [u8] {
    between(&raw const LOW, &raw const LOW_END)
}

fn code() -> &'static [u8] {
    between(&raw const PRIVILEGE, &raw const PRIVILEGE_END)
}

/// A machine about to run this as its kernel.
fn machine(engine: Arc<dyn Engine>, code: &[u8]) -> Machine {
    let subject = Subject { engine, tsc_khz: 2_000_000, beyond_host: Vec::new() };
    let mut machine = Machine::new(&subject, 1);
    machine.place(0, code);
    // All is the user's below, and the kernel's above.
    machine.write(PML4, PDPT | 7);
    machine.write(PML4 + 256 * 8, PDPT | 3);
    for (gib, directory) in (0u64..).zip(Machine::DIRECTORIES) {
        machine.write(PDPT + gib * 8, directory | 7);
        for i in 0..512 {
            machine.write(directory + i * 8, (gib << 30 | i << 21) | 0x187);
        }
    }
    machine.write(GDT + 0x18, 0x00cf_f300_0000_ffff);
    machine.write(GDT + 0x20, 0x00af_fb00_0000_ffff);
    machine.write(DATA.start, KERNEL + DATA.end);
    let mut state = machine.long_mode(0);
    state.regs.rip += KERNEL;
    state.regs.gpr[Gpr::Rsp as usize] = KERNEL + DATA.end;
    state.gdtr.base += KERNEL;
    state.gdtr.limit = 0x27;
    state.idtr.base += KERNEL;
    state.cr4 |= (Cr4::PGE | Cr4::FSGSBASE | Cr4::SMAP).bits();
    state.efer |= Efer::SCE.bits();
    // DS and its like are as Linux has them.
    for register in [0, 3, 4, 5] {
        state.segments[register] = x86_state::Segment::unusable(0, 0);
    }
    state.segments[5].base = KERNEL + DATA.start;
    state.msrs.star = 0x0010_0008 << 32;
    state.msrs.lstar = KERNEL + Machine::code_at(0) + ENTRY;
    state.msrs.fmask = 0x25_7fd5;
    machine.vcpus[0].load(&state).unwrap();
    machine
}

/// The last state, and the memory that was written.
fn run(engine: Arc<dyn Engine>) -> (VcpuState, Vec<u64>) {
    let mut machine = machine(engine, code());
    machine.run_until_done();
    let memory = DATA.step_by(8).map(|at| machine.read(at)).collect();
    (machine.vcpus[0].save().unwrap(), memory)
}

fn full_runs_here() -> bool {
    let profile = CpuProfile::portable(Topology { cores: 1 }, 2_000_000).unwrap();
    FullEngine.check(&profile).map_err(|lacks| println!("NOT RUN: {}", lacks.reason)).is_ok()
}

#[test]
fn a_user_with_the_kernels_stack_pointer_does_not_reach_the_kernels_stack() {
    let intruder = between(&raw const INTRUDER, &raw const INTRUDER_END);
    let engines: [Arc<dyn Engine>; 2] = [Arc::new(EmuEngine), Arc::new(FullEngine)];
    for engine in engines {
        if !full_runs_here() {
            return;
        }
        let mut machine = machine(engine, intruder);
        // There is no stack for the handler of the fault.
        assert_eq!(machine.run(), Exit::TripleFault);
        assert_eq!(machine.read(DATA.end - 8), 1, "what the kernel pushed last");
    }
}

#[test]
fn a_kernel_and_its_user_do_the_same_translated_as_interpreted() {
    assert!(code().len() > ENTRY as usize && code().len() < 0x1000);
    if !full_runs_here() {
        return;
    }
    let (emu, emu_memory) = run(Arc::new(EmuEngine));
    let (full, full_memory) = run(Arc::new(FullEngine));
    assert_eq!(emu.regs.gpr[15], 0, "the guest came to its end");
    assert_eq!(full.regs, emu.regs);
    assert_eq!(full.segments, emu.segments);
    assert_eq!(full.msrs, emu.msrs);
    let controls = |state: &VcpuState| [state.cr0, state.cr2, state.cr3, state.cr4];
    assert_eq!(controls(&full), controls(&emu));
    assert_eq!(full_memory, emu_memory);
}

/// The last state, after a user has tried to read and write what is the kernel's beside it.
fn run_low(engine: Arc<dyn Engine>) -> VcpuState {
    const TSS: u64 = 0x6000;
    const USER_PAGE: u64 = 2 << 20;
    let subject = Subject { engine, tsc_khz: 2_000_000, beyond_host: Vec::new() };
    let mut machine = Machine::new(&subject, 1);
    machine.place(0, low_code());
    for (at, bytes) in (USER_PAGE..).step_by(8).zip(LOW_USER.chunks(8)) {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        machine.write(at, u64::from_le_bytes(word));
    }
    machine.write(PML4, PDPT | 7);
    machine.write(PDPT, Machine::DIRECTORIES[0] | 7);
    machine.write(Machine::DIRECTORIES[0], 0x183);
    machine.write(Machine::DIRECTORIES[0] + 8, USER_PAGE | 0x187);
    machine.write(GDT + 0x18, 0x00cf_f300_0000_ffff);
    machine.write(GDT + 0x20, 0x00af_fb00_0000_ffff);
    machine.write(TSS + 4, DATA.end);
    let mut state = machine.long_mode(0);
    state.regs.gpr[Gpr::Rsp as usize] = DATA.end;
    state.gdtr.limit = 0x27;
    state.tr.base = TSS;
    state.efer |= Efer::SCE.bits();
    state.msrs.star = 0x0010_0008 << 32;
    machine.vcpus[0].load(&state).unwrap();
    machine.run_until_done();
    machine.vcpus[0].save().unwrap()
}

#[test]
fn a_user_never_reaches_what_a_kernel_beside_it_uses() {
    assert_eq!(low_code()[Machine::HANDLER as usize], 0x58, "the handler");
    let profile = CpuProfile::portable(Topology { cores: 1 }, 2_000_000).unwrap();
    if let Err(lacks) = FullEngine.check(&profile) {
        println!("NOT RUN: {}", lacks.reason);
        return;
    }
    let (emu, full) = (run_low(Arc::new(EmuEngine)), run_low(Arc::new(FullEngine)));
    assert_eq!((emu.regs.gpr[15], emu.cr2), (0, 0x10_0300), "the guest came to its end");
    assert_eq!(full.regs, emu.regs);
    assert_eq!(full.cr2, emu.cr2);
}
