//! Guest instructions a second, of small integer programs in flat 64-bit code.
//!
//! `cargo bench -p x86_exec [-- PROGRAM]` prints the best of several runs of each.
//!
//! UNSAFETY: reads machine code that the assembler put between two labels of this file.
#![allow(unsafe_code, missing_docs, reason = "labels of assembled code are foreign statics")]

use std::arch::global_asm;
use std::time::Instant;

use x86_exec::{Cpu, RunExit};

/// Instructions of one run.
const BUDGET: u64 = 50_000_000;
const RUNS: usize = 5;
const CODE: u64 = 0x10_0000;

macro_rules! program {
    ($function:ident, $start:literal, $end:literal, $code:literal) => {
        global_asm!(concat!($start, ":\n", $code, "\n", $end, ":\n"));
        fn $function() -> &'static [u8] {
            unsafe extern "C" {
                #[link_name = $start]
                static START: u8;
                #[link_name = $end]
                static END: u8;
            }
            // SAFETY: both labels are in the code above, in this order, and code does not change.
            unsafe {
                let (start, end) = (&raw const START, &raw const END);
                std::slice::from_raw_parts(start, end.offset_from(start) as usize)
            }
        }
    };
}

// Marks multiples in a table of bytes, and counts what is left.
program!(
    sieve,
    "trine_sieve",
    "trine_sieve_end",
    "
    mov r15d, 0x200000
2:  xor eax, eax
3:  mov byte ptr [r15 + rax], 1
    inc rax
    cmp rax, 8192
    jb 3b
    mov ecx, 2
4:  cmp byte ptr [r15 + rcx], 0
    je 6f
    lea rdx, [rcx + rcx]
    jmp 7f
5:  mov byte ptr [r15 + rdx], 0
    add rdx, rcx
7:  cmp rdx, 8192
    jb 5b
6:  inc rcx
    cmp rcx, 91
    jb 4b
    xor ebx, ebx
    xor eax, eax
8:  movzx edx, byte ptr [r15 + rax]
    add ebx, edx
    inc rax
    cmp rax, 8192
    jne 8b
    jmp 2b
"
);

// Calls itself, with a frame and saved registers.
program!(
    fibonacci,
    "trine_fib",
    "trine_fib_end",
    "
2:  mov edi, 20
    call 3f
    jmp 2b
3:  push rbp
    mov rbp, rsp
    push rbx
    push r12
    mov ebx, edi
    cmp ebx, 2
    jb 4f
    lea edi, [rbx - 1]
    call 3b
    mov r12, rax
    lea edi, [rbx - 2]
    call 3b
    add rax, r12
    jmp 5f
4:  mov eax, ebx
5:  pop r12
    pop rbx
    pop rbp
    ret
"
);

// Insertion sort of 64 numbers from a generator, over and over.
program!(
    sort,
    "trine_sort",
    "trine_sort_end",
    "
    mov r15d, 0x200000
    mov r14d, 12345
2:  xor ecx, ecx
3:  imul r14d, r14d, 1103515245
    add r14d, 12345
    mov eax, r14d
    shr eax, 16
    mov [r15 + rcx * 4], eax
    inc ecx
    cmp ecx, 64
    jne 3b
    mov ecx, 1
4:  mov eax, [r15 + rcx * 4]
    mov rdx, rcx
5:  test rdx, rdx
    je 6f
    mov esi, [r15 + rdx * 4 - 4]
    cmp esi, eax
    jbe 6f
    mov [r15 + rdx * 4], esi
    dec rdx
    jmp 5b
6:  mov [r15 + rdx * 4], eax
    inc ecx
    cmp ecx, 64
    jne 4b
    jmp 2b
"
);

// A byte-code interpreter: table jumps and little else.
program!(
    bytecode,
    "trine_bytecode",
    "trine_bytecode_end",
    "
    lea r8, [rip + 20f]
    mov r15d, 0x200000
    xor ecx, ecx
2:  mov eax, ecx
    imul eax, eax, 7
    shr eax, 2
    and eax, 3
    mov [r15 + rcx], al
    inc ecx
    cmp ecx, 1000
    jne 2b
3:  xor ecx, ecx
4:  movzx eax, byte ptr [r15 + rcx]
    inc rcx
    movsxd rax, dword ptr [r8 + rax * 4]
    add rax, r8
    jmp rax
10: add rbx, 3
    jmp 15f
11: xor rbx, rcx
    jmp 15f
12: shl rbx, 1
    jmp 15f
13: sub ebx, 1
15: cmp ecx, 1000
    jb 4b
    jmp 3b
    .balign 4
20: .long 10b - 20b, 11b - 20b, 12b - 20b, 13b - 20b
"
);

// A mixing function of registers only: what handlers cost by themselves.
program!(
    mix,
    "trine_mix",
    "trine_mix_end",
    "
    mov rax, 0x123456789abcdef
    mov ebx, 77
2:  mov rdx, rax
    shl rdx, 13
    xor rax, rdx
    mov rdx, rax
    shr rdx, 7
    xor rax, rdx
    mov rdx, rax
    shl rdx, 17
    xor rax, rdx
    lea rsi, [rax + rbx * 4 + 1]
    add rdi, rsi
    rol edi, 5
    and esi, 0xffff
    sub rbx, rsi
    adc rbp, 0
    inc ecx
    test ecx, 0xfff
    jne 2b
    jmp 2b
"
);

fn main() {
    let wanted = std::env::args().skip(1).find(|a| !a.starts_with('-'));
    let programs: [(&str, &[u8]); 5] = [
        ("sieve", sieve()),
        ("fibonacci", fibonacci()),
        ("sort", sort()),
        ("bytecode", bytecode()),
        ("mix", mix()),
    ];
    let mut product = 1.0;
    let mut count = 0;
    for (name, code) in programs {
        if wanted.as_ref().is_some_and(|w| w != name) {
            continue;
        }
        let best = (0..RUNS).map(|_| million_a_second(code)).fold(0.0, f64::max);
        println!("{name:10} {best:7.1} million instructions a second");
        product *= best;
        count += 1;
    }
    println!("{:10} {:7.1}", "geo. mean", product.powf(1.0 / f64::from(count)));
}

fn million_a_second(code: &[u8]) -> f64 {
    let mut cpu = Cpu::flat64(3, CODE, code);
    let start = Instant::now();
    assert_eq!(cpu.run(BUDGET), RunExit::Budget);
    assert_eq!(cpu.retired, BUDGET);
    BUDGET as f64 / start.elapsed().as_secs_f64() / 1e6
}
