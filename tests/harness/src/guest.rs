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
