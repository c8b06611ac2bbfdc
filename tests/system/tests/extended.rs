//! Extended state, UMIP and the local APIC in 64-bit mode, on our engines and on QEMU's TCG.

use iced_x86::code_asm::*;
use system::{Asm, Long, Oracle};

/// Cases in which TCG is wrong, and how.
const KNOWN: &[(&str, &str)] = &[
    ("xrstor 2, bad MXCSR", "takes reserved bits of MXCSR"),
    ("xrstor 3, bad MXCSR", "the same"),
    ("fxrstor at 138400, 11f80", "the same"),
    ("xsave, CR4 40000, CR0 8", "does not look at TS"),
    ("xrstor, CR4 40000, CR0 8", "the same"),
    ("syscall", "has it in compatibility mode, as AMD's CPUs do"),
];

fn check(guest: Long) {
    system::check(Oracle::Tcg, [guest.finish()], &Long::LAYOUT, KNOWN);
}

fn nothing(_: &mut CodeAssembler) -> Asm {
    Ok(())
}

type Body = (&'static str, fn(&mut CodeAssembler) -> Asm);

/// Sets bits of CR4.
fn with_cr4(a: &mut CodeAssembler, bits: u32) -> Asm {
    a.mov(rbx, cr4)?;
    a.or(ebx, bits)?;
    a.mov(cr4, rbx)
}

const OSXSAVE: u32 = 1 << 18;
/// A place for an image of extended state.
const AREA: u64 = Long::DATA + 0x400;

/// XCR0 with x87 and SSE, neither in its initial state, and the area full of a pattern.
fn extended(a: &mut CodeAssembler) -> Asm {
    with_cr4(a, OSXSAVE)?;
    a.xor(ecx, ecx)?;
    a.xor(edx, edx)?;
    a.mov(eax, 3)?;
    a.xsetbv()?;
    a.mov(dword_ptr(rsp - 8), 0x1f80)?;
    a.ldmxcsr(dword_ptr(rsp - 8))?;
    a.mov(edi, AREA as u32)?;
    a.mov(ecx, 64)?;
    a.mov(rax, 0x5566_7788_99aa_bbccu64)?;
    a.cld()?;
    a.rep().stosq()?;
    a.movq(xmm0, rax)?;
    a.fld1()?;
    a.mov(ecx, 8)?;
    a.xor(eax, eax)?;
    a.rep().stosq()?;
    a.mov(dword_ptr(AREA + 24), 0x1f80)?;
    a.mov(dword_ptr(AREA), 0x37f)
}

/// What came of it: in memory and in registers.
fn look(a: &mut CodeAssembler) -> Asm {
    a.fnstsw(ax)?;
    a.mov(bx, ax)?;
    a.mov(rax, 0xff_ffff_ffffu64)?; // the opcode is not compared
    a.and(rax, qword_ptr(AREA))?;
    a.mov(ecx, dword_ptr(AREA + 24))?;
    a.mov(rdx, qword_ptr(AREA + 32))?;
    a.movzx(esi, word_ptr(AREA + 40))?;
    a.mov(rdi, qword_ptr(AREA + 160))?;
    a.mov(r8, qword_ptr(AREA + 512))?;
    a.mov(r9, qword_ptr(AREA + 520))?;
    a.mov(r10, qword_ptr(AREA + 528))?;
    a.movq(r11, xmm0)?;
    a.fnstcw(word_ptr(rsp - 8))?;
    a.mov(r12w, word_ptr(rsp - 8))?;
    a.stmxcsr(dword_ptr(rsp - 8))?;
    a.mov(r13d, dword_ptr(rsp - 8))
}

#[test]
fn extended_state_is_saved_and_restored() {
    let mut guest = Long::default();
    type Op = (&'static str, fn(&mut CodeAssembler, u64) -> Asm);
    let saves: [Op; 3] = [
        ("xsave", |a, at| a.xsave(ptr(at))),
        ("xsave64", |a, at| a.xsave64(ptr(at))),
        ("xrstor", |a, at| a.xrstor(ptr(at))),
    ];
    for (name, op) in saves {
        for mask in [0i32, 1, 2, 3, -1] {
            for (present, at) in [(0i32, AREA), (1, AREA), (2, AREA), (3, AREA), (3, AREA + 16)] {
                let present = if name == "xrstor" { present } else { 3 - present };
                guest.ring0(format!("{name} {mask:x}, {present:x}, at {at:x}"), |a| {
                    extended(a)?;
                    a.mov(dword_ptr(AREA + 512), present)?;
                    a.mov(eax, mask)?;
                    a.mov(edx, mask)?;
                    op(a, at)?;
                    look(a)
                });
            }
        }
    }
    for (what, at, value) in [
        ("a component not in XCR0", 512u64, 0x103i32),
        ("a component that is none", 516, 1),
        ("compact form", 524, i32::MIN),
        ("XCOMP_BV", 520, 1),
        ("header 16", 528, 1),
        ("header 24", 536, 1),
        ("header 56", 568, 1),
        ("MXCSR", 24, 0x1_1f80),
    ] {
        for mask in [0i32, 1, 2, 3] {
            guest.ring0(format!("xrstor {mask}, bad {what}"), |a| {
                extended(a)?;
                a.mov(dword_ptr(AREA + 512), 3)?;
                a.mov(dword_ptr(AREA + at), value)?;
                a.mov(eax, mask)?;
                a.xor(edx, edx)?;
                a.xrstor(ptr(AREA))?;
                look(a)
            });
        }
    }
    for (at, mxcsr) in [(AREA, 0x1f80), (AREA, 0x1_1f80), (AREA + 8, 0x1f80)] {
        guest.ring0(format!("fxsave at {at:x}, {mxcsr:x}"), |a| {
            extended(a)?;
            a.fxsave(ptr(at))?;
            look(a)
        });
        guest.ring0(format!("fxrstor at {at:x}, {mxcsr:x}"), |a| {
            extended(a)?;
            a.mov(dword_ptr(AREA + 24), mxcsr)?;
            a.fxrstor(ptr(at))?;
            look(a)
        });
    }
    for (index, value) in [(0, 0), (0, 1), (0, 2), (0, 3), (0, 5), (0, i32::MIN), (1, 3)] {
        guest.ring0(format!("xsetbv {index}, {value:x}"), |a| {
            with_cr4(a, OSXSAVE)?;
            a.mov(ecx, index)?;
            a.mov(eax, value)?;
            a.xor(edx, edx)?;
            a.xsetbv()?;
            a.xgetbv()
        });
    }
    let bodies: [Body; 4] = [
        ("xsave", |a| a.xsave(ptr(AREA))),
        ("xrstor", |a| a.xrstor(ptr(AREA))),
        ("xgetbv", |a| a.xgetbv()),
        ("fxsave", |a| a.fxsave(ptr(AREA))),
    ];
    for (name, body) in bodies {
        for (cr4_bits, cr0_bits) in [(0, 0), (0, 8), (OSXSAVE, 8), (OSXSAVE, 4)] {
            guest.ring0(format!("{name}, CR4 {cr4_bits:x}, CR0 {cr0_bits:x}"), |a| {
                with_cr4(a, cr4_bits)?;
                a.mov(rbx, cr0)?;
                a.or(ebx, cr0_bits)?;
                a.mov(cr0, rbx)?;
                a.xor(ecx, ecx)?;
                a.xor(eax, eax)?;
                a.xor(edx, edx)?;
                body(a)
            });
        }
    }
    check(guest);
}

#[test]
fn umip_hides_the_tables() {
    let mut guest = Long::default();
    let bodies: [Body; 5] = [
        ("sgdt", |a| a.sgdt(ptr(rsp - 16))),
        ("sidt", |a| a.sidt(ptr(rsp - 16))),
        ("sldt", |a| a.sldt(ecx)),
        ("str", |a| a.str(ecx)),
        ("smsw", |a| a.smsw(ecx)),
    ];
    for (name, body) in bodies {
        for bits in [0, 0x800] {
            let prepare = |a: &mut CodeAssembler| with_cr4(a, bits);
            guest.ring3(format!("{name}, UMIP {bits:x}, ring 3"), prepare, 2, &body);
            guest.ring0(format!("{name}, UMIP {bits:x}, ring 0"), |a| {
                prepare(a)?;
                body(a)
            });
        }
    }
    guest.ring3("cli, ring 3", nothing, 2, &|a| a.cli());
    check(guest);
}

#[test]
fn the_apic_timer_ends_halt() {
    const APIC: u32 = 0xfee0_0000;
    let mut guest = Long::default();
    for (name, entry) in [("one-shot", 0x21), ("masked", 0x1_0021), ("periodic", 0x2_0021)] {
        guest.ring0(name, |a| {
            a.mov(r8d, APIC)?;
            a.mov(dword_ptr(r8 + 0xf0), 0x1ff)?;
            a.mov(dword_ptr(r8 + 0x3e0), 0xb)?;
            a.mov(dword_ptr(r8 + 0x320), entry)?;
            a.mov(dword_ptr(r8 + 0x380), 100_000)?;
            if entry & 0x1_0000 == 0 {
                a.sti()?;
                a.hlt()?;
            }
            a.nop()
        });
        guest.ring0(format!("after {name}"), |a| {
            a.mov(r8d, APIC)?;
            a.mov(ebx, dword_ptr(r8 + 0x110))?;
            a.mov(edx, dword_ptr(r8 + 0x380))?;
            a.mov(dword_ptr(r8 + 0x380), 0)?;
            a.mov(esi, dword_ptr(r8 + 0x390))?;
            a.mov(dword_ptr(r8 + 0xb0), 0)
        });
    }
    check(guest);
}

/// The other CPU begins at 0800:0000 and has the interrupt table of real mode to itself.
fn other_cpu(a: &mut CodeAssembler) -> Asm {
    const LOW: u64 = 0x8000;
    // mov ax, cs; mov [cs:40h], ax; mov eax, cr0; mov [cs:44h], eax; inc dword [cs:48h];
    // hlt; jmp to it
    let code: [u8; 26] = [
        0x8c, 0xc8, 0x2e, 0xa3, 0x40, 0x00, 0x0f, 0x20, 0xc0, 0x66, 0x2e, 0xa3, 0x44, 0x00, 0x66,
        0x2e, 0xff, 0x06, 0x48, 0x00, 0xf4, 0xeb, 0xfd, 0x90, 0x90, 0x90,
    ];
    for (at, bytes) in (LOW..).step_by(2).zip(code.chunks(2)) {
        a.mov(word_ptr(at), i32::from(u16::from_le_bytes([bytes[0], bytes[1]])))?;
    }
    // The NMI's handler: inc dword [cs:4ch]; iret
    a.mov(dword_ptr(LOW + 0x80), 0x06ff_2e66)?;
    a.mov(dword_ptr(LOW + 0x84), 0xcf_004c)?;
    a.mov(dword_ptr(8u64), 0x0800_0080)?;
    a.xor(eax, eax)?;
    for at in [0x40, 0x44, 0x48, 0x4c] {
        a.mov(dword_ptr(LOW + at), eax)?;
    }
    a.mov(r8d, 0xfee0_0000u32)?;
    a.mov(dword_ptr(r8 + 0xf0), 0x1ff)?;
    a.mov(dword_ptr(r8 + 0x310), 1 << 24)
}

/// Sends to the other CPU, and waits until a count of its own is `wanted`.
fn send(a: &mut CodeAssembler, command: u32, count: u64, wanted: i32) -> Asm {
    a.mov(dword_ptr(r8 + 0x310), 1 << 24)?;
    a.mov(dword_ptr(r8 + 0x300), command as i32)?;
    a.mov(ebx, 40_000_000)?;
    let (mut wait, mut done) = (a.create_label(), a.create_label());
    a.set_label(&mut wait)?;
    a.cmp(dword_ptr(0x8000 + count), wanted)?;
    a.je(done)?;
    a.pause()?;
    a.dec(ebx)?;
    a.jnz(wait)?;
    a.set_label(&mut done)?;
    a.mov(ebx, dword_ptr(0x8000 + count))
}

#[test]
fn the_other_cpu_is_started_and_interrupted() {
    let mut guest = Long::default();
    guest.ring0("INIT, SIPI", |a| {
        other_cpu(a)?;
        send(a, 0x4500, 0x48, 0)?;
        send(a, 0x4608, 0x48, 1)?;
        a.mov(ecx, dword_ptr(0x8040u64))?;
        a.mov(edx, dword_ptr(0x8044u64))
    });
    for count in 1..4 {
        guest.ring0(format!("NMI {count}"), |a| {
            a.mov(r8d, 0xfee0_0000u32)?;
            send(a, 0x4400, 0x4c, count)
        });
    }
    guest.ring0("SIPI to one that runs", |a| {
        a.mov(r8d, 0xfee0_0000u32)?;
        send(a, 0x4608, 0x48, 1)
    });
    guest.ring0("INIT, SIPI again", |a| {
        a.mov(r8d, 0xfee0_0000u32)?;
        send(a, 0x4500, 0x48, 1)?;
        send(a, 0x4608, 0x48, 2)
    });
    check(guest);
}

#[test]
fn compatibility_mode_is_entered_and_left() {
    let mut guest = Long::default();
    let bodies: [Body; 9] = [
        ("syscall", |a| a.syscall()),
        ("sysenter", |a| a.sysenter()),
        ("sysexit", |a| a.sysexit()),
        ("int 90", |a| a.int(0x90)),
        ("push, pop", |a| {
            a.push(0x1234_5678)?;
            a.pop(ebx)?;
            a.inc(ecx)
        }),
        ("call gate", |a| a.db(&[0x9a, 0, 0, 0, 0, 0x5b, 0])),
        ("to 64-bit code", |a| {
            a.mov(ebx, esp)?;
            a.push(0x3b)?;
            a.push(Long::USER_DATA as i32 + 0x800)?;
            a.jmp(fword_ptr(esp))
        }),
        // TCG reads through a null DS.
        ("wraps", |a| {
            a.mov(eax, 0x33)?;
            a.mov(ds, eax)?;
            a.mov(ebx, 0xffff_fff0u32)?;
            a.mov(eax, dword_ptr(ebx + 0x4013_8010))
        }),
        ("bound", |a| {
            a.mov(eax, 0x33)?;
            a.mov(ds, eax)?;
            a.mov(ebx, Long::USER_DATA as u32)?;
            a.xor(eax, eax)?;
            a.bound(eax, qword_ptr(ebx))
        }),
    ];
    for (name, body) in bodies {
        let before = |a: &mut CodeAssembler| {
            for (number, low, high) in [
                (0xc000_0081u32, 0, 0x2b_0008),
                (0xc000_0083, Long::REPORTS as u32, 0),
                (0x174, 8, 0),
                (0x175, 0x12_4000, 0),
                (0x176, Long::REPORTS as u32, 0),
            ] {
                a.mov(ecx, number)?;
                a.mov(eax, low)?;
                a.mov(edx, high)?;
                a.wrmsr()?;
            }
            Ok(())
        };
        guest.compatibility(name, before, &body);
    }
    check(guest);
}
