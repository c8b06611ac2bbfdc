//! Guests: a few instructions each, assembled with the harness itself.
//!
//! They run at [`crate::Machine::code_at`] in 64-bit mode, with RBX at the bus's MMIO page.
//! Interrupts go to what begins 128 bytes after the start. Ports are those of
//! [`crate::FakeBus`].
//!
//! UNSAFETY: reads the bytes between two symbols of the assembled section.
#![allow(unsafe_code, reason = "the assembler gives symbols, not slices")]

macro_rules! guest {
    ($(#[$doc:meta])* $name:ident, $start:literal, $end:literal: $($line:literal)+) => {
        core::arch::global_asm!(
            ".pushsection .rodata.trine_guests, \"a\"",
            ".p2align 7",
            concat!(".globl ", $start, "\n", $start, ":"),
            $($line,)+
            concat!(".globl ", $end, "\n", $end, ":"),
            ".code64",
            ".popsection"
        );
        $(#[$doc])*
        pub fn $name() -> &'static [u8] {
            unsafe extern "C" {
                #[link_name = $start]
                static START: u8;
                #[link_name = $end]
                static END: u8;
            }
            let (start, end) = (&raw const START, &raw const END);
            // SAFETY: both symbols are in one read-only section, the bytes between them are the
            // assembled lines above, and nothing ever writes there.
            unsafe { std::slice::from_raw_parts(start, end.offset_from_unsigned(start)) }
        }
    };
}

guest! {
    /// Does nothing, for ever.
    spin, "trine_guest_spin", "trine_guest_spin_end":
    "2: pause"
    "jmp 2b"
}

guest! {
    /// Copies from counter to log by every kind of access, for ever.
    copy, "trine_guest_copy", "trine_guest_copy_end":
    "cld"
    "2: mov edx, 0x10"
    "in eax, dx"
    "mov edx, 0x14"
    "out dx, eax"
    "add dword ptr [rbx], 1"
    "lea rsi, [rbx + 0x10]"
    "lea rdi, [rbx + 0x14]"
    "movsd"
    "mov edx, 0x11"
    "mov edi, 0x100000"
    "mov ecx, 5"
    "rep insb"
    "mov edx, 0x15"
    "mov esi, 0x100000"
    "mov ecx, 5"
    "rep outsb"
    "jmp 2b"
}

guest! {
    /// Halts with interrupts on; the handler counts at DATA, ends the interrupt and is done.
    halt, "trine_guest_halt", "trine_guest_halt_end":
    "sti"
    "2: hlt"
    "jmp 2b"
    ".p2align 7"
    "inc qword ptr [0x100000]"
    "mov eax, 0xfee000b0"
    "mov dword ptr [rax], 0"
    "mov edx, 0x80"
    "out dx, al"
    "iretq"
}

guest! {
    /// Works a little, halts, and so on; the handler only counts at DATA.
    count_interrupts, "trine_guest_count", "trine_guest_count_end":
    "sti"
    "2: mov ecx, 50"
    "3: dec ecx"
    "jnz 3b"
    "hlt"
    "jmp 2b"
    ".p2align 7"
    "inc qword ptr [0x100000]"
    "iretq"
}

guest! {
    /// Starts the APIC's timer for RCX counts in mode RSI (an LVT entry), then as [`halt`].
    timer, "trine_guest_timer", "trine_guest_timer_end":
    "mov eax, 0xfee003e0"
    "mov dword ptr [rax], 0xb"
    "mov eax, 0xfee00320"
    "mov dword ptr [rax], esi"
    "mov eax, 0xfee00380"
    "mov dword ptr [rax], ecx"
    "test ecx, ecx"
    "jnz 4f"
    "rdtsc"
    "add eax, edi"
    "adc edx, 0"
    "mov ecx, 0x6e0"
    "wrmsr"
    "4: sti"
    "2: hlt"
    "jmp 2b"
    ".p2align 7"
    "inc qword ptr [0x100000]"
    "mov eax, 0xfee000b0"
    "mov dword ptr [rax], 0"
    "mov edx, 0x80"
    "out dx, al"
    "iretq"
}

guest! {
    /// Raises #UD.
    undefined, "trine_guest_undefined", "trine_guest_undefined_end":
    "ud2"
}

guest! {
    /// Shows the word at RSI, writes RAX there, shows it again, is done.
    exchange, "trine_guest_exchange", "trine_guest_exchange_end":
    "mov edx, 0x90"
    "mov ecx, eax"
    "mov eax, [rsi]"
    "out dx, eax"
    "mov [rsi], ecx"
    "mov eax, [rsi]"
    "out dx, eax"
    "mov edx, 0x80"
    "out dx, al"
    "2: jmp 2b"
}

guest! {
    /// Writes at RSI, is done, and again.
    store, "trine_guest_store", "trine_guest_store_end":
    "2: mov [rsi], eax"
    "mov edx, 0x80"
    "out dx, al"
    "jmp 2b"
}

guest! {
    /// Counts at RSI, for ever.
    hammer, "trine_guest_hammer", "trine_guest_hammer_end":
    "2: inc qword ptr [rsi]"
    "jmp 2b"
}

guest! {
    /// Counts RCX times at RSI, LOCKed; is done.
    locked, "trine_guest_locked", "trine_guest_locked_end":
    "2: lock inc qword ptr [rsi]"
    "dec rcx"
    "jnz 2b"
    "mov edx, 0x80"
    "out dx, al"
    "3: pause"
    "jmp 3b"
}

guest! {
    /// Shows MSR ECX, low half first, or 0xbad when that faults; is done.
    rdmsr, "trine_guest_rdmsr", "trine_guest_rdmsr_end":
    "rdmsr"
    "mov ecx, edx"
    "mov edx, 0x90"
    "out dx, eax"
    "mov eax, ecx"
    "out dx, eax"
    "mov edx, 0x80"
    "out dx, al"
    "2: jmp 2b"
    ".p2align 7"
    "mov eax, 0xbad"
    "mov edx, 0x90"
    "out dx, eax"
    "mov edx, 0x80"
    "out dx, al"
    "2: jmp 2b"
}

guest! {
    /// Has room for an instruction of 16 bytes at its beginning; shows 1 behind it, or 0xbad when it
    /// faults; is done.
    tried, "trine_guest_tried", "trine_guest_tried_end":
    ".fill 16, 1, 0x90"
    "mov eax, 1"
    "mov edx, 0x90"
    "out dx, eax"
    "mov edx, 0x80"
    "out dx, al"
    "2: jmp 2b"
    ".p2align 7"
    "mov eax, 0xbad"
    "mov edx, 0x90"
    "out dx, eax"
    "mov edx, 0x80"
    "out dx, al"
    "2: jmp 2b"
}

guest! {
    /// Shows what CPUID returns, EAX to EDX; is done.
    cpuid, "trine_guest_cpuid", "trine_guest_cpuid_end":
    "cpuid"
    "mov esi, edx"
    "mov edx, 0x90"
    "out dx, eax"
    "mov eax, ebx"
    "out dx, eax"
    "mov eax, ecx"
    "out dx, eax"
    "mov eax, esi"
    "out dx, eax"
    "mov edx, 0x80"
    "out dx, al"
    "2: jmp 2b"
}

guest! {
    /// Shows the low half of the TSC in units of 1024, is done, and again.
    tsc, "trine_guest_tsc", "trine_guest_tsc_end":
    "2: rdtsc"
    "shl rdx, 32"
    "or rax, rdx"
    "shr rax, 10"
    "mov edx, 0x90"
    "out dx, eax"
    "mov edx, 0x80"
    "out dx, al"
    "jmp 2b"
}

guest! {
    /// Sends INIT and start-up (vector 0x0f) to APIC 1, then does nothing.
    start_other, "trine_guest_start", "trine_guest_start_end":
    "mov eax, 0xfee00310"
    "mov dword ptr [rax], 0x01000000"
    "mov eax, 0xfee00300"
    "mov dword ptr [rax], 0x4500"
    "mov dword ptr [rax], 0x460f"
    "2: pause"
    "jmp 2b"
}

guest! {
    /// For a CPU that was started: real mode, shows 0x5a, is done.
    started, "trine_guest_started", "trine_guest_started_end":
    ".code16"
    "mov dx, 0x90"
    "mov al, 0x5a"
    "out dx, al"
    "mov dx, 0x80"
    "out dx, al"
    "2: hlt"
    "jmp 2b"
}

guest! {
    /// Three one-byte instructions, then does nothing.
    steps, "trine_guest_steps", "trine_guest_steps_end":
    "nop"
    "nop"
    "nop"
    "2: jmp 2b"
}

guest! {
    /// For each N in 1..=RCX: writes `MOV EAX, N; RET` at RDI, calls it there, and is done when all
    /// returned N; shows the first that did not.
    rewrite_and_call, "trine_guest_rewrite", "trine_guest_rewrite_end":
    "xor r12d, r12d"
    "2: inc r12d"
    "mov byte ptr [rdi], 0xb8"
    "mov [rdi + 1], r12d"
    "mov byte ptr [rdi + 5], 0xc3"
    "call rdi"
    "cmp eax, r12d"
    "jne 3f"
    // Code ahead in this very page, within the line and the unit that runs.
    "lea r8, [rip + 4f + 1]"
    "mov [r8], r12d"
    "4: mov eax, 0x12345678"
    "cmp eax, r12d"
    "jne 3f"
    "dec rcx"
    "jnz 2b"
    "mov eax, 0x600d"
    "mov r12d, eax"
    "3: mov eax, r12d"
    "mov edx, 0x90"
    "out dx, eax"
    "mov edx, 0x80"
    "out dx, al"
    "5: pause"
    "jmp 5b"
}

guest! {
    /// The writer: for N in 1..=RCX, makes the eight bytes at RDI `MOV EAX, N; RET`, says so at
    /// RSI.
    write_code, "trine_guest_write_code", "trine_guest_write_code_end":
    "xor r12d, r12d"
    "2: inc r12d"
    "mov eax, r12d"
    "shl rax, 8"
    "mov r9, 0xc300000000b8"
    "or rax, r9"
    "mov [rdi], rax"
    "mov [rsi], r12d"
    "mov ebp, 40"
    "6: pause"
    "dec ebp"
    "jnz 6b"
    "dec rcx"
    "jnz 2b"
    "mov edx, 0x80"
    "out dx, al"
    "5: pause"
    "jmp 5b"
}

guest! {
    /// The reader: reads N at RSI, serialises, calls RDI, which must not return less; until N is
    /// RCX. Shows what is wrong, or 0x600d.
    call_code, "trine_guest_call_code", "trine_guest_call_code_end":
    "mov r13, rcx"
    "2: mov r12d, [rsi]"
    "test r12d, r12d"
    "jz 2b"
    "xor eax, eax"
    "cpuid"
    "call rdi"
    "cmp eax, r12d"
    "jb 3f"
    "cmp r12d, r13d"
    "jb 2b"
    "mov r12d, 0x600d"
    "3: mov eax, r12d"
    "mov edx, 0x90"
    "out dx, eax"
    "mov edx, 0x80"
    "out dx, al"
    "5: pause"
    "jmp 5b"
}

guest! {
    /// Calls R14 with its page mapped in turn to where R8 and R9 say (entries of a page table, at
    /// R10), INVLPG between or, in rounds whose number has a bit of R15, a new CR3; there is `MOV EAX, 1; RET` or 2.
    /// Shows 0x600d after RCX rounds.
    remap_code, "trine_guest_remap", "trine_guest_remap_end":
    "2: mov [r10], r8"
    "test rcx, r15"
    "jnz 6f"
    "invlpg [r14]"
    "jmp 7f"
    "6: mov rax, cr3"
    "mov cr3, rax"
    "7: call r14"
    "cmp eax, 1"
    "jne 3f"
    "mov [r10], r9"
    "invlpg [r14]"
    "call r14"
    "cmp eax, 2"
    "jne 3f"
    "dec rcx"
    "jnz 2b"
    "mov eax, 0x600d"
    "3: mov edx, 0x90"
    "out dx, eax"
    "mov edx, 0x80"
    "out dx, al"
    "5: pause"
    "jmp 5b"
}

guest! {
    /// Litmus tests. CPU R15 (0 to 3) of R14 does round R13 = 1.. RCX: waits for the others at RDI,
    /// then does part R15 of test R12 with X at RSI and Y at RSI + R8, both zero before; what it
    /// has read goes to R9 + 16 R15. When all are through, CPU 0 counts at RBX what must not be.
    /// Tests: 0 store buffering with fences, 1 message passing, 2 load buffering, 3 IRIW.
    litmus, "trine_guest_litmus", "trine_guest_litmus_end":
    "mov r13d, 1"
    "2: mov rax, r14"
    "imul rax, r13"
    "lock inc qword ptr [rdi]"
    "3: cmp [rdi], rax"
    "jb 3b"
    "xor r10d, r10d"
    "xor r11d, r11d"
    "cmp r12d, 1"
    "jb 10f"
    "je 11f"
    "cmp r12d, 3"
    "jb 12f"
    // IRIW
    "cmp r15d, 1"
    "jb 20f"
    "je 21f"
    "cmp r15d, 3"
    "jb 22f"
    "mov r10, [rsi + r8]"
    "mov r11, [rsi]"
    "jmp 30f"
    "20: mov [rsi], r13"
    "jmp 30f"
    "21: mov [rsi + r8], r13"
    "jmp 30f"
    "22: mov r10, [rsi]"
    "mov r11, [rsi + r8]"
    "jmp 30f"
    // Store buffering
    "10: test r15d, r15d"
    "jnz 23f"
    "mov [rsi], r13"
    "mfence"
    "mov r10, [rsi + r8]"
    "jmp 30f"
    "23: mov [rsi + r8], r13"
    "mfence"
    "mov r10, [rsi]"
    "jmp 30f"
    // Message passing
    "11: test r15d, r15d"
    "jnz 24f"
    "mov [rsi], r13"
    "mov [rsi + r8], r13"
    "jmp 30f"
    "24: mov r10, [rsi + r8]"
    "mov r11, [rsi]"
    "jmp 30f"
    // Load buffering
    "12: test r15d, r15d"
    "jnz 25f"
    "mov r10, [rsi]"
    "mov [rsi + r8], r13"
    "jmp 30f"
    "25: mov r10, [rsi + r8]"
    "mov [rsi], r13"
    // What was read, and once more together.
    "30: mov rax, r15"
    "shl rax, 4"
    "mov [r9 + rax], r10"
    "mov [r9 + rax + 8], r11"
    "mov rax, r14"
    "imul rax, r13"
    "lock inc qword ptr [rdi + 64]"
    "31: cmp [rdi + 64], rax"
    "jb 31b"
    "test r15d, r15d"
    "jnz 39f"
    "cmp r12d, 1"
    "jb 40f"
    "je 41f"
    "cmp r12d, 3"
    "jb 42f"
    // One saw X and not yet Y, the other Y and not yet X.
    "cmp [r9 + 32], r13"
    "jne 39f"
    "cmp [r9 + 40], r13"
    "je 39f"
    "cmp [r9 + 48], r13"
    "jne 39f"
    "cmp [r9 + 56], r13"
    "je 39f"
    "inc qword ptr [rbx]"
    "jmp 39f"
    "40: cmp [r9], r13"
    "je 39f"
    "cmp [r9 + 16], r13"
    "je 39f"
    "inc qword ptr [rbx]"
    "jmp 39f"
    "41: cmp [r9 + 16], r13"
    "jne 39f"
    "cmp [r9 + 24], r13"
    "je 39f"
    "inc qword ptr [rbx]"
    "jmp 39f"
    "42: cmp [r9], r13"
    "jne 39f"
    "cmp [r9 + 16], r13"
    "jne 39f"
    "inc qword ptr [rbx]"
    "39: inc r13"
    "cmp r13, rcx"
    "jbe 2b"
    "mov edx, 0x80"
    "out dx, al"
    "5: pause"
    "jmp 5b"
}
