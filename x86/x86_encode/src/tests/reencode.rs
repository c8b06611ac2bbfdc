//! Random instructions, encoded again.

use iced_x86::{Instruction, OpKind, Register};
use x86_decode::native::{Class, Native, NativeDecoder};

use super::decode;
use crate::{Assembler, Mem, Reg, Segment, Substitution, Unencodable, reencode};

/// Xorshift, for bytes that are the same each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Bytes that are often an instruction of note.
    fn bytes(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        let mut at = 0;
        let choice = self.next();
        if choice & 3 == 0 {
            bytes[0] = [0x66, 0xf2, 0xf3, 0xf0, 0x64, 0x65, 0x67, 0x2e][(choice >> 8) as usize & 7];
            at = 1;
        }
        match choice >> 16 & 7 {
            0..=2 => bytes[at] = 0x40 | (choice >> 32) as u8 & 15,
            3 => bytes[at] = 0xc4,
            4 => bytes[at] = 0xc5,
            _ => at = at.wrapping_sub(1),
        }
        at = at.wrapping_add(1);
        match choice >> 24 & 3 {
            0 => {}
            1 => bytes[at] = 0x0f,
            2 => bytes[at] = if bytes[0] == 0xc4 { 0xe2 } else { 0x0f },
            _ => at = at.wrapping_sub(1),
        }
        at = at.wrapping_add(1).min(15);
        for byte in &mut bytes[at..] {
            *byte = (self.next() >> 24) as u8;
        }
        bytes
    }
}

fn natives(bits: u32, count: usize, mut each: impl FnMut(&Native, &mut Random)) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut found = 0;
    while found < count {
        let bytes = random.bytes();
        let Ok(native) = NativeDecoder::new(bits, &bytes).next_insn() else { continue };
        if native.class == Class::Copy {
            found += 1;
            each(&native, &mut random);
        }
    }
}

fn encode(native: &Native, to: &Substitution) -> Result<Instruction, Unencodable> {
    let mut out = Assembler::new();
    reencode(&mut out, native, to)?;
    Ok(decode(64, out.code()))
}

fn original(bits: u32, native: &Native) -> Instruction {
    decode(bits, &native.bytes[..native.len.into()])
}

/// `reg` as named, with its number through the substitution.
fn renamed(reg: Register, to: &Substitution) -> Register {
    if !reg.is_gpr() {
        return reg;
    }
    let number = |reg: Register| usize::from(to.gpr[reg.full_register().number()].number());
    let of = number(reg);
    match reg {
        Register::AH | Register::CH | Register::DH | Register::BH => Register::AH + of as u32,
        _ if reg.is_gpr8() && of < 4 => Register::AL + of as u32,
        _ if reg.is_gpr8() => Register::SPL + (of as u32 - 4),
        _ if reg.is_gpr16() => Register::AX + of as u32,
        _ if reg.is_gpr32() => Register::EAX + of as u32,
        _ => Register::RAX + of as u32,
    }
}

/// Operands that are registers, renamed unless implied, and everything that is no operand of
/// memory.
fn assert_same(a: &Instruction, b: &Instruction, to: &Substitution, native: &Native) {
    assert_eq!(a.op_count(), b.op_count());
    for i in 0..a.op_count() {
        if a.op_kind(i) == OpKind::Register {
            assert_eq!(renamed(a.op_register(i), to), b.op_register(i), "{native:02x?}");
        } else if a.op_kind(i) != OpKind::Memory {
            assert_eq!(a.op_kind(i), b.op_kind(i), "{native:02x?}");
            assert_eq!(a.immediate(i), b.immediate(i), "{native:02x?}");
        } else {
            assert_eq!(b.op_kind(i), OpKind::Memory, "{native:02x?}");
            assert_eq!(a.memory_size(), b.memory_size(), "{native:02x?}");
        }
    }
    assert_eq!(a.has_lock_prefix(), b.has_lock_prefix(), "{native:02x?}");
}

fn is_absolute(native: &Native) -> bool {
    native.modrm.is_none() && native.mem.is_some()
}

#[test]
fn identity_is_the_same_instruction() {
    let mut encoded = 0;
    natives(64, 200_000, |native, _| {
        let from = original(64, native);
        let Ok(to) = encode(native, &Substitution::IDENTITY) else {
            let nop = native.opcode_len == 1 && native.opcode() == 0x90;
            assert!(native.mem.is_some_and(|mem| mem.rip_relative) || nop, "{native:02x?}");
            return;
        };
        encoded += 1;
        assert_same(&from, &to, &Substitution::IDENTITY, native);
        if is_absolute(native) {
            return;
        }
        assert_eq!(from.code(), to.code(), "{native:02x?}");
        let mem = |insn: &Instruction| {
            let (base, index) = (insn.memory_base(), insn.memory_index());
            let scale = insn.memory_index_scale() * u32::from(index != Register::None);
            (base, index, scale, insn.memory_displacement64())
        };
        if native.mem.is_some() {
            assert_eq!(mem(&from), mem(&to), "{native:02x?}");
            let of = |insn: &Instruction| match insn.memory_segment() {
                Register::FS | Register::GS => insn.memory_segment(),
                _ => Register::DS,
            };
            assert_eq!(of(&from), of(&to), "{native:02x?}");
        }
    });
    assert!(encoded > 150_000, "{encoded}");
}

