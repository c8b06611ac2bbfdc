//! Tiny system programs, assembled by hand, on CPUs with tables in memory.

mod delivery;
mod protected;
mod registers;
mod state;
mod tasks;

use x86_state::bits::Rflags;
use x86_state::{DescriptorTable, SegReg, Segment};

use crate::plain::PlainEnv;
use crate::{Cpu, RunExit};

const CODE: u64 = 0x10_0000;
/// Handlers, 16 bytes each, by vector.
const HANDLERS: u64 = 0x20_0000;
const GDT: u64 = 0x1_0000;
const IDT: u64 = 0x1_1000;
const TSS: u64 = 0x1_2000;
/// Stack of ring 0 in the TSS.
const STACK0: u64 = 0x30_0000;
/// First interrupt stack in the 64-bit TSS.
const IST1: u64 = 0x31_0000;

const CODE64: u16 = 0x08;
const DATA: u16 = 0x10;
const USER_CODE32: u16 = 0x18 | 3;
const USER_DATA: u16 = 0x20 | 3;
const USER_CODE64: u16 = 0x28 | 3;
const TSS_AT: u16 = 0x30;
const CODE32: u16 = 0x40;
/// Free for a test's own descriptor, 16 bytes.
const OWN: u16 = 0x48;

const HLT: u8 = 0xf4;
const RSP: usize = 4;
const RCX: usize = 1;

type TestCpu = Cpu<PlainEnv>;

fn put64(cpu: &TestCpu, at: u64, value: u64) {
    cpu.env.put(at, &value.to_le_bytes());
}

fn get64(cpu: &TestCpu, at: u64) -> u64 {
    u64::from_le_bytes(cpu.env.get(at, 8).try_into().unwrap())
}

fn get32(cpu: &TestCpu, at: u64) -> u32 {
    u32::from_le_bytes(cpu.env.get(at, 4).try_into().unwrap())
}

fn describe(cpu: &TestCpu, selector: u16, descriptor: u64) {
    put64(cpu, GDT + u64::from(selector & !7), descriptor);
}

/// Tables that all modes use: GDT, TSS, and an IDT of nothing.
fn tables(cpu: &mut TestCpu) {
    describe(cpu, CODE64, 0x00af_9b00_0000_ffff);
    describe(cpu, DATA, 0x00cf_9300_0000_ffff);
    describe(cpu, USER_CODE32, 0x00cf_fb00_0000_ffff);
    describe(cpu, USER_DATA, 0x00cf_f300_0000_ffff);
    describe(cpu, USER_CODE64, 0x00af_fb00_0000_ffff);
    describe(cpu, TSS_AT, 0x0000_8b00_0000_0067 | TSS << 16);
    describe(cpu, CODE32, 0x00cf_9b00_0000_ffff);
    cpu.gdtr = DescriptorTable { base: GDT, limit: 0xfff };
    cpu.idtr = DescriptorTable { base: IDT, limit: 0xfff };
    cpu.tr = Segment { base: TSS, limit: 0x67, selector: TSS_AT, attr: 0x8b };
    cpu.ldtr = Segment::unusable(0, 0);
    // No permission bitmap inside of the limit.
    cpu.env.put(TSS + 0x66, &[0x68, 0]);
}

/// Long mode at ring 0 or 3.
fn long(ring: u8, code: &[u8]) -> TestCpu {
    let mut cpu = Cpu::flat64(ring, CODE, code);
    tables(&mut cpu);
    if ring == 3 {
        cpu.segments[SegReg::Cs as usize].selector = USER_CODE64;
        cpu.segments[SegReg::Ss as usize].selector = USER_DATA;
    }
    put64(&cpu, TSS + 4, STACK0);
    put64(&cpu, TSS + 36, IST1);
    cpu
}

/// Protected mode at ring 0, 32-bit, without paging.
fn protected(code: &[u8]) -> TestCpu {
    let mut cpu = Cpu::flat32(CODE, code);
    tables(&mut cpu);
    cpu.segments[SegReg::Cs as usize].selector = CODE32;
    cpu.gpr[RSP] = 0x80_0000;
    cpu.env.put(TSS + 4, &(STACK0 as u32).to_le_bytes());
    cpu.env.put(TSS + 8, &DATA.to_le_bytes());
    cpu
}

/// The same at ring 3.
fn protected_user(code: &[u8]) -> TestCpu {
    let mut cpu = protected(code);
    let user = 3 << Segment::DPL_SHIFT;
    for segment in &mut cpu.segments {
        segment.selector = USER_DATA;
        segment.attr |= user;
    }
    cpu.segments[SegReg::Cs as usize].selector = USER_CODE32;
    cpu.update_mode();
    cpu
}

/// A 64-bit gate to the vector's place in [`HANDLERS`], with this code there.
fn long_gate(cpu: &TestCpu, vector: u8, kind_dpl: u64, ist: u64, code: &[u8]) {
    let handler = HANDLERS + u64::from(vector) * 16;
    cpu.env.put(handler, code);
    let at = IDT + u64::from(vector) * 16;
    let low = handler & 0xffff | (handler & 0xffff_0000) << 32;
    put64(cpu, at, low | u64::from(CODE64) << 16 | kind_dpl << 40 | ist << 32);
    put64(cpu, at + 8, handler >> 32);
}

/// A 32-bit gate.
fn gate(cpu: &TestCpu, vector: u8, kind_dpl: u64, code: &[u8]) {
    let handler = HANDLERS + u64::from(vector) * 16;
    cpu.env.put(handler, code);
    let low = handler & 0xffff | (handler & 0xffff_0000) << 32;
    let raw = low | u64::from(CODE32) << 16 | kind_dpl << 40;
    put64(cpu, IDT + u64::from(vector) * 8, raw);
}

const INTERRUPT_GATE: u64 = 0x8e;
const TRAP_GATE: u64 = 0x8f;
const USER_GATE: u64 = 0xee;

/// Runs until HLT.
fn run(cpu: &mut TestCpu) {
    assert_eq!(cpu.run(1000), RunExit::Halted, "{:?} at {:x}", cpu.fault, cpu.rip);
}

/// Runs until the handler of this vector halts.
fn runs_into(cpu: &mut TestCpu, vector: u8) {
    run(cpu);
    let at = HANDLERS + u64::from(vector) * 16 + 1;
    assert_eq!(cpu.rip, at, "{:?}", cpu.fault);
}

fn has(cpu: &TestCpu, flag: Rflags) -> bool {
    cpu.rflags() & flag.bits() != 0
}
