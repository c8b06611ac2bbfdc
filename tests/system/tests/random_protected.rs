//! Random instructions of 32-bit and 16-bit protected mode, virtual-8086 mode and real mode, with
//! segment limits, paging, tasks and debug registers, on our engines and on Bochs.
//!
//! `SYSTEM_GUESTS` sets the number of guests of each kind, `SYSTEM_SEED` where they begin.

use iced_x86::code_asm::*;
use system::{Asm, Oracle, Protected, Random, setting};

const CASES: usize = 100;
/// Bytes of code: a little less than a case has room for.
const ROOM: usize = 160;
const REGISTERS: [AsmRegister32; 5] = [eax, ecx, edx, esi, edi];
const SEGMENTS: [AsmRegisterSegment; 3] = [es, fs, gs];

/// What a case begins in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Ring0,
    Ring3,
    Bits16,
    Virtual,
    Real,
}

impl Mode {
    /// Segments are what selectors say times 16.
    fn is_real(self) -> bool {
        matches!(self, Self::Virtual | Self::Real)
    }

    fn bits(self) -> u32 {
        if matches!(self, Self::Ring0 | Self::Ring3) { 32 } else { 16 }
    }
}

/// Instructions on registers, none of which leaves a flag undefined.
fn computes(a: &mut CodeAssembler, random: &mut Random) -> Asm {
    let (x, y) = (random.pick(&REGISTERS), random.pick(&REGISTERS));
    match random.below(14) {
        0 => a.add(x, y),
        1 => a.sbb(cx, dx),
        2 => a.adc(x, random.number() as i32),
        3 => a.cmp(dl, cl),
        4 => a.inc(x),
        5 => a.neg(si),
        6 => a.xadd(x, y),
        7 => a.cmpxchg(x, y),
        8 => a.cmovb(x, y),
        9 => a.bswap(x),
        10 => a.mov(x, random.number() as u32),
        11 => a.rcl(x, 1),
        12 => a.xchg(x, y),
        _ => a.cwde(),
    }
}

/// A segment register, and an offset about one of its ends, into EBX.
fn aim(
    a: &mut CodeAssembler,
    random: &mut Random,
    mode: Mode,
) -> Result<AsmRegisterSegment, iced_x86::IcedError> {
    let segment = random.pick(&SEGMENTS);
    let near = random.below(9) as u32;
    let offset = if mode.is_real() {
        random.pick(&[0x100, 0x800, 0xfff8, 0xfff9]) + near
    } else {
        let selector = random.pick(&[0x30u32, 0x38, 0x38, 0x40, 0x40, 0x48, 0x50, 0x88, 0x08, 0]);
        a.mov(ebx, selector | random.pick(&[0, 0, 0, 3]))?;
        a.mov(segment, bx)?;
        match selector {
            0x30 => random.pick(&[0x100, 0xffc]) + near,
            0x38 => random.pick(&[0x100, 0xff8]) + near,
            0x40 | 0x48 => random.pick(&[0xff8, 0x1100]) + near,
            _ => random.pick(&[0x40, 0xf8]) + near,
        }
    };
    a.mov(ebx, offset)?;
    Ok(segment)
}

/// Accesses to memory by a segment with a limit.
fn accesses(a: &mut CodeAssembler, random: &mut Random, mode: Mode) -> Asm {
    let segment = aim(a, random, mode)?;
    let at = |operand: AsmMemoryOperand| match segment {
        s if s == es => operand.es(),
        s if s == fs => operand.fs(),
        _ => operand.gs(),
    };
    let x = random.pick(&REGISTERS);
    match random.below(16) {
        0 => a.mov(at(dword_ptr(ebx)), x),
        1 => a.mov(x, at(dword_ptr(ebx))),
        2 => a.mov(at(byte_ptr(bx)), cl),
        3 => a.mov(cx, at(word_ptr(bx))),
        4 => a.lock().add(at(dword_ptr(ebx)), x),
        5 => a.push(at(dword_ptr(ebx))),
        6 => a.pop(at(dword_ptr(ebx))),
        7 => a.cmpxchg8b(at(qword_ptr(ebx))),
        8 => a.bound(ecx, at(qword_ptr(ebx))),
        9 => a.les(ecx, at(fword_ptr(ebx))),
        10 => a.fld(at(tbyte_ptr(ebx))),
        11 => a.bts(at(dword_ptr(ebx)), ecx),
        12 => a.xchg(at(word_ptr(ebx)), dx),
        13 => a.movsx(ecx, at(word_ptr(ebx))),
        14 => a.mov(at(word_ptr(ebx)), segment),
        _ => {
            a.mov(edi, ebx)?;
            a.mov(esi, ebx)?;
            a.mov(ecx, random.below(12) as u32)?;
            match random.below(6) {
                0 => a.rep().stosd(),
                1 => a.rep().movsb(),
                2 => a.repne().scasw(),
                3 => a.repe().cmpsd(),
                4 => a.std(),
                _ => a.lodsw(),
            }
        }
    }
}

