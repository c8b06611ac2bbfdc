//! Interrupts between two CPUs, on our engines and on QEMU's TCG.
//!
//! The second CPU runs in real mode, with a flat FS for its local APIC, and counts what comes.
//! Cases go on with it where the one before left it.

use iced_x86::code_asm::*;
use system::{Asm, Long, Oracle};

const APIC: u32 = 0xfee0_0000;
const EOI: u64 = 0xb0;
const LOGICAL: u64 = 0xd0;
const SPURIOUS: u64 = 0xf0;
const COMMAND: u64 = 0x300;
const TARGET: u64 = 0x310;
/// ISR and IRR of vectors 0x40 to 0x5f, and of 0x60 to 0x7f.
const IN_SERVICE: [u64; 2] = [0x120, 0x130];
const REQUESTED: [u64; 2] = [0x220, 0x230];

/// Bits of the command: assert, logical destination, lowest priority, NMI, INIT, start-up.
const ASSERT: u32 = 1 << 14;
const TO_LOGICAL: u32 = 1 << 11 | ASSERT;
const LOWEST: u32 = 1 << 8 | TO_LOGICAL;
const NMI: u32 = 4 << 8 | ASSERT;
const INIT: u32 = 5 << 8 | ASSERT;
const START_UP: u32 = 6 << 8 | ASSERT | OTHER as u32 >> 12;
const SELF: u32 = 1 << 18;
const ALL: u32 = 2 << 18;
const OTHERS: u32 = 3 << 18;

/// Where the second CPU begins, with its code segment there.
const OTHER: u64 = 0x8000;
/// What it counts, behind its code: its starts, NMIs, and interrupts of two vectors.
const STARTS: u64 = OTHER + 0x200;
const NMIS: u64 = STARTS + 4;
const FIRSTS: u64 = STARTS + 8;
const SECONDS: u64 = STARTS + 12;
const FIRST: u32 = 0x40;
const SECOND: u32 = 0x61;
/// Its handlers, each in 32 bytes; then a pointer to the GDT.
const HANDLERS: u64 = OTHER + 0x80;
const TABLE: u64 = OTHER + 0x100;

fn assembled(offset: u64, make: impl Fn(&mut CodeAssembler) -> Asm) -> Vec<u8> {
    let mut a = CodeAssembler::new(16).expect("a width there is");
    make(&mut a).expect("code that can be");
    a.assemble(offset).expect("code that can be encoded")
}

/// FS gets a limit of 4 GiB, the local APIC is turned on, and interrupts are waited for.
fn other_cpu() -> Vec<u8> {
    assembled(0, |a| {
        a.mov(ax, cs)?;
        a.mov(ds, ax)?;
        a.db(&[0x66, 0x0f, 0x01, 0x16])?; // LGDT [TABLE]
        a.dw(&[(TABLE - OTHER) as u16])?;
        a.mov(eax, cr0)?;
        a.or(al, 1)?;
        a.mov(cr0, eax)?;
        a.mov(bx, 0x10)?;
        a.mov(fs, bx)?;
        a.and(al, !1u8 as i32)?;
        a.mov(cr0, eax)?;
        a.mov(ebx, APIC)?;
        a.mov(dword_ptr(ebx + SPURIOUS).fs(), 0x1ff)?;
        a.mov(dword_ptr(ebx + LOGICAL).fs(), 2 << 24)?;
        a.sti()?;
        a.inc(dword_ptr((STARTS - OTHER) as u32))?;
        let mut halt = a.create_label();
        a.set_label(&mut halt)?;
        a.hlt()?;
        a.jmp(halt)
    })
}

fn handler(count: u64, ends: bool) -> Vec<u8> {
    assembled(0, |a| {
        if ends {
            a.mov(dword_ptr(ebx + EOI).fs(), 0)?;
        }
        a.inc(dword_ptr((count - OTHER) as u32))?;
        a.iret()
    })
}

/// Writes these bytes.
fn put(a: &mut CodeAssembler, at: u64, bytes: &[u8]) -> Asm {
    for (at, chunk) in (at..).step_by(4).zip(bytes.chunks(4)) {
        let mut word = [0; 4];
        word[..chunk.len()].copy_from_slice(chunk);
        a.mov(dword_ptr(at), i32::from_le_bytes(word))?;
    }
    Ok(())
}

