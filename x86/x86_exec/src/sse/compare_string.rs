//! PCMPESTRI, PCMPESTRM, PCMPISTRI and PCMPISTRM (SDM vol. 2B, 4.1).

use x86_decode::{Insn, OperandKind};
use x86_state::Gpr;
use x86_state::bits::Rflags;

use super::table;
use crate::{Cpu, Env, Fault, Flags, Handler};

type Done = Result<(), Fault>;

/// A string: elements as numbers, and how many count.
struct Text {
    elements: [i32; 16],
    length: usize,
}

/// The control byte.
#[derive(Clone, Copy)]
struct Control(u8);

impl Control {
    const fn count(self) -> usize {
        if self.0 & 1 != 0 { 8 } else { 16 }
    }

    fn elements(self, value: u128) -> [i32; 16] {
        let bytes = value.to_le_bytes();
        std::array::from_fn(|i| match self.0 & 3 {
            0 => i32::from(bytes[i]),
            2 => i32::from(bytes[i] as i8),
            format => {
                let at = 2 * (i & 7);
                let word = u16::from_le_bytes([bytes[at], bytes[at + 1]]);
                if format == 1 { i32::from(word) } else { i32::from(word as i16) }
            }
        })
    }

    /// A string that ends at the first zero.
    fn implicit(self, value: u128) -> Text {
        let elements = self.elements(value);
        let count = self.count();
        let length = elements[..count].iter().position(|e| *e == 0).unwrap_or(count);
        Text { elements, length }
    }

    /// A string whose length is a register's absolute value, at most as many as there are.
    fn explicit(self, value: u128, length: i64) -> Text {
        let length = length.unsigned_abs().min(self.count() as u64) as usize;
        Text { elements: self.elements(value), length }
    }

    /// One bit an element of `b` (SDM: IntRes1).
    fn aggregate(self, a: &Text, b: &Text) -> u32 {
        let count = self.count();
        let equal = |i: usize, j: usize| a.elements[i] == b.elements[j];
        let test = |j: usize| match self.0 >> 2 & 3 {
            0 => j < b.length && (0..a.length).any(|i| equal(i, j)),
            1 => {
                let within = |i: usize| {
                    let at = b.elements[j];
                    a.elements[i] <= at && at <= a.elements[i + 1]
                };
                j < b.length && (0..a.length / 2).any(|i| within(2 * i))
            }
            2 => match (j < a.length, j < b.length) {
                (true, true) => equal(j, j),
                (false, false) => true,
                _ => false,
            },
            _ => (0..a.length.min(count - j)).all(|i| i + j < b.length && equal(i, i + j)),
        };
        (0..count).filter(|j| test(*j)).fold(0, |bits, j| bits | 1 << j)
    }

    /// IntRes2: IntRes1 with the polarity applied.
    fn result(self, a: &Text, b: &Text) -> u32 {
        let bits = self.aggregate(a, b);
        match self.0 >> 4 & 3 {
            1 => bits ^ ((1 << self.count()) - 1),
            3 => bits ^ ((1 << b.length) - 1),
            _ => bits,
        }
    }

    fn index(self, result: u32) -> u32 {
        if result == 0 {
            self.count() as u32
        } else if self.0 & 0x40 != 0 {
            31 - result.leading_zeros()
        } else {
            result.trailing_zeros()
        }
    }

    fn mask(self, result: u32) -> u128 {
        if self.0 & 0x40 == 0 {
            return u128::from(result);
        }
        let bits = 128 / self.count();
        let lane = (1_u128 << bits) - 1;
        (0..self.count())
            .filter(|i| result >> i & 1 != 0)
            .fold(0, |mask, i| mask | lane << (bits * i))
    }
}

fn flags(control: Control, a: &Text, b: &Text, result: u32) -> Flags {
    let count = control.count();
    let bit = |on: bool, flag: Rflags| if on { flag.bits() } else { 0 };
    Flags::from_bits(
        bit(result != 0, Rflags::CF)
            | bit(b.length < count, Rflags::ZF)
            | bit(a.length < count, Rflags::SF)
            | bit(result & 1 != 0, Rflags::OF),
    )
}

/// The four instructions: strings by `texts`, result as index (ECX) or mask (XMM0).
#[inline(always)]
fn compare<E: Env>(
    cpu: &mut Cpu<E>,
    insn: &Insn,
    to_mask: bool,
    texts: impl Fn(&Cpu<E>, Control, u128, u128) -> (Text, Text),
) -> Done {
    cpu.check_sse()?;
    let src = match insn.kind(1) {
        OperandKind::Mem => cpu.read_u128(insn.seg, cpu.ea(insn))?,
        _ => cpu.xmm(insn.reg1()),
    };
    let control = Control(insn.imm as u8);
    let (a, b) = texts(cpu, control, cpu.xmm(insn.reg0()), src);
    let result = control.result(&a, &b);
    cpu.flags = flags(control, &a, &b, result);
    if to_mask {
        cpu.set_xmm(0, control.mask(result));
    } else {
        cpu.set_reg(Gpr::Rcx as u8, control.index(result));
    }
    Ok(())
}

fn implicit<E: Env>(_: &Cpu<E>, control: Control, a: u128, b: u128) -> (Text, Text) {
    (control.implicit(a), control.implicit(b))
}

fn explicit_32<E: Env>(cpu: &Cpu<E>, control: Control, a: u128, b: u128) -> (Text, Text) {
    let length = |reg: Gpr| i64::from(cpu.reg::<u32>(reg as u8) as i32);
    (control.explicit(a, length(Gpr::Rax)), control.explicit(b, length(Gpr::Rdx)))
}

fn explicit_64<E: Env>(cpu: &Cpu<E>, control: Control, a: u128, b: u128) -> (Text, Text) {
    let length = |reg: Gpr| cpu.reg::<u64>(reg as u8) as i64;
    (control.explicit(a, length(Gpr::Rax)), control.explicit(b, length(Gpr::Rdx)))
}

pub(super) fn select<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    table! { insn;
        Pcmpistri_xmm_xmmm128_imm8 => |c, i| compare(c, i, false, implicit),
        Pcmpistrm_xmm_xmmm128_imm8 => |c, i| compare(c, i, true, implicit),
        Pcmpestri_xmm_xmmm128_imm8 => |c, i| compare(c, i, false, explicit_32),
        Pcmpestrm_xmm_xmmm128_imm8 => |c, i| compare(c, i, true, explicit_32),
        Pcmpestri64_xmm_xmmm128_imm8 => |c, i| compare(c, i, false, explicit_64),
        Pcmpestrm64_xmm_xmmm128_imm8 => |c, i| compare(c, i, true, explicit_64),
    }
}