/// Pushes a number of the mode's size.
fn push(a: &mut CodeAssembler, mode: Mode, value: u32) -> Asm {
    a.mov(ebx, value)?;
    if mode.bits() == 16 { a.push(bx) } else { a.push(ebx) }
}

/// The stack, with its limits, and control transfers.
fn stacks(a: &mut CodeAssembler, random: &mut Random, mode: Mode) -> Asm {
    let x = random.pick(&REGISTERS);
    match random.below(14) {
        0 => {
            a.push(x)?;
            a.pop(random.pick(&REGISTERS))
        }
        1 => a.pusha(),
        2 => {
            a.pushad()?;
            a.popad()
        }
        3 => a.db(&[0xc8, random.below(40) as u8, 0, random.below(4) as u8]),
        4 => {
            a.db(&[0xc9])?; // LEAVE
            a.mov(ebp, frame(mode))
        }
        5 => {
            push(a, mode, random.number() as u32 & 0x24_7ed7)?;
            if mode.bits() == 16 { a.popf() } else { a.popfd() }
        }
        6 => {
            a.pushfd()?;
            a.pop(x)
        }
        7 => {
            a.push(random.pick(&[es, fs, gs]))?;
            a.pop(random.pick(&[es, fs, gs]))
        }
        8 if mode == Mode::Real => a.mov(esp, random.pick(&[0x20u32, 0x800, 0xfffe, 0x1000])),
        8 if !mode.is_real() => {
            let selector = random.pick(&[0x30, 0x38, 0x38, 0x40, 0x48, 0x50, 0x58, 0x10, 0x20]);
            a.mov(ebx, selector | random.pick(&[0u32, 3, 3]))?;
            a.mov(ss, ebx)?;
            let flat = if matches!(selector, 0x10 | 0x20) { Protected::DATA as u32 } else { 0 };
            a.mov(esp, flat + random.pick(&[0x4, 0x100, 0xffc, 0x1000, 0x1004, 0x1010]))
        }
        9 => {
            let mut to = a.create_label();
            a.call(to)?;
            a.set_label(&mut to)?;
            a.pop(cx)
        }
        10 => a.int(random.pick(&[3, 4, 0x80, 0x90, 0x92, 0x93, 0x98, 0x99, 0x21])),
        11 if !mode.is_real() => {
            push(a, mode, random.pick(&[8, 0x10, 0x1b, 0x23, 0xe1]))?;
            push(a, mode, Protected::REPORTS)?;
            if random.below(2) == 0 { a.retf() } else { a.iret() }
        }
        12 if !mode.is_real() => {
            // A gate, a task, a code segment.
            let selector = random.pick(&[0x90, 0x98, 0xa0, 0xa8, 0x70, 0x60, 0xf0, 0xc0, 0xb0]);
            a.mov(ebx, selector | random.pick(&[0u32, 3]))?;
            a.push(ebx)?;
            a.mov(ebx, Protected::REPORTS)?;
            a.push(ebx)?;
            a.mov(ebx, esp)?;
            if random.below(2) == 0 {
                a.call(fword_ptr(ebx).ss())
            } else {
                a.jmp(fword_ptr(ebx).ss())
            }
        }
        _ => a.into(),
    }
}

