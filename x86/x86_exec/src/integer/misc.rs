//! Flag instructions, NOPs, fences, and what else has no operands worth a family.

use std::sync::atomic::{Ordering, fence};

use x86_decode::{Insn, Mnemonic};
use x86_state::bits::Rflags;
use x86_state::{Exception, Gpr};

use super::sized_wide;
use crate::flags::sign_extend;
use crate::{Cpu, Env, Fault, Flags, Handler, Word};

const AX: u8 = Gpr::Rax as u8;
const AH: u8 = 16;

pub(super) fn select<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    Some(match insn.mnemonic() {
        Mnemonic::Clc => |cpu, _| carry(cpu, |_| false),
        Mnemonic::Stc => |cpu, _| carry(cpu, |_| true),
        Mnemonic::Cmc => |cpu, _| carry(cpu, |carry| !carry),
        Mnemonic::Cld => |cpu, _| direction(cpu, false),
        Mnemonic::Std => |cpu, _| direction(cpu, true),
        Mnemonic::Lahf => lahf,
        Mnemonic::Sahf => sahf,
        Mnemonic::Salc => salc,
        // Hints, which need no memory; LFENCE and SFENCE order what the host orders anyway.
        Mnemonic::Nop
        | Mnemonic::Reservednop
        | Mnemonic::Pause
        | Mnemonic::Endbr64
        | Mnemonic::Endbr32
        | Mnemonic::Lfence
        | Mnemonic::Sfence => nop,
        Mnemonic::Mfence => mfence,
        Mnemonic::Clflush => clflush,
        Mnemonic::Rdrand => sized_wide!(insn.op_size, rdrand),
        Mnemonic::Bound => sized_wide!(insn.op_size, bound),
        _ => return None,
    })
}

fn nop<E: Env>(_: &mut Cpu<E>, _: &Insn) -> Result<(), Fault> {
    Ok(())
}

fn carry<E: Env>(cpu: &mut Cpu<E>, change: impl Fn(bool) -> bool) -> Result<(), Fault> {
    let carry = cpu.flags.carry();
    cpu.flags.set_carry(change(carry));
    Ok(())
}

fn direction<E: Env>(cpu: &mut Cpu<E>, down: bool) -> Result<(), Fault> {
    let flag = Rflags::DF.bits();
    cpu.system_flags = if down { cpu.system_flags | flag } else { cpu.system_flags & !flag };
    Ok(())
}

fn lahf<E: Env>(cpu: &mut Cpu<E>, _: &Insn) -> Result<(), Fault> {
    let flags = cpu.flags.bits() as u8 | Rflags::FIXED.bits() as u8;
    cpu.set_reg(AH, flags);
    Ok(())
}

fn sahf<E: Env>(cpu: &mut Cpu<E>, _: &Insn) -> Result<(), Fault> {
    let kept = cpu.flags.bits() & Rflags::OF.bits();
    cpu.flags = Flags::from_bits(u64::from(cpu.reg::<u8>(AH)) | kept);
    Ok(())
}

/// AL becomes all ones or zero by CF. In no manual, and in every CPU.
fn salc<E: Env>(cpu: &mut Cpu<E>, _: &Insn) -> Result<(), Fault> {
    let value = if cpu.flags.carry() { 0xffu8 } else { 0 };
    cpu.set_reg(AX, value);
    Ok(())
}

/// The one reordering the host does too, a load before an older store, must not happen here.
fn mfence<E: Env>(_: &mut Cpu<E>, _: &Insn) -> Result<(), Fault> {
    fence(Ordering::SeqCst);
    Ok(())
}

/// Faults as a load does; there is nothing to flush.
fn clflush<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    cpu.read::<u8>(insn.seg, cpu.ea(insn)).map(|_| ())
}

fn rdrand<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let number = cpu.env.random(cpu.retired);
    cpu.set_reg(insn.reg0(), T::from_u64(number.unwrap_or(0)));
    cpu.flags = Flags::from_bits(u64::from(number.is_some()));
    Ok(())
}

fn bound<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let index = sign_extend(cpu.reg::<T>(insn.reg0())) as i64;
    let offset = cpu.ea(insn);
    let lower = sign_extend(cpu.read::<T>(insn.seg, offset)?) as i64;
    let next = crate::operands::cut(offset.wrapping_add(T::SIZE as u64), insn.addr_size);
    let upper = sign_extend(cpu.read::<T>(insn.seg, next)?) as i64;
    if index < lower || index > upper {
        return Err(cpu.raise(Exception::Br));
    }
    Ok(())
}
