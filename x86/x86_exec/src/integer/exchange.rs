//! XCHG, XADD, CMPXCHG, CMPXCHG8B, CMPXCHG16B.

use x86_decode::{Insn, Mnemonic, OperandKind};
use x86_state::Gpr;

use super::sized;
use crate::{Cpu, Env, Fault, Flags, Handler, Word};

const AX: u8 = Gpr::Rax as u8;

pub(super) fn select<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    Some(match insn.mnemonic() {
        Mnemonic::Xchg => match (insn.kind(0), insn.kind(1)) {
            (OperandKind::Mem, _) => sized!(insn.op_size, xchg_mem),
            _ => sized!(insn.op_size, xchg),
        },
        Mnemonic::Xadd => sized!(insn.op_size, xadd),
        Mnemonic::Cmpxchg => sized!(insn.op_size, cmpxchg),
        Mnemonic::Cmpxchg8b => cmpxchg8b,
        Mnemonic::Cmpxchg16b => cmpxchg16b,
        _ => return None,
    })
}

fn xchg<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let (a, b) = (cpu.reg::<T>(insn.reg0()), cpu.reg::<T>(insn.reg1()));
    cpu.set_reg(insn.reg0(), b);
    cpu.set_reg(insn.reg1(), a);
    Ok(())
}

/// Always locked.
fn xchg_mem<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let new = cpu.reg::<T>(insn.reg1());
    let old = cpu.modify(insn.seg, cpu.ea(insn), true, |old: T| (new, old))?;
    cpu.set_reg(insn.reg1(), old);
    Ok(())
}

/// The register receives the old value first: of one register with itself, the sum stays.
fn xadd<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let b = cpu.reg::<T>(insn.reg1());
    let sum = |a: T| {
        let mut flags = Flags::default();
        (flags.add(a, b), (a, flags))
    };
    cpu.flags = if insn.is_mem() {
        let (old, flags) = cpu.modify(insn.seg, cpu.ea(insn), insn.locked(), sum)?;
        cpu.set_reg(insn.reg1(), old);
        flags
    } else {
        let (new, (old, flags)) = sum(cpu.reg(insn.reg0()));
        cpu.set_reg(insn.reg1(), old);
        cpu.set_reg(insn.reg0(), new);
        flags
    };
    Ok(())
}

/// Memory is written in any case; a register keeps its upper half when it does not match.
fn cmpxchg<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let expected = cpu.reg::<T>(AX);
    let new = cpu.reg::<T>(insn.reg1());
    let old = if insn.is_mem() {
        let exchange = |old: T| (if old == expected { new } else { old }, old);
        cpu.modify(insn.seg, cpu.ea(insn), insn.locked(), exchange)?
    } else {
        let old = cpu.reg::<T>(insn.reg0());
        if old == expected {
            cpu.set_reg(insn.reg0(), new);
        }
        old
    };
    cpu.flags.sub(expected, old);
    if old != expected {
        cpu.set_reg(AX, old);
    }
    Ok(())
}

fn cmpxchg8b<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let pair =
        |high: Gpr, low: Gpr| cpu.gpr[high as usize] << 32 | cpu.gpr[low as usize] & 0xffff_ffff;
    let expected = pair(Gpr::Rdx, Gpr::Rax);
    let new = pair(Gpr::Rcx, Gpr::Rbx);
    let old = cpu.modify(insn.seg, cpu.ea(insn), insn.locked(), |old: u64| {
        (if old == expected { new } else { old }, old)
    })?;
    cpu.flags.set_zero(old == expected);
    if old != expected {
        cpu.gpr[Gpr::Rax as usize] = old & 0xffff_ffff;
        cpu.gpr[Gpr::Rdx as usize] = old >> 32;
    }
    Ok(())
}

fn cmpxchg16b<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let pair = |high: Gpr, low: Gpr| {
        u128::from(cpu.gpr[high as usize]) << 64 | u128::from(cpu.gpr[low as usize])
    };
    let expected = pair(Gpr::Rdx, Gpr::Rax);
    let new = pair(Gpr::Rcx, Gpr::Rbx);
    let old = cpu.cmpxchg_u128(insn.seg, cpu.ea(insn), expected, new)?;
    cpu.flags.set_zero(old == expected);
    if old != expected {
        cpu.gpr[Gpr::Rax as usize] = old as u64;
        cpu.gpr[Gpr::Rdx as usize] = (old >> 64) as u64;
    }
    Ok(())
}
