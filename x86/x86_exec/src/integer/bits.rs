//! BT, BTS, BTR, BTC, BSF, BSR, POPCNT, CRC32.

use x86_decode::{Code, Insn, Mnemonic, OperandKind};

use super::{sized_wide, width};
use crate::flags::sign_extend;
use crate::operands::cut;
use crate::{Cpu, Env, Fault, Handler, Word};

/// What becomes of a bit.
trait BitChange {
    const WRITES: bool = true;
    fn apply(value: u64, bit: u64) -> u64;
}

macro_rules! bit_change {
    ($($name:ident, $writes:literal, |$value:ident, $bit:ident| $body:expr;)*) => {
        $(
            struct $name;
            impl BitChange for $name {
                const WRITES: bool = $writes;
                #[inline(always)]
                fn apply($value: u64, $bit: u64) -> u64 {
                    $body
                }
            }
        )*
    };
}

bit_change! {
    Bt, false, |value, _bit| value;
    Bts, true, |value, bit| value | bit;
    Btr, true, |value, bit| value & !bit;
    Btc, true, |value, bit| value ^ bit;
}

pub(super) fn select<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    Some(match insn.mnemonic() {
        Mnemonic::Bt => by_form::<E, Bt>(insn),
        Mnemonic::Bts => by_form::<E, Bts>(insn),
        Mnemonic::Btr => by_form::<E, Btr>(insn),
        Mnemonic::Btc => by_form::<E, Btc>(insn),
        Mnemonic::Bsf => sized_wide!(insn.op_size, bsf),
        Mnemonic::Bsr => sized_wide!(insn.op_size, bsr),
        Mnemonic::Popcnt => sized_wide!(insn.op_size, popcnt),
        Mnemonic::Crc32 => match insn.code {
            Code::Crc32_r32_rm8 | Code::Crc32_r64_rm8 => crc32::<E, u8>,
            Code::Crc32_r32_rm16 => crc32::<E, u16>,
            Code::Crc32_r32_rm32 => crc32::<E, u32>,
            _ => crc32::<E, u64>,
        },
        _ => return None,
    })
}

fn by_form<E: Env, O: BitChange>(insn: &Insn) -> Handler<E> {
    if insn.is_mem() {
        sized_wide!(insn.op_size, bit_in_mem, O)
    } else {
        sized_wide!(insn.op_size, bit_in_reg, O)
    }
}

fn bit_in_reg<E: Env, T: Word, O: BitChange>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let position: T = match insn.kind(1) {
        OperandKind::Imm => T::from_u64(insn.imm),
        _ => cpu.reg(insn.reg1()),
    };
    let bit = 1 << (position.to_u64() as u32 & (width::<T>() - 1));
    let value = cpu.reg::<T>(insn.reg0()).to_u64();
    cpu.flags.set_carry(value & bit != 0);
    if O::WRITES {
        cpu.set_reg(insn.reg0(), T::from_u64(O::apply(value, bit)));
    }
    Ok(())
}

/// A position in a register reaches beyond the operand, both ways (SDM vol. 2A, 3.1.1.9).
fn bit_in_mem<E: Env, T: Word, O: BitChange>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let mut offset = cpu.ea(insn);
    let position = match insn.kind(1) {
        OperandKind::Imm => insn.imm,
        _ => {
            let position = sign_extend(cpu.reg::<T>(insn.reg1()));
            let words = position as i64 >> width::<T>().trailing_zeros();
            offset = cut(offset.wrapping_add((words * T::SIZE as i64) as u64), insn.addr_size);
            position
        }
    };
    let bit = 1u64 << (position as u32 & (width::<T>() - 1));
    let was = if O::WRITES {
        cpu.modify(insn.seg, offset, insn.locked(), |value: T| {
            (T::from_u64(O::apply(value.to_u64(), bit)), value.to_u64() & bit != 0)
        })?
    } else {
        cpu.read::<T>(insn.seg, offset)?.to_u64() & bit != 0
    };
    cpu.flags.set_carry(was);
    Ok(())
}

/// Of zero, the destination keeps its value (SDM: undefined; CPUs and AMD's manual agree).
fn bsf<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let value = cpu.read_op::<T>(insn, 1)?.to_u64();
    cpu.flags.set_zero(value == 0);
    if value != 0 {
        cpu.set_reg(insn.reg0(), T::from_u64(u64::from(value.trailing_zeros())));
    }
    Ok(())
}

fn bsr<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let value = cpu.read_op::<T>(insn, 1)?.to_u64();
    cpu.flags.set_zero(value == 0);
    if value != 0 {
        cpu.set_reg(insn.reg0(), T::from_u64(u64::from(value.ilog2())));
    }
    Ok(())
}

fn popcnt<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let value = cpu.read_op::<T>(insn, 1)?.to_u64();
    cpu.set_reg(insn.reg0(), T::from_u64(u64::from(value.count_ones())));
    // ZF by the source; all others clear.
    cpu.flags = crate::Flags::from_bits(u64::from(value == 0) << 6);
    Ok(())
}

/// CRC-32C, a byte at a time.
const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 != 0 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

fn crc32<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let data = cpu.read_op::<T>(insn, 1)?.to_u64().to_le_bytes();
    let crc = data[..T::SIZE].iter().fold(cpu.reg::<u32>(insn.reg0()), |crc, byte| {
        crc >> 8 ^ CRC_TABLE[usize::from(crc as u8 ^ byte)]
    });
    cpu.set_reg(insn.reg0(), crc);
    Ok(())
}
