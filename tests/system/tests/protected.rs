//! System events of 32-bit and 16-bit protected mode, of hardware tasks and of virtual-8086 mode,
//! on our engines and on QEMU's TCG.
//!
//! TCG has no segment limits but those of tables and far transfers: they are not compared here.

use iced_x86::code_asm::*;
use system::{Asm, Oracle, Protected};

/// Cases in which TCG is wrong, and how.
const KNOWN: &[(&str, &str)] = &[
    ("int 98, v86, flags 3000", "leaves virtual-8086 mode for ring 1"),
    ("ltr 0, ring 0", "takes a null selector"),
    ("ltr 3, ring 0", "takes a null selector"),
    ("call far 28, ring 0", "has the selector as error code of a limit"),
    ("call far d8, ring 0", "has the selector as error code of a limit"),
    ("call far a8, ring 3", "has RPL 0 in the CS of conforming code behind a gate"),
    ("call far ab, ring 3", "has RPL 0 in the CS of conforming code behind a gate"),
];

fn check(guests: Vec<Protected>) {
    let guests = guests.into_iter().map(Protected::finish);
    system::check(Oracle::Tcg, guests, &Protected::LAYOUT, KNOWN);
}

fn nothing(_: &mut CodeAssembler) -> Asm {
    Ok(())
}

