//! 32-bit code: a program of a page that a 64-bit process calls through the kernel's selector for such.
//!
//! UNSAFETY: assembly, copied into memory below 4 GiB and called there; it touches nothing but that memory,
//! and DS and ES, which 64-bit code does not look at.
#![allow(unsafe_code, reason = "no compiler makes a function of both kinds of code")]

use std::arch::global_asm;

use super::{Made, Place, mix};

/// Code and what it keeps; data; stack.
const SIZE: usize = 0x3000;
/// Where in the first page the code's process says who it is.
const NUMBER_AT: usize = 0xff0;

// Sorts 256 numbers made of the argument, copies them, adds them up with some decimal arithmetic and a
// recursion, and asks the kernel, as 32-bit programs do, for the process's number.
//
// EBX is where the memory begins; the stack pointer of the caller is at EBX + 0xff8, where to return
// to at EBX + 0xfe8.
global_asm!(
    "basket_narrow_start:",
    "push rbx; push rbp; push r12; push r13; push r14; push r15",
    "mov ebx, edi",
    "mov [rbx + 0xff8], rsp",
    "mov eax, 0x2b; mov ds, eax; mov es, eax",
    "lea rsp, [rbx + 0x3000]",
    "lea rax, [rip + basket_narrow_back]; mov [rbx + 0xfe8], eax",
    "lea rax, [rip + basket_narrow_32]",
    "push 0x23; push rax; retfq",
    ".code32",
    "basket_narrow_32:",
    "lea ebp, [ebx + 0x1000]",
    "mov eax, esi",
    "xor edi, edi",
    "2: imul eax, eax, 1664525",
    "add eax, 1013904223",
    "mov [ebp + edi*4], eax",
    "inc edi",
    "cmp edi, 256",
    "jne 2b",
    "mov ecx, 1",
    "3: mov eax, [ebp + ecx*4]",
    "mov edi, ecx",
    "4: mov edx, [ebp + edi*4 - 4]",
    "cmp edx, eax",
    "jbe 5f",
    "mov [ebp + edi*4], edx",
    "dec edi",
    "jne 4b",
    "5: mov [ebp + edi*4], eax",
    "inc ecx",
    "cmp ecx, 256",
    "jne 3b",
    "mov esi, ebp",
    "lea edi, [ebp + 0x400]",
    "mov ecx, 256",
    "cld",
    "rep movsd",
    "push 12",
    "call basket_narrow_sum",
    "add esp, 4",
    "mov edx, eax",
    "mov ecx, 256",
    "6: rol edx, 5",
    "xor edx, [ebp + ecx*4 + 0x3fc]",
    "loop 6b",
    "mov al, dl",
    "daa",
    "adc dl, al",
    "pushad",
    "add dword ptr [esp + 20], 12345",
    "popad",
    "push edx",
    "push ebx",
    "mov eax, 20",
    "int 0x80",
    "pop ebx",
    "pop edx",
    "mov [ebx + 0xff0], eax",
    "push 0x33",
    "push dword ptr [ebx + 0xfe8]",
    "retf",
    // Fibonacci's, the slow way.
    "basket_narrow_sum:",
    "push ebp",
    "mov ebp, esp",
    "sub esp, 8",
    "mov eax, [ebp + 8]",
    "cmp eax, 2",
    "jb 7f",
    "dec eax",
    "mov [ebp - 4], eax",
    "push eax",
    "call basket_narrow_sum",
    "mov [ebp - 8], eax",
    "mov eax, [ebp - 4]",
    "dec eax",
    "mov [esp], eax",
    "call basket_narrow_sum",
    "add eax, [ebp - 8]",
    "7: leave",
    "ret",
    ".code64",
    "basket_narrow_back:",
    "mov ebx, ebx",
    "mov rsp, [rbx + 0xff8]",
    "mov eax, edx",
    "pop r15; pop r14; pop r13; pop r12; pop rbp; pop rbx",
    "ret",
    "basket_narrow_end:",
);

unsafe extern "C" {
    static basket_narrow_start: u8;
    static basket_narrow_end: u8;
}

/// 32-bit code.
pub fn narrow(_: &Place) -> Made {
    let (start, end) = (&raw const basket_narrow_start, &raw const basket_narrow_end);
    let all = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT;
    // SAFETY: a new mapping, which stays; the code is a few hundred bytes, copied before it is run.
    let memory = unsafe {
        let memory = libc::mmap(std::ptr::null_mut(), SIZE, all, flags, -1, 0);
        if memory == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error().into());
        }
        let memory: *mut u8 = memory.cast();
        memory.copy_from_nonoverlapping(start, end as usize - start as usize);
        memory
    };
    Ok(Some(Box::new(move |rounds| {
        // SAFETY: the code begins as a C function of two numbers does, and keeps what such keep.
        let run: extern "C" fn(u32, u32) -> u32 = unsafe { std::mem::transmute(memory) };
        let mut sum = 0;
        for round in 0..rounds {
            sum = mix(sum, u64::from(run(memory as usize as u32, round as u32)));
            // SAFETY: inside of the mapping, and aligned.
            let number = unsafe { memory.add(NUMBER_AT).cast::<u32>().read_volatile() };
            sum = mix(sum, u64::from(number == std::process::id()));
        }
        sum
    })))
}
