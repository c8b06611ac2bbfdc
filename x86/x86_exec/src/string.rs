//! MOVS, CMPS, SCAS, LODS, STOS, INS, OUTS, with and without repetition.
//!
//! A repeated instruction is one that is begun again: after a fault, registers tell what is left.
//! It gives way to events after [`Cpu::iterations_max`] iterations, and whenever someone asks.

use x86_decode::{Insn, InsnFlags, Mnemonic};
use x86_state::bits::Rflags;
use x86_state::{Gpr, SegReg};

use crate::integer::sized;
use crate::operands::cut;
use crate::{Access, Cpu, Env, Fault, Handler, Word};

const AX: u8 = Gpr::Rax as u8;
/// Bytes copied or filled at once.
const CHUNK: usize = 512;
/// Fewer elements are not worth the look at whole pages.
const BULK_MIN: u64 = 4;

/// The function that does `insn`, when it is of this family.
pub(crate) fn select<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    use Mnemonic as M;
    Some(match insn.mnemonic() {
        M::Movsb | M::Movsw | M::Movsq => sized!(insn.op_size, repeat, Movs),
        M::Movsd if insn.is_string() => repeat::<E, u32, Movs>,
        M::Cmpsb | M::Cmpsw | M::Cmpsq => sized!(insn.op_size, repeat, Cmps),
        M::Cmpsd if insn.is_string() => repeat::<E, u32, Cmps>,
        M::Scasb | M::Scasw | M::Scasd | M::Scasq => sized!(insn.op_size, repeat, Scas),
        M::Lodsb | M::Lodsw | M::Lodsd | M::Lodsq => sized!(insn.op_size, repeat, Lods),
        M::Stosb | M::Stosw | M::Stosd | M::Stosq => sized!(insn.op_size, repeat, Stos),
        M::Insb => repeat::<E, u8, Ins>,
        M::Insw => repeat::<E, u16, Ins>,
        M::Insd => repeat::<E, u32, Ins>,
        M::Outsb => repeat::<E, u8, Outs>,
        M::Outsw => repeat::<E, u16, Outs>,
        M::Outsd => repeat::<E, u32, Outs>,
        _ => return None,
    })
}

/// A string instruction without its prefix.
pub(crate) trait StringOp {
    /// REPE and REPNE look at ZF after each iteration.
    const COMPARES: bool = false;

    /// One iteration. A fault leaves registers as they were.
    fn once<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault>;

    /// Up to `max` iterations at once, where memory and direction allow: tells how many, perhaps
    /// none.
    fn bulk<E: Env, T: Word>(_: &mut Cpu<E>, _: &Insn, _max: u64) -> Result<u64, Fault> {
        Ok(0)
    }
}

pub(crate) fn repeat<E: Env, T: Word, O: StringOp>(
    cpu: &mut Cpu<E>,
    insn: &Insn,
) -> Result<(), Fault> {
    if !insn.flags.intersects(InsnFlags::REP | InsnFlags::REPNE) {
        return O::once::<E, T>(cpu, insn);
    }
    let while_zero = insn.flags.contains(InsnFlags::REP);
    let mut left = cut(cpu.gpr[Gpr::Rcx as usize], insn.addr_size);
    let mut budget = cpu.iterations_max;
    while left != 0 {
        let bulk_max = left.min(budget);
        let mut done = 0;
        if bulk_max >= BULK_MIN {
            done = O::bulk::<E, T>(cpu, insn, bulk_max)?;
        }
        if done == 0 {
            O::once::<E, T>(cpu, insn)?;
            done = 1;
        }
        left -= done;
        budget -= done;
        cpu.set_address_reg(Gpr::Rcx, left, insn.addr_size);
        if left == 0 || O::COMPARES && cpu.flags.is_zero() != while_zero {
            break;
        }
        if budget == 0 || cpu.code_written || cpu.debug_hits != 0 || cpu.env.attention() {
            cpu.again = true;
            break;
        }
    }
    Ok(())
}

