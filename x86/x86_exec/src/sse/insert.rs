//! One lane in or out.

use x86_decode::{Insn, OperandKind};

use super::operand::merge;
use super::table;
use crate::{Cpu, Env, Fault, Handler, Word};

type Done = Result<(), Fault>;

/// The first bit of the lane of type `T` the immediate names.
fn lane<T: Word>(insn: &Insn) -> u32 {
    let lanes = 16 / T::SIZE as u32;
    8 * T::SIZE as u32 * (insn.imm as u32 & (lanes - 1))
}

/// PINSRx: from a general register or memory.
#[inline(always)]
fn insert<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Done {
    cpu.check_sse()?;
    // A byte is taken from the low end of whatever register the number names: there is no AH.
    let src = match insn.kind(1) {
        OperandKind::Mem => cpu.read::<T>(insn.seg, cpu.ea(insn))?.to_u64(),
        _ => T::from_u64(cpu.reg::<u64>(insn.reg1())).to_u64(),
    };
    let at = lane::<T>(insn);
    let (old, bits) = (cpu.xmm(insn.reg0()), 8 * T::SIZE as u32);
    let value = old & !(((1_u128 << bits) - 1) << at) | u128::from(src) << at;
    cpu.set_xmm(insn.reg0(), value);
    Ok(())
}

/// PEXTRx and EXTRACTPS: to a general register, zero-extended, or memory.
#[inline(always)]
fn extract<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Done {
    cpu.check_sse()?;
    let value = T::from_u64((cpu.xmm(insn.reg1()) >> lane::<T>(insn)) as u64);
    if insn.kind(0) == OperandKind::Mem {
        return cpu.write(insn.seg, cpu.ea(insn), value);
    }
    cpu.set_reg::<u64>(insn.reg0(), value.to_u64());
    Ok(())
}

/// INSERTPS: a lane of a register, or memory, to a lane; then lanes to zero.
fn insertps<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Done {
    cpu.check_sse()?;
    let imm = insn.imm as u32;
    let src = match insn.kind(1) {
        OperandKind::Mem => u128::from(cpu.read::<u32>(insn.seg, cpu.ea(insn))?),
        _ => cpu.xmm(insn.reg1()) >> (32 * (imm >> 6 & 3)),
    };
    let at = 32 * (imm >> 4 & 3);
    let old = cpu.xmm(insn.reg0()).rotate_right(at);
    let mut value = merge(old, src, 32).rotate_left(at);
    for i in (0..4).filter(|i| imm >> i & 1 != 0) {
        value &= !(0xffff_ffff << (32 * i));
    }
    cpu.set_xmm(insn.reg0(), value);
    Ok(())
}

pub(super) fn select<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    table! { insn;
        Pinsrb_xmm_r32m8_imm8 | Pinsrb_xmm_r64m8_imm8 => insert::<E, u8>,
        Pinsrw_xmm_r32m16_imm8 | Pinsrw_xmm_r64m16_imm8 => insert::<E, u16>,
        Pinsrd_xmm_rm32_imm8 => insert::<E, u32>,
        Pinsrq_xmm_rm64_imm8 => insert::<E, u64>,
        Pextrb_r32m8_xmm_imm8 | Pextrb_r64m8_xmm_imm8 => extract::<E, u8>,
        Pextrw_r32_xmm_imm8 | Pextrw_r64_xmm_imm8 | Pextrw_r32m16_xmm_imm8
            | Pextrw_r64m16_xmm_imm8 => extract::<E, u16>,
        Pextrd_rm32_xmm_imm8 | Extractps_rm32_xmm_imm8 | Extractps_r64m32_xmm_imm8 =>
            extract::<E, u32>,
        Pextrq_rm64_xmm_imm8 => extract::<E, u64>,
        Insertps_xmm_xmmm32_imm8 => insertps,
    }
}
