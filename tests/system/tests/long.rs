//! System events of 64-bit mode, on our engines and on QEMU's TCG.

use iced_x86::code_asm::*;
use system::{Asm, Long, Oracle};

/// Cases in which TCG is wrong, and how.
const KNOWN: &[(&str, &str)] = &[
    ("mov ss 3, ring 0", "takes a null selector whose RPL is not the CPL"),
    ("int1", "raises #UD"),
    ("int 81, ring 3", "error code of a long-mode gate is the vector times 16"),
    ("int 98", "the same"),
    ("IDT too short", "the same"),
    ("int 99", "goes to an address that is not canonical"),
    ("jump, not canonical", "the same"),
    ("ret, not canonical", "the same"),
    ("stack not canonical", "#GP, not #SS, for an address that RBP makes"),
    ("SSE exception", "does not raise #XM"),
    ("cr8, ring 0", "ignores high bits"),
    ("wrmsr of nothing, ring 0", "ignores it"),
    ("xsetbv, ring 3", "looks at the ring before OSXSAVE"),
    ("alignment check 40000, dword", "has no #AC"),
    ("alignment check 40000, word", "has no #AC"),
    ("alignment check 40000, qword at 4", "has no #AC"),
    ("alignment check 40000, push", "has no #AC"),
    ("lar, lsl d0, ring 0", "takes a 16-bit TSS in long mode"),
    ("call far d8, ring 3", "takes code with both L and D"),
    ("call far db, ring 3", "the same"),
    ("jmp far d8, ring 3", "the same"),
    ("jmp far db, ring 3", "the same"),
    ("retf db, ring 0", "the same"),
    ("iretq db, ring 0", "the same"),
    ("sysret, ring 0", "does not load VIF"),
    ("syscall, mask 0", "clears the arithmetic flags"),
    ("syscall, mask 40701", "clears the arithmetic flags"),
    ("sysretq to 800000000000", "goes to an address that is not canonical"),
    ("sysexitq to 800000000000", "goes to an address that is not canonical"),
    ("sysexitl to 800000000000", "keeps the upper halves"),
    ("sysexitl to 140138000", "keeps the upper halves"),
    ("sysexit b", "takes the selector 3 for one that is not null"),
    ("sysexit, ring 0", "the same, left from the case before"),
    ("wrfsbase, not canonical", "has no #GP for bases that are not canonical"),
    ("msr c0000080", "ignores LME while paging is on"),
    ("msr 174", "keeps 16 bits"),
];

fn check(guests: Vec<Long>) {
    let guests = guests.into_iter().map(Long::finish);
    system::check(Oracle::Tcg, guests, &Long::LAYOUT, KNOWN);
}

fn nothing(_: &mut CodeAssembler) -> Asm {
    Ok(())
}

