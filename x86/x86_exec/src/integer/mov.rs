//! MOV, MOVZX, MOVSX, MOVSXD, MOVNTI, LEA, CMOVcc, SETcc, XLAT, BSWAP, CBW and CWD families.

use x86_decode::{Code, Insn, Mnemonic, OperandKind};
use x86_state::Gpr;

use super::{by_condition, sized, sized_wide, top, width};
use crate::flags::sign_extend;
use crate::memory::{Address, Base, Form, Indexed, by_address};
use crate::operands::cut;
use crate::{Cpu, Env, Fault, Handler, Word};

const AX: u8 = Gpr::Rax as u8;
const DX: u8 = Gpr::Rdx as u8;

pub(super) fn select<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    if let Some(condition) = condition_of(insn.mnemonic()) {
        return conditional(insn, condition);
    }
    Some(match insn.mnemonic() {
        Mnemonic::Mov => return mov(insn),
        Mnemonic::Movzx => extend::<E, Zero>(insn),
        Mnemonic::Movsx | Mnemonic::Movsxd => extend::<E, Sign>(insn),
        Mnemonic::Movnti => sized_wide!(insn.op_size, mr),
        Mnemonic::Lea => sized_wide!(insn.op_size, lea),
        Mnemonic::Xlatb => xlat,
        Mnemonic::Bswap => sized_wide!(insn.op_size, bswap),
        Mnemonic::Cbw => widen::<E, u8, u16>,
        Mnemonic::Cwde => widen::<E, u16, u32>,
        Mnemonic::Cdqe => widen::<E, u32, u64>,
        Mnemonic::Cwd => widen_dx::<E, u16>,
        Mnemonic::Cdq => widen_dx::<E, u32>,
        Mnemonic::Cqo => widen_dx::<E, u64>,
        _ => return None,
    })
}

fn mov<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    use OperandKind::{Imm, Mem};
    match insn.code {
        Code::Mov_rm16_Sreg
        | Code::Mov_r32m16_Sreg
        | Code::Mov_r64m16_Sreg
        | Code::Mov_Sreg_rm16
        | Code::Mov_Sreg_r32m16
        | Code::Mov_Sreg_r64m16
        | Code::Mov_r32_cr
        | Code::Mov_r64_cr
        | Code::Mov_r32_dr
        | Code::Mov_r64_dr
        | Code::Mov_r32_tr
        | Code::Mov_cr_r32
        | Code::Mov_cr_r64
        | Code::Mov_dr_r32
        | Code::Mov_dr_r64
        | Code::Mov_tr_r32 => return None,
        _ => {}
    }
    Some(match (insn.kind(0), insn.kind(1)) {
        (Mem, Imm) => by_address!(insn, mi, mi_flat),
        (Mem, _) => by_address!(insn, mr, mr_flat),
        (_, Mem) => by_address!(insn, rm, rm_flat),
        (_, Imm) => sized!(insn.op_size, ri),
        _ => sized!(insn.op_size, rr),
    })
}

fn rr<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let value = cpu.reg::<T>(insn.reg1());
    cpu.set_reg(insn.reg0(), value);
    Ok(())
}

fn ri<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    cpu.set_reg(insn.reg0(), T::from_u64(insn.imm));
    Ok(())
}

fn rm<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let value = cpu.read::<T>(insn.seg, cpu.ea(insn))?;
    cpu.set_reg(insn.reg0(), value);
    Ok(())
}

fn mr<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let value = cpu.reg::<T>(insn.reg1());
    cpu.write(insn.seg, cpu.ea(insn), value)
}

fn mi<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    cpu.write(insn.seg, cpu.ea(insn), T::from_u64(insn.imm))
}

fn rm_flat<E: Env, T: Word, A: Form>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let Some(at) = cpu.flat_read::<T>(cpu.flat_ea::<A>(insn)) else { return rm::<E, T>(cpu, insn) };
    let value = T::load(&cpu.env, at);
    cpu.set_reg(insn.reg0(), value);
    Ok(())
}