impl<E: Env> Cpu<E> {
    /// Sets as much of a register as addresses have.
    #[inline(always)]
    pub(crate) fn set_address_reg(&mut self, reg: Gpr, value: u64, addr_size: u8) {
        let slot = &mut self.gpr[reg as usize];
        *slot =
            if addr_size == 2 { *slot & !0xffff | value & 0xffff } else { cut(value, addr_size) };
    }

    #[inline(always)]
    pub(crate) fn address_reg(&self, reg: Gpr, addr_size: u8) -> u64 {
        cut(self.gpr[reg as usize], addr_size)
    }

    /// Moves an index register over `count` elements in the direction of DF.
    #[inline(always)]
    pub(crate) fn advance<T: Word>(&mut self, reg: Gpr, count: u64, insn: &Insn) {
        let distance = T::SIZE as u64 * count;
        let down = self.system_flag(Rflags::DF);
        let distance = if down { distance.wrapping_neg() } else { distance };
        let value = self.gpr[reg as usize].wrapping_add(distance);
        self.set_address_reg(reg, value, insn.addr_size);
    }

    /// How many elements from this offset there are before addresses wrap.
    fn before_wrap<T: Word>(offset: u64, addr_size: u8) -> u64 {
        match addr_size {
            8 => u64::MAX / 8,
            4 => ((1 << 32) - offset) / T::SIZE as u64,
            _ => ((1 << 16) - offset) / T::SIZE as u64,
        }
    }
}

struct Movs;
impl StringOp for Movs {
    fn once<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
        let value: T = cpu.read(insn.seg, cpu.address_reg(Gpr::Rsi, insn.addr_size))?;
        cpu.write(SegReg::Es, cpu.address_reg(Gpr::Rdi, insn.addr_size), value)?;
        cpu.advance::<T>(Gpr::Rsi, 1, insn);
        cpu.advance::<T>(Gpr::Rdi, 1, insn);
        Ok(())
    }

    fn bulk<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn, max: u64) -> Result<u64, Fault> {
        if cpu.system_flag(Rflags::DF) {
            return Ok(0);
        }
        let from = cpu.address_reg(Gpr::Rsi, insn.addr_size);
        let to = cpu.address_reg(Gpr::Rdi, insn.addr_size);
        let Some(source) = cpu.host_for_read(insn.seg, from)? else { return Ok(0) };
        let Some(target) = cpu.host_for_write(SegReg::Es, to)? else { return Ok(0) };
        let mut count = max
            .min((source.size.min(target.size) / T::SIZE) as u64)
            .min(Cpu::<E>::before_wrap::<T>(from, insn.addr_size))
            .min(Cpu::<E>::before_wrap::<T>(to, insn.addr_size));
        // A target just above the source repeats what was copied a moment ago.
        let ahead = target.at.0.wrapping_sub(source.at.0);
        if ahead != 0 {
            count = count.min(ahead / T::SIZE as u64);
        }
        if count < BULK_MIN {
            return Ok(0);
        }
        let size = count as usize * T::SIZE;
        let mut buffer = [0; CHUNK];
        for start in (0..size).step_by(CHUNK) {
            let part = &mut buffer[..CHUNK.min(size - start)];
            cpu.env.read(source.at.plus(start), part);
            cpu.code_written |= cpu.env.write(target.at.plus(start), part);
        }
        cpu.advance::<T>(Gpr::Rsi, count, insn);
        cpu.advance::<T>(Gpr::Rdi, count, insn);
        Ok(count)
    }
}