type Body = (&'static str, fn(&mut CodeAssembler) -> Asm);

/// Pushes EBX as selector and the address that reports as offset.
fn push_far(a: &mut CodeAssembler) -> Asm {
    a.push(ebx)?;
    a.push(Protected::REPORTS as i32)
}

#[test]
fn selectors_are_checked() {
    let uses: &[Body] = &[
        ("mov ds", |a| a.mov(ds, ebx)),
        ("mov ss", |a| {
            a.mov(ss, ebx)?;
            a.mov(ecx, ss)?;
            a.mov(edx, 0x10)?;
            a.mov(ss, edx)
        }),
        ("lar, lsl", |a| {
            a.lar(ecx, ebx)?;
            a.setz(al)?;
            a.and(ecx, 0xf0_ff00)?; // the others are undefined
            a.lsl(edx, ebx)?;
            a.setz(ah)?;
            a.cmp(eax, eax)
        }),
        ("verr, verw", |a| {
            a.verr(ebx)?;
            a.setz(al)?;
            a.verw(ebx)?;
            a.setz(ah)?;
            a.cmp(eax, eax)
        }),
        ("lldt", |a| {
            a.lldt(bx)?;
            a.sldt(ecx)?;
            a.mov(edx, 0x0c)?;
            a.lar(edx, edx)?;
            a.and(edx, 0xf0_ff00)
        }),
        ("ltr", |a| {
            a.ltr(bx)?;
            a.str(ecx)
        }),
        ("call far", |a| {
            push_far(a)?;
            a.call(fword_ptr(esp))
        }),
        ("jmp far", |a| {
            push_far(a)?;
            a.jmp(fword_ptr(esp))
        }),
        ("retf", |a| {
            a.push(0x23)?;
            a.push(esp)?;
            push_far(a)?;
            a.retf()
        }),
        ("iretd", |a| {
            a.push(0x23)?;
            a.push(esp)?;
            a.push(2)?;
            push_far(a)?;
            a.iretd()
        }),
        ("iretd to a stack", |a| {
            a.push(ebx)?;
            a.push(esp)?;
            a.push(2)?;
            a.push(0x1b)?;
            a.push(Protected::REPORTS as i32)?;
            a.iretd()
        }),
    ];
    let mut guests = Vec::new();
    for (name, body) in uses {
        let mut guest = Protected::default();
        for selector in (0..Protected::GDT_END as u32 + 8).step_by(8) {
            for low in [0, 3, 4] {
                let selector = selector | low;
                // What a 16-bit TSS leaves of the upper halves is the CPU's own.
                if selector & !7 == 0x80 && name.ends_with(" far") {
                    continue;
                }
                // TCG returns to beyond a limit.
                if matches!(selector & !7, 0x28 | 0xd8) && matches!(*name, "retf" | "iretd") {
                    continue;
                }
                let code = |a: &mut CodeAssembler| {
                    a.mov(ebx, selector)?;
                    body(a)
                };
                guest.ring0(format!("{name} {selector:x}, ring 0"), code);
                guest.ring3(format!("{name} {selector:x}, ring 3"), nothing, 2, &code);
            }
        }
        guests.push(guest);
    }
    check(guests);
}

#[test]
fn gates_lead_where_they_say() {
    let mut guest = Protected::default();
    for vector in (0x8e..0x9c).chain([3, 4, 8, 0x80, 0xff]) {
        let code = |a: &mut CodeAssembler| a.int(vector);
        guest.ring0(format!("int {vector:x}, ring 0"), code);
        for flags in [2, 0x4ed7] {
            guest.ring3(format!("int {vector:x}, ring 3, flags {flags:x}"), nothing, flags, &code);
        }
        for flags in [0, 0x3000] {
            guest.v86(format!("int {vector:x}, v86, flags {flags:x}"), flags, &code);
        }
    }
    guest.ring0("IDT too short", |a| {
        a.sidt(ptr(esp - 8))?;
        a.mov(word_ptr(esp - 8), 0x486)?;
        a.lidt(ptr(esp - 8))?;
        a.int(0x90)
    });
    check(vec![guest]);
}

#[test]
fn tasks_are_switched() {
    let mut guest = Protected::default();
    for selector in [0x70u32, 0xa0, 0x78] {
        for (name, flags) in [("plain", 2i32), ("with flags", 0x0ad7), ("nested", 0x4002)] {
            for (how, code) in [
                ("call", (|a| a.call(fword_ptr(esp))) as fn(&mut CodeAssembler) -> Asm),
                ("jmp", |a| a.jmp(fword_ptr(esp))),
            ] {
                guest.ring0(format!("{how} {selector:x}, {name}"), |a| {
                    a.push(flags)?;
                    a.popfd()?;
                    a.push(selector as i32)?;
                    a.push(0)?;
                    code(a)
                });
            }
        }
    }
    guest.ring0("return from a task", |a| {
        a.mov(dword_ptr(0x10_d000u32), 0x70)?;
        a.mov(dword_ptr(0x10_3000u32), 0x70)?;
        a.mov(byte_ptr(0x10_1000u32 + 0x75), 0xeb)?; // busy
        a.push(0x4002)?;
        a.popfd()?;
        a.iretd()
    });
    guest.ring0("return to a task that is not busy", |a| {
        a.mov(dword_ptr(0x10_3000u32), 0x70)?;
        a.push(0x4002)?;
        a.popfd()?;
        a.iretd()
    });
    guest.ring0("double fault", |a| {
        a.mov(eax, 0x38)?;
        a.mov(ss, eax)?;
        a.mov(esp, 0x5000)?;
        a.push(eax)
    });
    check(vec![guest]);
}

#[test]
fn virtual_8086_mode_is_guarded() {
    let mut guest = Protected::default();
    let bodies: &[Body] = &[
        ("cli", |a| {
            a.cli()?;
            a.sti()
        }),
        ("pushf", |a| {
            a.pushf()?;
            a.pop(bx)
        }),
        ("popf", |a| {
            a.push(0x7ed7u32 as i32)?;
            a.popf()
        }),
        ("pushfd", |a| {
            a.db(&[0x66, 0x9c])?;
            a.db(&[0x66, 0x5b])
        }),
        ("iret", |a| {
            a.push(0x0ad7)?;
            a.push(0x800)?;
            a.push(9)?; // behind this
            a.iret()
        }),
        ("int3", |a| a.int3()),
        ("into", |a| {
            a.mov(al, 0x7f)?;
            a.add(al, 1)?;
            a.into()
        }),
        ("in", |a| a.in_(al, 0x71)),
        ("out to an absent port", |a| a.out(0xed, al)),
        ("hlt", |a| a.hlt()),
        ("lmsw", |a| a.lmsw(ax)),
        ("smsw", |a| a.smsw(eax)),
        ("lgdt", |a| a.lgdt(ptr(bx))),
        ("sgdt", |a| a.sgdt(ptr(si))),
        ("str", |a| a.str(ax)),
        ("lar", |a| a.lar(ax, bx)),
        ("mov cr0", |a| a.mov(eax, cr0)),
        ("mov dr0", |a| a.mov(eax, dr0)),
        ("rdtsc, wbinvd", |a| a.wbinvd()),
        ("arpl", |a| a.arpl(ax, bx)),
        ("sysenter", |a| a.sysenter()),
        ("mov ds", |a| {
            a.mov(ax, 0x13a0)?;
            a.mov(ds, ax)?;
            a.mov(bx, word_ptr(0x10))
        }),
        ("jmp far", |a| {
            a.db(&[0xea, 0x05, 0x10, 0x00, 0x07]) // 0700:1005, behind it
        }),
        ("call far", |a| {
            a.pop(cx)?;
            a.db(&[0x9a, 0x06, 0x10, 0x00, 0x07])
        }),
        ("above 1 MiB", |a| {
            a.mov(ax, 0xffff)?;
            a.mov(ds, ax)?;
            a.mov(eax, dword_ptr(0x10))
        }),
        ("ud2", |a| a.ud2()),
        ("division by zero", |a| {
            a.xor(cx, cx)?;
            a.div(cx)
        }),
    ];
    for (name, body) in bodies {
        for flags in [0, 0x3000, 0x3200] {
            guest.v86(format!("{name}, flags {flags:x}"), flags, body);
        }
    }
    check(vec![guest]);
}

#[test]
fn sixteen_bit_code_does_what_it_says() {
    let mut guest = Protected::default();
    let bodies: &[Body] = &[
        ("push, pop", |a| {
            a.push(bx)?;
            a.push(ecx)?;
            a.pop(esi)?;
            a.pop(di)
        }),
        ("enter, leave", |a| {
            a.mov(ebp, esp)?;
            a.db(&[0xc8, 16, 0, 1])?;
            a.mov(ax, sp)?;
            a.db(&[0xc9])
        }),
        ("16-bit stack", |a| {
            a.mov(ax, 0x30)?;
            a.mov(ss, ax)?;
            a.mov(esp, 0xdead_0400u32)?;
            a.push(bx)?;
            a.push(ecx)?;
            a.pusha()?;
            a.mov(edi, esp)?;
            a.mov(ax, 0x10)?;
            a.mov(ss, ax)?;
            a.mov(esp, 0x12_4000)
        }),
        ("call, ret", |a| {
            let mut to = a.create_label();
            let mut end = a.create_label();
            a.call(to)?;
            a.jmp(end)?;
            a.set_label(&mut to)?;
            a.mov(bx, word_ptr(esp))?;
            a.ret()?;
            a.set_label(&mut end)?;
            a.nop()
        }),
        ("pushfw, popfw", |a| {
            a.pushf()?;
            a.pop(bx)?;
            a.push(0x0ad5)?;
            a.popf()
        }),
        ("retf to 32 bits", |a| {
            a.db(&[0x66, 0x6a, 0x08])?; // push dword 8
            a.db(&[0x66, 0x68])?;
            a.db(&Protected::REPORTS.to_le_bytes())?;
            a.db(&[0x66, 0xcb])
        }),
        ("call gate of 16 bits", |a| a.db(&[0x9a, 0, 0, 0x98, 0])),
        ("call gate of 32 bits", |a| a.db(&[0x9a, 0, 0, 0x90, 0])),
        ("int of 16 bits", |a| a.int(0x92)),
        ("sgdt", |a| {
            a.mov(esi, 0x13_8100)?;
            a.sgdt(ptr(esi))?;
            a.mov(ebx, dword_ptr(esi + 2))
        }),
        ("lgdt of 24 bits", |a| {
            a.mov(esi, 0x10_c810)?;
            a.lgdt(ptr(esi))?;
            a.mov(ax, 0x38)?;
            a.mov(ds, ax)
        }),
    ];
    for (name, body) in bodies {
        guest.ring0_16(*name, body);
    }
    check(vec![guest]);
}

#[test]
fn pages_permit_what_they_say() {
    let mut guests = Vec::new();
    for (kind, table, pae) in [
        ("no PSE", Protected::CR3_SMALL, 0u32),
        ("PSE", Protected::CR3, 0x10),
        ("PAE", Protected::CR3_PAE, 0x20),
        ("PAE, SMEP, SMAP", Protected::CR3_PAE, 0x30_0020),
        ("SMEP, SMAP", Protected::CR3, 0x30_0010),
    ] {
        let mut guest = Protected::default();
        let accesses: [Body; 4] = [
            ("read", |a| a.mov(ebx, dword_ptr(Protected::TEST))),
            ("write", |a| a.mov(byte_ptr(Protected::TEST + 8), bl)),
            ("execute", |a| {
                a.mov(ebx, Protected::TEST)?;
                a.call(ebx)
            }),
            ("change", |a| a.lock().or(dword_ptr(Protected::TEST + 16), 1)),
        ];
        for (name, access) in accesses {
            for entry in [0u32, 1, 3, 5, 7] {
                for write_protect in [0u32, 0x1_0000] {
                    for high in [0u32, 0x8000_0000, 0x40_0000] {
                        if high != 0 && pae & 0x20 == 0 {
                            continue;
                        }
                        let prepare = |a: &mut CodeAssembler| {
                            a.mov(ecx, 0xc000_0080u32)?;
                            a.mov(eax, if high == 0x8000_0000 { 0x800 } else { 0 })?;
                            a.xor(edx, edx)?;
                            a.wrmsr()?;
                            let data = (Protected::DATA as u32 | entry) as i32;
                            if pae & 0x20 == 0 {
                                a.mov(dword_ptr(Protected::TEST_ENTRY), data)?;
                            } else {
                                a.mov(dword_ptr(Protected::TEST_ENTRY_PAE), data)?;
                                a.mov(dword_ptr(Protected::TEST_ENTRY_PAE + 4), high as i32)?;
                            }
                            a.mov(ecx, 0x600 | pae)?;
                            a.mov(cr4, ecx)?;
                            a.mov(ecx, table)?;
                            a.mov(cr3, ecx)?;
                            a.mov(ecx, 0x8000_0033 | write_protect)?;
                            a.mov(cr0, ecx)
                        };
                        let name =
                            format!("{kind}, {name} {entry:x} {high:x} WP {write_protect:x}");
                        guest.ring0(&name, |a| {
                            prepare(a)?;
                            access(a)
                        });
                        guest.paged_ring3(format!("{name}, ring 3"), prepare, &access);
                    }
                }
            }
        }
        guests.push(guest);
    }
    check(guests);
}