fn mr_flat<E: Env, T: Word, A: Form>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let Some(at) = cpu.flat_write::<T>(cpu.flat_ea::<A>(insn)) else {
        return mr::<E, T>(cpu, insn);
    };
    cpu.flat_store(at, cpu.reg::<T>(insn.reg1()))
}

fn mi_flat<E: Env, T: Word, A: Form>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let Some(at) = cpu.flat_write::<T>(cpu.flat_ea::<A>(insn)) else {
        return mi::<E, T>(cpu, insn);
    };
    cpu.flat_store(at, T::from_u64(insn.imm))
}

/// How a smaller operand becomes a larger one.
trait Extend {
    fn extend<S: Word>(value: S) -> u64;
}
struct Zero;
impl Extend for Zero {
    #[inline(always)]
    fn extend<S: Word>(value: S) -> u64 {
        value.to_u64()
    }
}
struct Sign;
impl Extend for Sign {
    #[inline(always)]
    fn extend<S: Word>(value: S) -> u64 {
        sign_extend(value)
    }
}

fn extend<E: Env, X: Extend>(insn: &Insn) -> Handler<E> {
    let source = match insn.code {
        Code::Movzx_r16_rm8
        | Code::Movzx_r32_rm8
        | Code::Movzx_r64_rm8
        | Code::Movsx_r16_rm8
        | Code::Movsx_r32_rm8
        | Code::Movsx_r64_rm8 => 1,
        Code::Movsxd_r32_rm32 | Code::Movsxd_r64_rm32 => 4,
        _ => 2,
    };
    match source {
        1 => extend_from::<E, X, u8>(insn),
        2 => extend_from::<E, X, u16>(insn),
        _ => extend_from::<E, X, u32>(insn),
    }
}

fn extend_from<E: Env, X: Extend, S: Word>(insn: &Insn) -> Handler<E> {
    if !insn.is_mem() {
        return sized_wide!(insn.op_size, extend_reg, X, S);
    }
    match Address::of(insn) {
        Address::Base => sized_wide!(insn.op_size, extend_flat, X, S, Base),
        Address::Indexed => sized_wide!(insn.op_size, extend_flat, X, S, Indexed),
        Address::Other => sized_wide!(insn.op_size, extend_mem, X, S),
    }
}

fn extend_reg<E: Env, T: Word, X: Extend, S: Word>(
    cpu: &mut Cpu<E>,
    insn: &Insn,
) -> Result<(), Fault> {
    let value = cpu.reg::<S>(insn.reg1());
    cpu.set_reg(insn.reg0(), T::from_u64(X::extend(value)));
    Ok(())
}

fn extend_mem<E: Env, T: Word, X: Extend, S: Word>(
    cpu: &mut Cpu<E>,
    insn: &Insn,
) -> Result<(), Fault> {
    let value = cpu.read::<S>(insn.seg, cpu.ea(insn))?;
    cpu.set_reg(insn.reg0(), T::from_u64(X::extend(value)));
    Ok(())
}

fn extend_flat<E: Env, T: Word, X: Extend, S: Word, A: Form>(
    cpu: &mut Cpu<E>,
    insn: &Insn,
) -> Result<(), Fault> {
    let Some(at) = cpu.flat_read::<S>(cpu.flat_ea::<A>(insn)) else {
        return extend_mem::<E, T, X, S>(cpu, insn);
    };
    let value = S::load(&cpu.env, at);
    cpu.set_reg(insn.reg0(), T::from_u64(X::extend(value)));
    Ok(())
}

fn lea<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    cpu.set_reg(insn.reg0(), T::from_u64(cpu.ea(insn)));
    Ok(())
}

fn xlat<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let index = u64::from(cpu.reg::<u8>(AX));
    let table = cpu.gpr[Gpr::Rbx as usize];
    let value = cpu.read::<u8>(insn.seg, cut(table.wrapping_add(index), insn.addr_size))?;
    cpu.set_reg(AX, value);
    Ok(())
}

