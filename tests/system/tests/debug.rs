//! Breakpoints and single steps in 64-bit mode, on our engines and on Bochs.

use iced_x86::code_asm::*;
use system::{Asm, Long, Oracle};

/// A place for accesses.
const AREA: u64 = Long::DATA + 0x400;
const PORT: u32 = 0xed;
const TF: i32 = 0x102;
const RF: i32 = 0x1_0002;

type Body = (&'static str, fn(&mut CodeAssembler) -> Asm);

/// Cases in which Bochs is wrong or another CPU, and how.
const KNOWN: &[(&str, &str)] = &[
    (
        "general detect",
        "does not set RF, though this is a fault (SDM vol. 3B, 18.3.1.1 and 18.3.1.3)",
    ),
    ("DR7 reads back", "has RTM, and so a bit for it"),
];

fn check(guest: Long, known: &[(&str, &str)]) {
    system::check(Oracle::Bochs, [guest.finish()], &Long::LAYOUT, known);
}

/// Watches `at` by register 1: kind (1 writes, 2 ports, 3 accesses) and length as in DR7.
fn watch(a: &mut CodeAssembler, at: u64, kind: u32, length: u32) -> Asm {
    a.mov(rbx, at)?;
    a.mov(dr1, rbx)?;
    a.mov(ebx, 0x404 | kind << 20 | length << 22)?;
    a.mov(dr7, rbx)?;
    a.mov(rbx, 7u64)
}

fn set_flags(a: &mut CodeAssembler, flags: i32) -> Asm {
    a.push(flags)?;
    a.popfq()
}

#[test]
fn execution_stops_where_it_is_watched() {
    let mut guest = Long::default();
    let bodies: [Body; 6] = [
        ("nop", |a| {
            a.nop()?;
            a.nop()
        }),
        ("a fault there", |a| a.ud2()),
        ("a page fault there", |a| a.mov(al, byte_ptr(Long::TEST))),
        ("an interrupt there", |a| a.int(0x71)),
        ("a string there", |a| {
            a.rep().stosb()?;
            a.nop()
        }),
        ("MOV SS there", |a| {
            a.mov(ss, r10d)?;
            a.nop()
        }),
    ];
    for (name, body) in bodies {
        for flags in [2, RF, TF, RF | TF] {
            for control in [0x401u32, 0x402, 0x400, 0x1_0401] {
                guest.parts(
                    format!("{name}, flags {flags:x}, DR7 {control:x}"),
                    |a, case| {
                        a.mov(rbx, case.second)?;
                        a.mov(dr0, rbx)?;
                        a.mov(ebx, control)?;
                        a.mov(dr7, rbx)?;
                        a.mov(edi, AREA as u32)?;
                        a.mov(ecx, 3)?;
                        a.mov(r10d, 0x10)?;
                        a.push(0x10)?;
                        a.push(rsp)?;
                        a.push(flags)?;
                        a.push(8)?;
                        a.push(case.second as i32)?;
                        a.iretq()
                    },
                    &body,
                );
            }
        }
    }
    check(guest, &[]);
}

#[test]
fn accesses_stop_behind_their_instruction() {
    let accesses: [Body; 13] = [
        ("read byte", |a| a.mov(al, byte_ptr(AREA + 3))),
        ("write byte", |a| a.mov(byte_ptr(AREA + 3), al)),
        ("change dword", |a| a.add(dword_ptr(AREA), eax)),
        ("locked change", |a| a.lock().xadd(qword_ptr(AREA), rcx)),
        ("compare, not exchanged", |a| a.cmpxchg(dword_ptr(AREA), ecx)),
        ("write qword before", |a| a.mov(qword_ptr(AREA - 4), rax)),
        ("write 16 bytes", |a| a.movups(xmmword_ptr(AREA - 9), xmm0)),
        ("push, pop", |a| {
            a.mov(esp, AREA as u32 + 8)?;
            a.push(rax)?;
            a.pop(rcx)
        }),
        ("call", |a| {
            a.mov(esp, AREA as u32 + 8)?;
            a.mov(ebx, Long::DATA as u32)?;
            a.call(rbx)
        }),
        ("rep stosb", |a| {
            a.mov(edi, AREA as u32 - 2)?;
            a.mov(ecx, 8)?;
            a.rep().stosb()
        }),
        ("rep movsw", |a| {
            a.mov(esi, AREA as u32 - 2)?;
            a.mov(edi, AREA as u32 + 0x100)?;
            a.mov(ecx, 8)?;
            a.rep().movsw()
        }),
        ("fstp tbyte", |a| {
            a.fld1()?;
            a.fstp(tword_ptr(AREA - 8))
        }),
        ("MOV SS reads", |a| {
            a.mov(dword_ptr(AREA), 0x10)?;
            a.nop()?;
            a.mov(ss, word_ptr(AREA))
        }),
    ];
    let mut guest = Long::default();
    for (name, access) in accesses {
        for kind in [1u32, 3] {
            for (length, at) in [(0u32, 0u64), (0, 3), (1, 2), (1, 3), (3, 0), (3, 2), (2, 0)] {
                guest.ring0(format!("{name}, kind {kind}, length {length}, at {at}"), |a| {
                    watch(a, AREA + at, kind, length)?;
                    access(a)?;
                    a.nop()?;
                    a.nop()
                });
            }
        }
    }
    check(guest, &[]);
}

#[test]
fn ports_stop_with_debugging_extensions() {
    let mut guest = Long::default();
    let bodies: [Body; 5] = [
        ("out byte", |a| a.out(PORT as i32, al)),
        ("out dword", |a| {
            a.mov(edx, PORT - 2)?;
            a.out(dx, eax)
        }),
        ("in byte", |a| {
            a.in_(al, PORT as i32)?;
            a.mov(al, 0)
        }),
        ("another port", |a| a.out(PORT as i32 + 1, al)),
        ("rep outsb", |a| {
            a.mov(esi, AREA as u32)?;
            a.mov(edx, PORT)?;
            a.mov(ecx, 3)?;
            a.rep().outsb()
        }),
    ];
    for (name, body) in bodies {
        for extensions in [0u32, 8] {
            for length in [0, 1, 3] {
                guest.ring0(format!("{name}, CR4 {extensions:x}, length {length}"), |a| {
                    a.mov(rbx, cr4)?;
                    a.or(ebx, extensions)?;
                    a.mov(cr4, rbx)?;
                    watch(a, (PORT & !1).into(), 2, length)?;
                    body(a)?;
                    a.nop()
                });
            }
        }
    }
    check(guest, &[]);
}

#[test]
fn steps_are_single() {
    let bodies: [Body; 16] = [
        ("nop", |a| a.nop()),
        ("pushfq", |a| {
            a.pushfq()?;
            a.pop(rcx)
        }),
        ("popfq that ends it", |a| {
            a.popfq()?;
            a.nop()
        }),
        ("a string", |a| {
            a.mov(edi, AREA as u32)?;
            a.mov(ecx, 3)?;
            a.rep().stosb()
        }),
        ("int", |a| a.int(0x71)),
        ("int3", |a| a.int3()),
        ("int1", |a| a.int1()),
        ("a fault", |a| a.ud2()),
        ("a page fault", |a| a.mov(byte_ptr(Long::TEST), al)),
        ("MOV SS", |a| {
            a.mov(ss, r10d)?;
            a.nop()?;
            a.nop()
        }),
        ("MOV SS, int", |a| {
            a.mov(ss, r10d)?;
            a.int(0x71)
        }),
        ("MOV SS, a fault", |a| {
            a.mov(ss, r10d)?;
            a.ud2()
        }),
        ("sti", |a| {
            a.sti()?;
            a.nop()
        }),
        ("a jump", |a| {
            let mut to = a.create_label();
            a.jmp(to)?;
            a.nop()?;
            a.set_label(&mut to)?;
            a.nop()
        }),
        ("a write that is watched", |a| {
            a.mov(byte_ptr(AREA), al)?;
            a.nop()
        }),
        ("DR6", |a| {
            a.mov(rcx, dr6)?;
            a.nop()
        }),
    ];
    let mut guest = Long::default();
    for (name, body) in bodies {
        guest.ring0(format!("step of {name}"), |a| {
            watch(a, AREA, 1, 0)?;
            a.mov(r10d, 0x10)?;
            a.push(2)?;
            set_flags(a, TF)?;
            body(a)?;
            a.nop()
        });
        guest.ring3(format!("step of {name}, ring 3"), |_| Ok(()), TF, &body);
    }
    let bodies: [Body; 9] = [
        ("general detect", |a| {
            a.mov(ebx, 0x2400)?;
            a.mov(dr7, rbx)?;
            a.mov(rcx, dr0)
        }),
        ("general detect of DR7", |a| {
            a.mov(ebx, 0x2400)?;
            a.mov(dr7, rbx)?;
            a.mov(dr7, rcx)
        }),
        ("DR7 reads back", |a| {
            a.mov(ebx, 0xdc00u32)?;
            a.mov(dr7, rbx)?;
            a.mov(rcx, dr7)
        }),
        ("DR6 reads back", |a| {
            a.mov(ebx, 0xffff_0ff0u32 & !0xf)?;
            a.mov(dr6, rbx)?;
            a.mov(rdx, dr6)
        }),
        ("DR6 of zero", |a| {
            a.xor(ebx, ebx)?;
            a.mov(dr6, rbx)?;
            a.mov(rdx, dr6)
        }),
        ("DR6 above 32 bits", |a| {
            a.mov(rbx, 1u64 << 32)?;
            a.mov(dr6, rbx)
        }),
        ("DR7 above 32 bits", |a| {
            a.mov(rbx, 1u64 << 32)?;
            a.mov(dr7, rbx)
        }),
        ("DR5 with DE", |a| {
            a.mov(rbx, cr4)?;
            a.or(ebx, 8)?;
            a.mov(cr4, rbx)?;
            a.mov(rbx, dr5)
        }),
        ("DR0 not canonical", |a| {
            a.mov(rbx, 1u64 << 47)?;
            a.mov(dr0, rbx)?;
            a.mov(rcx, dr0)
        }),
    ];
    for (name, body) in bodies {
        guest.ring0(name, body);
        guest.ring3(format!("ring 3, {name}"), |_| Ok(()), 2, &body);
    }
    check(guest, KNOWN);
}