/// Real mode's vector leads to this handler.
fn lead(a: &mut CodeAssembler, vector: u64, number: u64) -> Asm {
    let offset = HANDLERS - OTHER + number * 32;
    a.mov(dword_ptr(vector * 4), (OTHER << 12 | offset) as i32)
}

/// The first CPU's local APIC is on, nothing is in service, and R8 is at it.
fn begin(a: &mut CodeAssembler) -> Asm {
    a.mov(r8d, APIC)?;
    a.mov(dword_ptr(r8 + SPURIOUS), 0x1ff)?;
    a.mov(dword_ptr(r8 + LOGICAL), 1 << 24)?;
    for _ in 0..3 {
        a.mov(dword_ptr(r8 + EOI), 0)?;
    }
    a.xor(eax, eax)?;
    a.mov(cr8, rax)
}

fn send(a: &mut CodeAssembler, target: u32, command: u32) -> Asm {
    a.mov(dword_ptr(r8 + TARGET), (target << 24) as i32)?;
    a.mov(dword_ptr(r8 + COMMAND), command as i32)
}

/// Waits, not for ever, until a count is this.
fn wait(a: &mut CodeAssembler, count: u64, wanted: i32) -> Asm {
    wait_unless(a, |_, _| Ok(()), count, wanted)
}

/// The same, unless an interrupt of the second vector has come here.
fn wait_for_either(a: &mut CodeAssembler, count: u64, wanted: i32) -> Asm {
    let here = |a: &mut CodeAssembler, done| {
        a.cmp(dword_ptr(r8 + REQUESTED[1]), 0)?;
        a.jne(done)
    };
    wait_unless(a, here, count, wanted)
}

fn wait_unless(
    a: &mut CodeAssembler,
    unless: impl FnOnce(&mut CodeAssembler, CodeLabel) -> Asm,
    count: u64,
    wanted: i32,
) -> Asm {
    a.mov(ebx, 40_000_000)?;
    let (mut again, mut done) = (a.create_label(), a.create_label());
    a.set_label(&mut again)?;
    a.cmp(dword_ptr(count), wanted)?;
    a.je(done)?;
    unless(a, done)?;
    a.pause()?;
    a.dec(ebx)?;
    a.jnz(again)?;
    a.set_label(&mut done)?;
    a.mov(ebx, dword_ptr(count))
}

/// Shows what the first CPU's local APIC has, then lets it come.
fn show(a: &mut CodeAssembler) -> Asm {
    for (register, at) in [r9d, r10d].into_iter().zip(REQUESTED) {
        a.mov(register, dword_ptr(r8 + at))?;
    }
    a.sti()?;
    a.nop()?;
    a.nop()?;
    for (register, at) in [r11d, r12d].into_iter().zip(IN_SERVICE) {
        a.mov(register, dword_ptr(r8 + at))?;
    }
    Ok(())
}

fn start(guest: &mut Long) {
    guest.ring0("code of the other CPU", |a| put(a, OTHER, &other_cpu()));
    guest.ring0("handlers of the other CPU", |a| {
        let handlers = [(NMIS, false), (FIRSTS, true), (SECONDS, true)];
        for (at, (count, ends)) in (HANDLERS..).step_by(32).zip(handlers) {
            put(a, at, &handler(count, ends))?;
        }
        for (vector, number) in [(2, 0), (FIRST, 1), (SECOND, 2)] {
            lead(a, vector.into(), number)?;
        }
        a.sgdt(ptr(TABLE))?;
        put(a, STARTS, &[0; 16])
    });
    guest.ring0("INIT and start-up", |a| {
        begin(a)?;
        send(a, 1, INIT)?;
        send(a, 1, START_UP)?;
        wait(a, STARTS, 1)
    });
}