/// Of 16 bits, the result is undefined: zero, as CPUs do.
fn bswap<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let value = cpu.reg::<T>(insn.reg0()).to_u64();
    let swapped = if T::SIZE == 2 { 0 } else { value.swap_bytes() >> (64 - width::<T>()) };
    cpu.set_reg(insn.reg0(), T::from_u64(swapped));
    Ok(())
}

fn widen<E: Env, S: Word, T: Word>(cpu: &mut Cpu<E>, _: &Insn) -> Result<(), Fault> {
    let value = sign_extend(cpu.reg::<S>(AX));
    cpu.set_reg(AX, T::from_u64(value));
    Ok(())
}

fn widen_dx<E: Env, T: Word>(cpu: &mut Cpu<E>, _: &Insn) -> Result<(), Fault> {
    let sign = if top(cpu.reg::<T>(AX)) { u64::MAX } else { 0 };
    cpu.set_reg(DX, T::from_u64(sign));
    Ok(())
}

/// The condition code of CMOVcc (false) or SETcc (true).
fn condition_of(mnemonic: Mnemonic) -> Option<(bool, u8)> {
    use Mnemonic as M;
    Some(match mnemonic {
        M::Cmovo => (false, 0),
        M::Cmovno => (false, 1),
        M::Cmovb => (false, 2),
        M::Cmovae => (false, 3),
        M::Cmove => (false, 4),
        M::Cmovne => (false, 5),
        M::Cmovbe => (false, 6),
        M::Cmova => (false, 7),
        M::Cmovs => (false, 8),
        M::Cmovns => (false, 9),
        M::Cmovp => (false, 10),
        M::Cmovnp => (false, 11),
        M::Cmovl => (false, 12),
        M::Cmovge => (false, 13),
        M::Cmovle => (false, 14),
        M::Cmovg => (false, 15),
        M::Seto => (true, 0),
        M::Setno => (true, 1),
        M::Setb => (true, 2),
        M::Setae => (true, 3),
        M::Sete => (true, 4),
        M::Setne => (true, 5),
        M::Setbe => (true, 6),
        M::Seta => (true, 7),
        M::Sets => (true, 8),
        M::Setns => (true, 9),
        M::Setp => (true, 10),
        M::Setnp => (true, 11),
        M::Setl => (true, 12),
        M::Setge => (true, 13),
        M::Setle => (true, 14),
        M::Setg => (true, 15),
        _ => return None,
    })
}

fn conditional<E: Env>(insn: &Insn, (set, condition): (bool, u8)) -> Option<Handler<E>> {
    Some(match (set, insn.is_mem(), insn.op_size) {
        (true, true, _) => by_condition!(condition, set_mem),
        (true, false, _) => by_condition!(condition, set_reg),
        (_, true, 2) => by_condition!(condition, cmov_mem, u16),
        (_, true, 4) => by_condition!(condition, cmov_mem, u32),
        (_, true, _) => by_condition!(condition, cmov_mem, u64),
        (_, _, 2) => by_condition!(condition, cmov_reg, u16),
        (_, _, 4) => by_condition!(condition, cmov_reg, u32),
        _ => by_condition!(condition, cmov_reg, u64),
    })
}

fn set_reg<E: Env, const C: u8>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let value = u8::from(cpu.flags.condition(C));
    cpu.set_reg(insn.reg0(), value);
    Ok(())
}

fn set_mem<E: Env, const C: u8>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let value = u8::from(cpu.flags.condition(C));
    cpu.write(insn.seg, cpu.ea(insn), value)
}

/// The destination is written in any case: a 32-bit one loses its upper half.
fn cmov_reg<E: Env, T: Word, const C: u8>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let from = if cpu.flags.condition(C) { insn.reg1() } else { insn.reg0() };
    let value = cpu.reg::<T>(from);
    cpu.set_reg(insn.reg0(), value);
    Ok(())
}

/// Memory is read in any case.
fn cmov_mem<E: Env, T: Word, const C: u8>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let loaded = cpu.read::<T>(insn.seg, cpu.ea(insn))?;
    let old = cpu.reg::<T>(insn.reg0());
    cpu.set_reg(insn.reg0(), if cpu.flags.condition(C) { loaded } else { old });
    Ok(())
}