fn shuffled(native: &Native, random: &mut Random) -> Substitution {
    let mut gpr = Reg::ALL;
    for i in (1..16).rev() {
        let j = (random.next() >> 20) as usize % (i + 1);
        gpr.swap(i, j);
    }
    // What is implied stays.
    for i in 0..16 {
        if native.gpr_implicit >> i & 1 != 0 {
            let at = gpr.iter().position(|reg| usize::from(reg.number()) == i).unwrap();
            gpr.swap(i, at);
        }
    }
    let reg = |value: u64| Reg::new(value as u8);
    let value = random.next();
    let index = (value & 1 != 0 && reg(value >> 8) != Reg::RSP)
        .then_some((reg(value >> 8), (value >> 12) as u8 & 3));
    let mem = Mem {
        seg: [None, Some(Segment::Fs), Some(Segment::Gs), None][(value >> 16) as usize & 3],
        base: (value & 2 != 0).then_some(reg(value >> 20)),
        index,
        disp: (value >> 24) as i32 >> ((value >> 60) * 2),
    };
    Substitution { gpr, mem: Some(mem) }
}

#[test]
fn renamed_is_the_same_instruction_of_other_operands() {
    for bits in [64, 32] {
        let mut encoded = 0;
        natives(bits, 200_000, |native, random| {
            let to = shuffled(native, random);
            let from = original(bits, native);
            let Ok(new) = encode(native, &to) else {
                let nop = native.opcode_len == 1 && native.opcode_reg.is_gpr();
                assert!(native.high_byte != 0 || nop, "{native:02x?} {to:?}");
                return;
            };
            encoded += 1;
            assert_eq!(from.mnemonic(), new.mnemonic(), "{native:02x?}");
            assert_same(&from, &new, &to, native);
            if native.mem.is_some() {
                assert_memory(&new, &to.mem.unwrap(), native);
            }
        });
        assert!(encoded > 150_000, "{encoded}");
    }
}

fn assert_memory(new: &Instruction, mem: &Mem, native: &Native) {
    let name = |reg: Reg| Register::RAX + u32::from(reg.number());
    assert_eq!(new.memory_base(), mem.base.map_or(Register::None, name), "{native:02x?}");
    let index = mem.index.map_or(Register::None, |(reg, _)| name(reg));
    assert_eq!(new.memory_index(), index, "{native:02x?}");
    let scale = mem.index.map_or(0, |(_, scale)| scale);
    assert_eq!(new.memory_index_scale(), 1 << scale, "{native:02x?}");
    assert_eq!(new.memory_displacement64(), i64::from(mem.disp) as u64, "{native:02x?}");
    assert_eq!(new.memory_segment() == Register::FS, mem.seg == Some(Segment::Fs));
    assert_eq!(new.memory_segment() == Register::GS, mem.seg == Some(Segment::Gs));
}

#[test]
fn what_an_opcode_implies_is_not_renamed() {
    let native = NativeDecoder::new(64, &[0xd3, 0xe0]).next_insn().unwrap(); // shl eax, cl
    let mut to = Substitution::IDENTITY;
    to.gpr[1] = Reg::R11;
    assert_eq!(encode(&native, &to), Err(Unencodable));
    to.gpr = Reg::ALL;
    to.gpr[0] = Reg::R11;
    assert_eq!(encode(&native, &to).unwrap().op0_register(), Register::R11D);
}

#[test]
fn prefixes_that_mean_nothing_are_dropped() {
    // An XACQUIRE must not begin a transaction on the host.
    let native = NativeDecoder::new(64, &[0xf2, 0xf0, 0x48, 0x0f, 0xb1, 0x0f]).next_insn().unwrap();
    let mut out = Assembler::new();
    reencode(&mut out, &native, &Substitution::IDENTITY).unwrap();
    assert_eq!(out.code(), [0xf0, 0x48, 0x0f, 0xb1, 0x0f]);
}

#[test]
fn old_encodings_become_those_of_64_bit_code() {
    for (from, to) in [
        (&[0x41][..], &[0xff, 0xc1][..]),     // inc ecx
        (&[0x66, 0x4e], &[0x66, 0xff, 0xce]), // dec si
        (&[0x82, 0xc1, 5], &[0x80, 0xc1, 5]), // add cl, 5
        (&[0xa1, 1, 2, 3, 4], &[0x67, 0x8b, 0x04, 0x25, 1, 2, 3, 4]), // mov eax, [moffs]
    ] {
        let native = NativeDecoder::new(32, from).next_insn().unwrap();
        let mut out = Assembler::new();
        reencode(&mut out, &native, &Substitution::IDENTITY).unwrap();
        assert_eq!(out.code(), to);
    }
    let push = NativeDecoder::new(32, &[0x50]).next_insn().unwrap();
    assert_eq!(encode(&push, &Substitution::IDENTITY), Err(Unencodable));
}