#[test]
fn messages_reach_whom_they_address() {
    let mut guest = Long::default();
    start(&mut guest);
    let mut counts = [0; 2];
    let sent = [
        ("to the other", 1, FIRST | ASSERT),
        ("to the other again", 1, FIRST | ASSERT),
        ("to the other, a second vector", 1, SECOND | ASSERT),
        ("to itself", 0, FIRST | ASSERT),
        ("to nobody", 5, FIRST | ASSERT),
        ("to all, physically", 0xff, FIRST | ASSERT),
        ("itself", 7, SELF | SECOND | ASSERT),
        ("all", 7, ALL | FIRST | ASSERT),
        ("others", 7, OTHERS | SECOND | ASSERT),
        ("logically to the first", 1, FIRST | TO_LOGICAL),
        ("logically to the other", 2, FIRST | TO_LOGICAL),
        ("logically to both", 3, SECOND | TO_LOGICAL),
        ("logically to neither", 0xfc, SECOND | TO_LOGICAL),
        ("logically to all", 0xff, FIRST | TO_LOGICAL),
        ("lowest priority of the other", 2, FIRST | LOWEST),
        ("lowest priority of the first", 1, FIRST | LOWEST),
        ("INIT that is not asserted", 1, 5 << 8 | 1 << 15),
    ];
    for (name, target, command) in sent {
        let vector = command & 0xff;
        let other = match (command & OTHERS, command & TO_LOGICAL == TO_LOGICAL) {
            (SELF, _) => false,
            (ALL | OTHERS, _) => true,
            (_, true) => target & 2 != 0,
            (_, false) => target == 1 || target == 0xff,
        };
        let which = usize::from(vector == SECOND);
        counts[which] += i32::from(other && vector != 0);
        guest.ring0(name, |a| {
            begin(a)?;
            send(a, target, command)?;
            wait(a, [FIRSTS, SECONDS][which], counts[which])?;
            show(a)
        });
    }
    // Of two, the one whose task is less urgent.
    for priority in [9, 8] {
        counts[1] += 1;
        guest.ring0(format!("lowest priority of both, at {priority}"), |a| {
            begin(a)?;
            a.mov(eax, priority)?;
            a.mov(cr8, rax)?;
            send(a, 3, SECOND | LOWEST)?;
            wait_for_either(a, SECONDS, counts[1])?;
            show(a)
        });
    }
    for (count, name, target, command) in
        [(1, "NMI to the other", 1, NMI), (2, "NMI to others", 0, OTHERS | NMI)]
    {
        guest.ring0(name, |a| {
            begin(a)?;
            send(a, target, command)?;
            wait(a, NMIS, count)
        });
    }
    guest.ring0("NMI to itself", |a| {
        begin(a)?;
        send(a, 0, NMI)?;
        let mut here = a.create_label();
        a.set_label(&mut here)?;
        a.jmp(here)
    });
    guest.ring0("INIT and start-up of others", |a| {
        begin(a)?;
        send(a, 0, OTHERS | INIT)?;
        send(a, 0, OTHERS | START_UP)?;
        wait(a, STARTS, 2)
    });
    guest.ring0("to the one that was started again", |a| {
        begin(a)?;
        send(a, 1, FIRST | ASSERT)?;
        wait(a, FIRSTS, counts[0] + 1)
    });
    let known = &[("lowest priority of both", "takes the first, whatever its priority")];
    system::check(Oracle::Tcg, [guest.finish()], &Long::LAYOUT, known);
}

#[test]
fn messages_to_oneself_wait_their_turn() {
    let mut guest = Long::default();
    let to_self = |a: &mut CodeAssembler, vector: u32| send(a, 0, SELF | ASSERT | vector);
    guest.ring0("two of one vector", |a| {
        begin(a)?;
        to_self(a, FIRST)?;
        to_self(a, FIRST)?;
        show(a)
    });
    guest.ring0("are one", |a| {
        begin(a)?;
        show(a)
    });
    guest.ring0("two vectors", |a| {
        begin(a)?;
        to_self(a, FIRST)?;
        to_self(a, SECOND)?;
        show(a)
    });
    guest.ring0("the second waits for the end of the first", |a| {
        a.mov(r8d, APIC)?;
        show(a)?;
        a.cli()?;
        a.mov(dword_ptr(r8 + EOI), 0)?;
        show(a)
    });
    guest.ring0("none is left", |a| {
        begin(a)?;
        show(a)
    });
    for priority in [3, 4, 5] {
        guest.ring0(format!("below priority {priority}"), |a| {
            begin(a)?;
            a.mov(eax, priority)?;
            a.mov(cr8, rax)?;
            to_self(a, FIRST + 7)?;
            show(a)?;
            a.xor(eax, eax)?;
            a.mov(cr8, rax)?;
            a.nop()
        });
    }
    guest.ring0("ends HLT", |a| {
        begin(a)?;
        to_self(a, SECOND)?;
        a.sti()?;
        a.hlt()?;
        a.nop()
    });
    system::check(Oracle::Tcg, [guest.finish()], &Long::LAYOUT, &[]);
}