/// What only ring 0 may do, and what only says something about selectors.
fn controls(a: &mut CodeAssembler, random: &mut Random, mode: Mode) -> Asm {
    let x = random.pick(&REGISTERS);
    match random.below(13) {
        0 => a.mov(x, cr0),
        1 => {
            a.mov(ebx, (random.below(36) as u32 * 8) | random.pick(&[0, 3]))?;
            a.lar(edx, ebx)?;
            a.mov(edx, 0)
        }
        2 => {
            a.mov(ebx, (random.below(36) as u32 * 8) | random.pick(&[0, 3]))?;
            a.lsl(edx, ebx)
        }
        3 => {
            a.mov(ebx, random.below(36) as u32 * 8)?;
            a.verr(bx)
        }
        4 => {
            a.mov(ebx, random.below(36) as u32 * 8)?;
            a.verw(bx)
        }
        5 => a.arpl(cx, dx),
        6 => a.smsw(x),
        7 => a.str(x),
        8 => a.sldt(x),
        9 => {
            // MP, EM and TS.
            let protected = u32::from(mode != Mode::Real);
            a.mov(ebx, random.pick(&[0x32, 0x3a, 0x36, 0x34]) | protected)?;
            a.lmsw(bx)?;
            random.pick::<fn(&mut CodeAssembler) -> Asm>(&[
                |a| a.fld1(),
                |a| a.db(&[0x9b]),
                |a| a.emms(),
                |a| a.clts(),
            ])(a)
        }
        10 => a.cli(),
        11 => {
            // A breakpoint on data of all segments.
            let at = Protected::DATA as u32 + 0x100;
            a.mov(ebx, at & !3)?;
            a.mov(dr1, ebx)?;
            a.mov(ebx, 0x404 | random.pick(&[1, 3]) << 20 | random.pick(&[0, 1, 3]) << 22u32)?;
            a.mov(dr7, ebx)
        }
        _ => {
            a.in_(al, 0x71)?;
            a.mov(al, 0)
        }
    }
}

/// An address in the stack.
fn frame(mode: Mode) -> u32 {
    if mode.is_real() { 0x700 } else { Protected::DATA as u32 + 0x700 }
}

/// Code until there is no more room.
fn body(a: &mut CodeAssembler, random: &mut Random, mode: Mode) -> Asm {
    a.mov(ebp, frame(mode))?;
    loop {
        match random.below(8) {
            0 | 1 => computes(a, random)?,
            2..5 => accesses(a, random, mode)?,
            5 | 6 => stacks(a, random, mode)?,
            _ => controls(a, random, mode)?,
        }
        if a.instructions().len() > 22 || size(a) > ROOM {
            return Ok(());
        }
    }
}

/// Bytes so far, roughly.
fn size(a: &CodeAssembler) -> usize {
    a.instructions().len() * 6
}

fn guest(mode: Mode, seed: u64) -> Protected {
    let mut random = Random(seed);
    let mut guest = Protected::default();
    for case in 0..CASES {
        let name = format!("{mode:?}, seed {seed}, case {case}");
        let state = random.number();
        let code = |a: &mut CodeAssembler| body(a, &mut Random(state), mode);
        let flags = random.pick(&[2, 0x3002, 0x3202, 0x4_3002, 0x4002, 0x102]);
        match mode {
            Mode::Ring0 => guest.ring0(name, code),
            Mode::Ring3 => guest.ring3(name, |_| Ok(()), flags & !0x4000, &code),
            Mode::Bits16 => guest.ring0_16(name, &code),
            Mode::Virtual => guest.v86(name, flags & !0x100, &code),
            Mode::Real => guest.real(name, &code),
        }
    }
    guest
}

fn check(mode: Mode) {
    let (guests, seed) = (setting("SYSTEM_GUESTS", 2), setting("SYSTEM_SEED", 1));
    let guests = (seed..seed + guests).map(|seed| guest(mode, seed).finish());
    system::check(Oracle::Bochs, guests, &Protected::LAYOUT, &[]);
}

#[test]
fn ring_0_does_what_bochs_does() {
    check(Mode::Ring0);
}

#[test]
fn ring_3_does_what_bochs_does() {
    check(Mode::Ring3);
}

#[test]
fn sixteen_bit_code_does_what_bochs_does() {
    check(Mode::Bits16);
}

#[test]
fn virtual_8086_mode_does_what_bochs_does() {
    check(Mode::Virtual);
}

#[test]
fn real_mode_does_what_bochs_does() {
    check(Mode::Real);
}