struct Stos;
impl StringOp for Stos {
    fn once<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
        let value = cpu.reg::<T>(AX);
        cpu.write(SegReg::Es, cpu.address_reg(Gpr::Rdi, insn.addr_size), value)?;
        cpu.advance::<T>(Gpr::Rdi, 1, insn);
        Ok(())
    }

    fn bulk<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn, max: u64) -> Result<u64, Fault> {
        if cpu.system_flag(Rflags::DF) {
            return Ok(0);
        }
        let to = cpu.address_reg(Gpr::Rdi, insn.addr_size);
        let Some(target) = cpu.host_for_write(SegReg::Es, to)? else { return Ok(0) };
        let count = max
            .min((target.size / T::SIZE) as u64)
            .min(Cpu::<E>::before_wrap::<T>(to, insn.addr_size));
        if count < BULK_MIN {
            return Ok(0);
        }
        let element = cpu.gpr[usize::from(AX)].to_le_bytes();
        let mut buffer = [0; CHUNK];
        let size = count as usize * T::SIZE;
        for slot in buffer[..CHUNK.min(size)].chunks_exact_mut(T::SIZE) {
            slot.copy_from_slice(&element[..T::SIZE]);
        }
        for start in (0..size).step_by(CHUNK) {
            let part = &buffer[..CHUNK.min(size - start)];
            cpu.code_written |= cpu.env.write(target.at.plus(start), part);
        }
        cpu.advance::<T>(Gpr::Rdi, count, insn);
        Ok(count)
    }
}

struct Lods;
impl StringOp for Lods {
    fn once<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
        let value: T = cpu.read(insn.seg, cpu.address_reg(Gpr::Rsi, insn.addr_size))?;
        cpu.set_reg(AX, value);
        cpu.advance::<T>(Gpr::Rsi, 1, insn);
        Ok(())
    }
}

struct Scas;
impl StringOp for Scas {
    const COMPARES: bool = true;

    fn once<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
        let value: T = cpu.read(SegReg::Es, cpu.address_reg(Gpr::Rdi, insn.addr_size))?;
        let accumulator = cpu.reg::<T>(AX);
        cpu.flags.sub(accumulator, value);
        cpu.advance::<T>(Gpr::Rdi, 1, insn);
        Ok(())
    }
}

struct Cmps;
impl StringOp for Cmps {
    const COMPARES: bool = true;

    fn once<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
        let a: T = cpu.read(insn.seg, cpu.address_reg(Gpr::Rsi, insn.addr_size))?;
        let b: T = cpu.read(SegReg::Es, cpu.address_reg(Gpr::Rdi, insn.addr_size))?;
        cpu.flags.sub(a, b);
        cpu.advance::<T>(Gpr::Rsi, 1, insn);
        cpu.advance::<T>(Gpr::Rdi, 1, insn);
        Ok(())
    }
}

/// The port in DX, when the program may access it.
fn port<E: Env, T: Word>(cpu: &mut Cpu<E>) -> Result<u16, Fault> {
    let port = cpu.reg::<u16>(Gpr::Rdx as u8);
    cpu.check_io(port, T::SIZE as u8)?;
    Ok(port)
}

struct Ins;
impl StringOp for Ins {
    /// What a port has given cannot be given back: memory is checked first.
    fn once<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
        let port = port::<E, T>(cpu)?;
        let to = cpu.address_reg(Gpr::Rdi, insn.addr_size);
        cpu.probe(SegReg::Es, to, T::SIZE, Access::Write)?;
        let value = cpu.port_read(port, T::SIZE as u8);
        cpu.write(SegReg::Es, to, T::from_u64(u64::from(value)))?;
        cpu.advance::<T>(Gpr::Rdi, 1, insn);
        Ok(())
    }
}

struct Outs;
impl StringOp for Outs {
    fn once<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
        let port = port::<E, T>(cpu)?;
        let value: T = cpu.read(insn.seg, cpu.address_reg(Gpr::Rsi, insn.addr_size))?;
        cpu.port_write(port, T::SIZE as u8, value.to_u64() as u32);
        cpu.advance::<T>(Gpr::Rsi, 1, insn);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