type Body = (&'static str, fn(&mut CodeAssembler) -> Asm);

/// Each of these in ring 0 and in ring 3.
fn both(guest: &mut Long, bodies: &[Body]) {
    for (name, body) in bodies {
        guest.ring0(format!("{name}, ring 0"), body);
        guest.ring3(format!("{name}, ring 3"), nothing, 2, body);
    }
}

#[test]
fn exceptions_have_their_frames() {
    let mut guest = Long::default();
    both(
        &mut guest,
        &[
            ("int3", |a| a.int3()),
            ("int1", |a| a.int1()),
            ("int 81", |a| a.int(0x81)),
            ("int 80", |a| a.int(0x80)),
            ("ud2", |a| a.ud2()),
            ("division by zero", |a| a.div(eax)),
            ("quotient too large", |a| {
                a.mov(edx, 5)?;
                a.mov(ebx, 2)?;
                a.div(ebx)
            }),
            ("hlt at ring 3", |a| {
                a.push(0x70)?;
                a.cli()
            }),
            ("not canonical", |a| {
                a.mov(rbx, 0x8000_0000_0000_0000u64)?;
                a.mov(al, byte_ptr(rbx))
            }),
            ("stack not canonical", |a| {
                a.mov(rbp, 0x8000_0000_0000_0000u64)?;
                a.mov(al, byte_ptr(rbp))
            }),
            ("push, not canonical", |a| {
                a.mov(rsp, 0x8000_0000_0000u64)?;
                a.push(1)
            }),
            ("jump, not canonical", |a| {
                a.mov(rbx, 0x8000_0000_0000u64)?;
                a.jmp(rbx)
            }),
            ("ret, not canonical", |a| {
                a.mov(rbx, 0x8000_0000_0000u64)?;
                a.push(rbx)?;
                a.ret()
            }),
            ("page not present", |a| a.mov(byte_ptr(Long::TEST), 1)),
            ("null call", |a| {
                a.xor(ebx, ebx)?;
                a.mov(rbx, 0x7fff_0000_0000u64)?;
                a.call(rbx)
            }),
            ("lock on a register", |a| a.db(&[0xf0, 0x01, 0xc0])),
            ("16 prefixes", |a| a.db(&[0x66; 16])),
            ("no instruction of 64-bit mode", |a| a.db(&[0x06])),
            ("single step", |a| {
                a.pushfq()?;
                a.or(qword_ptr(rsp), 0x100)?;
                a.popfq()?;
                a.nop()?;
                a.nop()
            }),
            ("single step over mov ss", |a| {
                a.mov(ebx, ss)?;
                a.pushfq()?;
                a.or(qword_ptr(rsp), 0x100)?;
                a.popfq()?;
                a.mov(ss, ebx)?;
                a.nop()?;
                a.nop()
            }),
            ("x87 exception", |a| {
                a.push(0x37a)?;
                a.fldcw(word_ptr(rsp))?;
                a.fld1()?;
                a.fldz()?;
                a.fdivp(st1, st0)?;
                a.wait()
            }),
            ("SSE exception", |a| {
                a.push(0x1d80)?;
                a.ldmxcsr(dword_ptr(rsp))?;
                a.xorps(xmm0, xmm0)?;
                a.mov(ebx, 1)?;
                a.cvtsi2ss(xmm1, ebx)?;
                a.divss(xmm1, xmm0)
            }),
            ("cr8", |a| {
                a.mov(rbx, cr8)?;
                a.mov(ecx, 16)?;
                a.mov(cr8, rcx)
            }),
            ("dr4", |a| a.mov(rbx, dr4)),
            ("in", |a| a.in_(al, 0x80)),
            ("sgdt", |a| a.sgdt(ptr(rsp + -16))),
            ("wrmsr of nothing", |a| {
                a.mov(ecx, 0x1234)?;
                a.wrmsr()
            }),
            ("rdtscp", |a| {
                a.rdtscp()?;
                a.xor(eax, eax)?;
                a.xor(edx, edx)
            }),
            ("cpuid leaf beyond", |a| {
                a.lahf()?;
                a.sahf()
            }),
            ("syscall without SCE", |a| a.clts()),
            ("swapgs", |a| {
                a.swapgs()?;
                a.swapgs()
            }),
            ("iretq with a wrong frame", |a| {
                a.mov(rbx, rsp)?;
                a.push(0x40)?;
                a.push(rbx)?;
                a.push(2)?;
                a.push(0x38)?;
                a.push(0)?;
                a.iretq()
            }),
            ("iretq with NT", |a| {
                a.pushfq()?;
                a.or(qword_ptr(rsp), 0x4000)?;
                a.popfq()?;
                a.iretq()
            }),
            ("popfq", |a| {
                a.mov(ebx, 0x0024_7fd7 & !0x100)?;
                a.push(rbx)?;
                a.popfq()?;
                a.pushfq()?;
                a.pop(rcx)
            }),
            ("xsetbv", |a| {
                a.mov(ecx, 0)?;
                a.mov(eax, 7)?;
                a.xsetbv()
            }),
        ],
    );
    for vector in 0x90..=0x9a {
        guest.ring0(format!("int {vector:x}, ring 0"), |a| a.int(vector));
        guest.ring3(format!("int {vector:x}, ring 3"), nothing, 2, &|a| a.int(vector));
    }
    guest.ring0("x87 with TS", |a| {
        a.mov(rbx, cr0)?;
        a.or(ebx, 8)?;
        a.mov(cr0, rbx)?;
        a.fld1()
    });
    guest.ring0("SSE with EM", |a| {
        a.mov(rbx, cr0)?;
        a.or(ebx, 4)?;
        a.mov(cr0, rbx)?;
        a.xorps(xmm0, xmm0)
    });
    guest.ring0("IDT too short", |a| {
        a.push(0)?;
        a.push(0)?;
        a.mov(word_ptr(rsp), 0xff)?;
        a.mov(qword_ptr(rsp + 2), 0x10_2000)?;
        a.lidt(ptr(rsp))?;
        a.int(0x21)
    });
    let aligned = |a: &mut CodeAssembler| {
        a.mov(rbx, cr0)?;
        a.or(ebx, 0x4_0000)?;
        a.mov(cr0, rbx)
    };
    for ac in [0, 0x4_0000] {
        for (name, body) in [
            ("dword", (|a| a.mov(ebx, dword_ptr(rsp + -15))) as fn(&mut CodeAssembler) -> Asm),
            ("word", |a| a.mov(word_ptr(rsp + -15), bx)),
            ("qword at 4", |a| a.mov(qword_ptr(rsp + -12), rbx)),
            ("push", |a| {
                a.dec(rsp)?;
                a.push(rax)
            }),
            ("movups", |a| a.movups(xmm0, xmmword_ptr(rsp + -15))),
            ("movaps", |a| a.movaps(xmm0, xmmword_ptr(rsp + -15))),
            ("byte", |a| a.mov(byte_ptr(rsp + -15), bl)),
        ] {
            guest.ring3(format!("alignment check {ac:x}, {name}"), aligned, 2 | ac, &body);
        }
    }
    check(vec![guest]);
}

#[test]
fn selectors_are_checked() {
    type Use = (&'static str, fn(&mut CodeAssembler) -> Asm);
    let uses: &[Use] = &[
        ("mov ds", |a| a.mov(ds, ebx)),
        ("mov ss", |a| a.mov(ss, ebx)),
        ("mov fs", |a| a.mov(fs, ebx)),
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
        ("call far", |a| {
            a.push(rbx)?;
            a.push(Long::REPORTS)?;
            a.mov(dword_ptr(rsp + 4), ebx)?;
            a.call(fword_ptr(rsp))
        }),
        ("jmp far", |a| {
            a.push(rbx)?;
            a.push(Long::REPORTS)?;
            a.mov(dword_ptr(rsp + 4), ebx)?;
            a.jmp(fword_ptr(rsp))
        }),
        ("retf", |a| {
            a.push(0x33)?;
            a.push(rsp)?;
            a.push(rbx)?;
            a.push(Long::REPORTS)?;
            a.db(&[0x48, 0xcb])
        }),
        ("iretq", |a| {
            a.push(0x33)?;
            a.push(rsp)?;
            a.push(2)?;
            a.push(rbx)?;
            a.push(Long::REPORTS)?;
            a.iretq()
        }),
        ("iretq to a stack", |a| {
            a.push(rbx)?;
            a.push(rsp)?;
            a.push(2)?;
            a.push(0x3b)?;
            a.push(Long::REPORTS)?;
            a.iretq()
        }),
    ];
    let mut guests = Vec::new();
    for (name, body) in uses {
        let mut guest = Long::default();
        for selector in (0..Long::GDT_END as u32 + 8).step_by(8) {
            for low in [0, 3, 4] {
                let selector = selector | low;
                let code = |a: &mut CodeAssembler| {
                    a.mov(ebx, selector)?;
                    body(a)
                };
                guest.ring0(format!("{name} {selector:x}, ring 0"), code);
                let is_free = *name != "iretq" && *name != "retf";
                if is_free {
                    guest.ring3(format!("{name} {selector:x}, ring 3"), nothing, 2, &code);
                }
            }
        }
        guests.push(guest);
    }
    check(guests);
}

#[test]
fn pages_permit_what_they_say() {
    let mut guest = Long::default();
    let entries = [0u64, 1, 3, 5, 7];
    let accesses: [Body; 4] = [
        ("read", |a| a.mov(rbx, qword_ptr(Long::TEST))),
        ("write", |a| a.mov(byte_ptr(Long::TEST + 8), bl)),
        ("execute", |a| {
            a.mov(ebx, Long::TEST as u32)?;
            a.call(rbx)
        }),
        ("read and write", |a| a.lock().or(qword_ptr(Long::TEST + 16), 1)),
    ];
    for (name, access) in accesses {
        for entry in entries {
            for (no_execute, reserved) in [(0u64, 0), (1 << 63, 0), (0, 1u64 << 51)] {
                let entry = entry | no_execute | reserved;
                for (clear, set) in [(0, 0), (0x1_0000, 0), (0, 3 << 20)] {
                    let prepare = |a: &mut CodeAssembler| {
                        a.mov(rcx, entry | Long::DATA)?;
                        a.mov(qword_ptr(Long::TEST_ENTRY), rcx)?;
                        a.invlpg(byte_ptr(Long::TEST))?;
                        a.mov(rcx, cr0)?;
                        a.and(ecx, !clear)?;
                        a.mov(cr0, rcx)?;
                        a.mov(rcx, cr4)?;
                        a.or(ecx, set)?;
                        a.mov(cr4, rcx)
                    };
                    let name = format!("{name} {entry:x} cr0-{clear:x} cr4+{set:x}");
                    guest.ring0(&name, |a| {
                        prepare(a)?;
                        access(a)
                    });
                    guest.ring3(format!("{name}, ring 3"), prepare, 2, &access);
                    if set != 0 && no_execute | reserved == 0 {
                        guest.ring0(format!("{name}, stac"), |a| {
                            prepare(a)?;
                            a.stac()?;
                            access(a)
                        });
                    }
                }
            }
        }
    }
    check(vec![guest]);
}

/// `mov ecx, number; wrmsr`.
fn wrmsr(a: &mut CodeAssembler, number: u32, value: u64) -> Asm {
    a.mov(ecx, number)?;
    a.mov(eax, value as u32)?;
    a.mov(edx, (value >> 32) as u32)?;
    a.wrmsr()
}

#[test]
fn fast_system_calls_change_rings() {
    const STAR: u32 = 0xc000_0081;
    const LSTAR: u32 = 0xc000_0082;
    const FMASK: u32 = 0xc000_0084;
    const SYSENTER_CS: u32 = 0x174;
    let mut guest = Long::default();
    for mask in [0u64, 0x4_0701, 0xffff_ffff] {
        guest.ring3(
            format!("syscall, mask {mask:x}"),
            |a| {
                // The first byte of the data page is RET: reports from where the guest was.
                a.mov(dword_ptr(Long::DATA), 0x90_80cd)?;
                wrmsr(a, STAR, 0x2b_0008 << 32)?;
                wrmsr(a, LSTAR, Long::DATA)?;
                wrmsr(a, FMASK, mask)
            },
            0x4_0ad7,
            &|a| a.syscall(),
        );
    }
    type Return = (&'static str, &'static [u8]);
    let returns: [Return; 4] = [
        ("sysretq", &[0x48, 0x0f, 0x07]),
        ("sysretl", &[0x0f, 0x07]),
        ("sysexitq", &[0x48, 0x0f, 0x35]),
        ("sysexitl", &[0x0f, 0x35]),
    ];
    for (name, code) in returns {
        for flags in [0u32, 0x25_7ed7, 0x1_0202] {
            for entry in [Long::USER_DATA, 0x8000_0000_0000, 0x1_0000_0000 | Long::USER_DATA] {
                guest.ring0(format!("{name} to {entry:x} with flags {flags:x}"), |a| {
                    a.mov(dword_ptr(Long::DATA), 0x90_80cd)?;
                    wrmsr(a, STAR, 0x2b_0008 << 32)?;
                    wrmsr(a, SYSENTER_CS, 0x08)?;
                    a.mov(rcx, entry)?;
                    a.mov(rdx, entry)?;
                    a.mov(r11d, flags)?;
                    a.db(code)
                });
            }
        }
    }
    for selector in [0u64, 0x08, 0x0b] {
        guest.ring3(
            format!("sysenter {selector:x}"),
            |a| {
                a.mov(dword_ptr(Long::DATA), 0x90_80cd)?;
                wrmsr(a, SYSENTER_CS, selector)?;
                wrmsr(a, SYSENTER_CS + 1, 0x12_4000)?;
                wrmsr(a, SYSENTER_CS + 2, Long::DATA)
            },
            0x4_0ad7,
            &|a| a.sysenter(),
        );
        guest.ring0(format!("sysexit {selector:x}"), |a| {
            wrmsr(a, SYSENTER_CS, selector & !8)?;
            a.sysexit()
        });
    }
    both(
        &mut guest,
        &[
            ("sysret", |a| a.sysretq()),
            ("sysexit", |a| a.sysexit()),
            ("wrfsbase", |a| {
                a.wrfsbase(rbx)?;
                a.wrgsbase(ecx)?;
                a.rdfsbase(r8)?;
                a.rdgsbase(r9)?;
                a.rdfsbase(r10d)
            }),
            ("wrfsbase, not canonical", |a| {
                a.mov(rbx, 0x8000_0000_0000u64)?;
                a.wrfsbase(rbx)
            }),
            ("rdfsbase without FSGSBASE", |a| {
                a.mov(rbx, cr4)?;
                a.and(ebx, !0x1_0000)?;
                a.mov(cr4, rbx)?;
                a.rdfsbase(rbx)
            }),
            ("fs relative", |a| {
                a.mov(ebx, Long::USER_DATA as u32)?;
                a.wrfsbase(rbx)?;
                a.mov(rax, qword_ptr(8).fs())?;
                a.mov(ebx, 0x30)?;
                a.mov(fs, ebx)?;
                a.rdfsbase(rcx)
            }),
            ("null into gs", |a| {
                a.wrgsbase(rbx)?;
                a.xor(ecx, ecx)?;
                a.mov(gs, ecx)?;
                a.rdgsbase(rcx)
            }),
        ],
    );
    for (number, value) in [
        (0xc000_0080u32, 0x400u64),
        (0xc000_0100, 0x1234_5678_9abc),
        (0xc000_0101, 0x1234_5678_9abc),
        (0xc000_0102, 0x1234_5678_9abc),
        (0x277, 0x0007_0406_0007_0406),
        (0xc000_0103, 5),
        (0x174, 0x1_0008),
        (0x175, 0x1234_5678_9abc),
        (0x2ff, 0xc06),
        (0x200, 0x8000_0006),
        (0x201, 0xff_8000_0800),
        (0x250, 0x0606_0606_0606_0606),
    ] {
        guest.ring0(format!("msr {number:x}"), |a| {
            wrmsr(a, number, value)?;
            a.xor(eax, eax)?;
            a.xor(edx, edx)?;
            a.rdmsr()
        });
    }
    check(vec![guest]);
}

#[test]
fn interrupts_wait_for_their_shadow() {
    const APIC: u64 = 0xfee0_0000;
    /// Sends vector 21 to itself, and waits for it to be pending.
    fn self_ipi(a: &mut CodeAssembler) -> Asm {
        a.mov(r8d, APIC as u32)?;
        a.mov(dword_ptr(r8 + 0xf0), 0x1ff)?;
        a.mov(dword_ptr(r8 + 0xb0), 0)?;
        a.mov(dword_ptr(r8 + 0x300), 0x4_4021)?;
        for _ in 0..20 {
            a.mov(ebx, dword_ptr(r8 + 0x210))?;
        }
        Ok(())
    }
    fn acknowledged(guest: &mut Long, name: &str, code: fn(&mut CodeAssembler) -> Asm) {
        guest.ring0(name, |a| {
            self_ipi(a)?;
            code(a)
        });
        guest.ring0(format!("after {name}: in service"), |a| {
            a.mov(r8d, APIC as u32)?;
            a.mov(ebx, dword_ptr(r8 + 0x110))?;
            a.mov(ecx, dword_ptr(r8 + 0x210))?;
            a.mov(dword_ptr(r8 + 0xb0), 0)
        });
    }
    let mut guest = Long::default();
    acknowledged(&mut guest, "sti, nops", |a| {
        a.sti()?;
        a.nop()?;
        a.nop()?;
        a.nop()
    });
    acknowledged(&mut guest, "sti, cli", |a| {
        a.sti()?;
        a.cli()?;
        a.nop()?;
        a.sti()?;
        a.hlt()
    });
    acknowledged(&mut guest, "sti, sti", |a| {
        a.sti()?;
        a.sti()?;
        a.nop()
    });
    acknowledged(&mut guest, "sti, hlt", |a| {
        a.sti()?;
        a.hlt()?;
        a.nop()
    });
    acknowledged(&mut guest, "popfq", |a| {
        a.push(0x202)?;
        a.popfq()?;
        a.nop()
    });
    acknowledged(&mut guest, "sti, mov ss", |a| {
        a.mov(ebx, 0x10)?;
        a.push(0x202)?;
        a.popfq()?;
        a.mov(ss, ebx)?;
        a.nop()
    });
    acknowledged(&mut guest, "cr8 above", |a| {
        a.mov(ebx, 3)?;
        a.mov(cr8, rbx)?;
        a.sti()?;
        a.nop()?;
        a.nop()?;
        a.xor(ebx, ebx)?;
        a.mov(cr8, rbx)?;
        a.nop()
    });
    check(vec![guest]);
}
