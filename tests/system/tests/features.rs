//! PCIDs, INVPCID and TSC deadlines in 64-bit mode, which TCG does not have, on our engines and on Bochs.

use iced_x86::code_asm::*;
use system::{Asm, Long, Oracle};

const PCIDE: u32 = 1 << 17;
/// INVPCID's descriptor.
const DESCRIPTOR: u64 = Long::DATA + 0x400;
const TSC_DEADLINE: u32 = 0x6e0;
const APIC: u32 = 0xfee0_0000;
const TIMER: u32 = 0x320;
const DEADLINE_MODE: i32 = 0x4_0021;
const ONE_SHOT_MODE: i32 = 0x21;

/// Cases in which Bochs is wrong, and how.
type Known = &'static [(&'static str, &'static str)];

fn check(guest: Long, known: Known) {
    system::check(Oracle::Bochs, [guest.finish()], &Long::LAYOUT, known);
}

/// Turns PCIDs on, and goes to this one.
fn enter_pcid(a: &mut CodeAssembler, pcid: i32) -> Asm {
    a.mov(rbx, cr4)?;
    a.or(ebx, PCIDE)?;
    a.mov(cr4, rbx)?;
    a.mov(rbx, cr3)?;
    a.or(rbx, pcid)?;
    a.mov(cr3, rbx)
}

fn invpcid(a: &mut CodeAssembler, kind: u64, pcid: u64, address: u64) -> Asm {
    for (at, value) in [(DESCRIPTOR, pcid), (DESCRIPTOR + 8, address)] {
        a.mov(rax, value)?;
        a.mov(qword_ptr(at), rax)?;
    }
    a.mov(rax, kind)?;
    a.invpcid(rax, xmmword_ptr(DESCRIPTOR))
}

#[test]
fn pcids_are_checked() {
    let mut guest = Long::default();
    for pcid in [0, 5] {
        for bits in [0u64, 1, 0xfff, 1 << 63, 1 << 63 | 7, 1 << 62, 1 << 52] {
            guest.ring0(format!("CR3 {bits:x} in PCID {pcid}"), |a| {
                if pcid != 0 {
                    enter_pcid(a, pcid)?;
                }
                a.mov(rax, cr3)?;
                a.and(rax, -0x1000)?;
                a.mov(rcx, bits)?;
                a.or(rax, rcx)?;
                a.mov(cr3, rax)?;
                a.mov(rdx, cr3)
            });
        }
    }
    guest.ring0("PCIDE with a PCID", |a| {
        a.mov(rax, cr3)?;
        a.or(rax, 0x18)?;
        a.mov(cr3, rax)?;
        enter_pcid(a, 0)
    });
    guest.ring0("no paging with PCIDs", |a| {
        enter_pcid(a, 1)?;
        a.mov(rax, cr0)?;
        a.btr(rax, 31)?;
        a.mov(cr0, rax)
    });
    check(guest, &[]);
}

#[test]
fn invpcid_does_what_it_says() {
    let mut guest = Long::default();
    let operands = [
        (0, Long::TEST),
        (5, Long::TEST),
        (0x1000, Long::TEST),
        (1 << 63, Long::TEST),
        (0, 0x8000_0000_0000),
        (5, 0x8000_0000_0000),
    ];
    for pcid in [0, 5] {
        for kind in [0, 1, 2, 3, 4, 1 << 32, u64::MAX] {
            for (operand, address) in operands {
                let name = format!("invpcid {kind:x} of {operand:x}:{address:x} in PCID {pcid}");
                guest.ring0(name, |a| {
                    if pcid != 0 {
                        enter_pcid(a, pcid)?;
                    }
                    invpcid(a, kind, operand, address)
                });
            }
        }
        for kind in 0..4 {
            guest.ring0(format!("a page that goes, invpcid {kind} in PCID {pcid}"), |a| {
                if pcid != 0 {
                    enter_pcid(a, pcid)?;
                }
                a.mov(dword_ptr(Long::TEST_ENTRY), Long::DATA as i32 | 7)?;
                a.mov(ecx, dword_ptr(Long::TEST))?;
                a.mov(dword_ptr(Long::TEST_ENTRY), 0)?;
                invpcid(a, kind, pcid as u64, Long::TEST)?;
                a.mov(edx, dword_ptr(Long::TEST))
            });
        }
    }
    guest.ring3("invpcid, ring 3", |_| Ok(()), 2, &|a| {
        a.mov(eax, 2)?;
        a.invpcid(rax, xmmword_ptr(Long::USER_DATA + 0x400))
    });
    let known: Known = &[
        ("invpcid 100000000 of 0:40200000", "takes the lower half of the type"),
        ("invpcid 100000000 of 5:40200000 in PCID 5", "the same"),
    ];
    check(guest, known);
}

/// The timer's mode, and a deadline so many ticks from now.
fn set_deadline(a: &mut CodeAssembler, mode: i32, ticks: i32) -> Asm {
    a.mov(r8d, APIC)?;
    a.mov(dword_ptr(r8 + 0xf0), 0x1ff)?;
    a.mov(dword_ptr(r8 + TIMER), mode)?;
    a.rdtsc()?;
    a.shl(rdx, 32)?;
    a.or(rax, rdx)?;
    a.add(rax, ticks)?;
    a.mov(rdx, rax)?;
    a.shr(rdx, 32)?;
    a.mov(ecx, TSC_DEADLINE)?;
    a.wrmsr()?;
    a.xor(eax, eax)?;
    a.xor(edx, edx)
}

#[test]
fn a_deadline_ends_halt_and_is_over() {
    let mut guest = Long::default();
    for ticks in [200_000, 0, -1000] {
        guest.ring0(format!("deadline in {ticks} ticks"), |a| {
            set_deadline(a, DEADLINE_MODE, ticks)?;
            a.sti()?;
            a.hlt()?;
            a.nop()
        });
        guest.ring0(format!("after the deadline in {ticks} ticks"), |a| {
            a.mov(r8d, APIC)?;
            a.mov(ecx, TSC_DEADLINE)?;
            a.rdmsr()?;
            a.mov(ebx, dword_ptr(r8 + 0x110))?;
            a.mov(dword_ptr(r8 + 0xb0), 0)?;
            a.mov(esi, dword_ptr(r8 + 0x110))
        });
    }
    guest.ring0("a deadline in another mode", |a| {
        set_deadline(a, ONE_SHOT_MODE, 1_000_000_000)?;
        a.rdmsr()
    });
    guest.ring0("another mode forgets a deadline", |a| {
        set_deadline(a, DEADLINE_MODE, 1_000_000_000)?;
        a.mov(dword_ptr(r8 + TIMER), ONE_SHOT_MODE)?;
        a.rdmsr()?;
        a.mov(dword_ptr(r8 + TIMER), DEADLINE_MODE)?;
        a.mov(rbx, rax)?;
        a.rdmsr()
    });
    guest.ring0("counts are nothing to deadlines", |a| {
        set_deadline(a, DEADLINE_MODE, 1_000_000_000)?;
        a.mov(dword_ptr(r8 + 0x380), 1000)?;
        a.mov(ebx, dword_ptr(r8 + 0x390))?;
        a.xor(eax, eax)?;
        a.xor(edx, edx)?;
        a.wrmsr()?;
        a.rdmsr()
    });
    let known: Known = &[
        ("after the deadline", "does not clear a deadline that is over (SDM vol. 3A, 11.5.4.1)"),
        ("another mode forgets a deadline", "keeps it for when the mode is back"),
    ];
    check(guest, known);
}
