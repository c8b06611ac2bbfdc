//! Near transfers of control: JMP, Jcc, CALL, RET, LOOP, JCXZ.
//!
//! Handlers here find the next instruction's address in [`Cpu::rip`].

use x86_decode::{Code, Insn, Mnemonic, OperandKind};
use x86_state::{Gpr, SegReg};

use crate::integer::{by_condition, sized_wide};
use crate::operands::cut;
use crate::{Cpu, Env, Fault, Handler, Word};

/// The function that does `insn`, when it is of this family.
pub(crate) fn select<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    if let Some(condition) = condition_of(insn.mnemonic()) {
        return Some(if insn.is_64() {
            by_condition!(condition, jcc64)
        } else {
            by_condition!(condition, jcc)
        });
    }
    if is_far(insn) {
        return None;
    }
    let relative = insn.kind(0) == OperandKind::Imm;
    Some(match insn.mnemonic() {
        Mnemonic::Jmp if relative && insn.is_64() => jmp64,
        Mnemonic::Jmp if relative => jmp,
        Mnemonic::Jmp => sized_wide!(insn.op_size, jmp_indirect),
        Mnemonic::Call if relative && insn.is_64() => call64,
        Mnemonic::Call if relative => sized_wide!(insn.op_size, call),
        Mnemonic::Call => sized_wide!(insn.op_size, call_indirect),
        Mnemonic::Ret => match insn.code {
            Code::Retnq => ret64,
            Code::Retnw | Code::Retnw_imm16 => ret::<E, u16>,
            Code::Retnd | Code::Retnd_imm16 => ret::<E, u32>,
            _ => ret::<E, u64>,
        },
        Mnemonic::Loop => |cpu, insn| loop_while(cpu, insn, |_| true),
        Mnemonic::Loope => |cpu, insn| loop_while(cpu, insn, |zero| zero),
        Mnemonic::Loopne => |cpu, insn| loop_while(cpu, insn, |zero| !zero),
        Mnemonic::Jcxz => jcxz::<E, u16>,
        Mnemonic::Jecxz => jcxz::<E, u32>,
        Mnemonic::Jrcxz => jcxz::<E, u64>,
        _ => return None,
    })
}

/// A near transfer: it changes RIP and the stack, and no mode.
pub(crate) fn is_near(insn: &Insn) -> bool {
    use Mnemonic as M;
    condition_of(insn.mnemonic()).is_some()
        || matches!(insn.mnemonic(), M::Jmp | M::Call if !is_far(insn))
        || matches!(insn.mnemonic(), M::Ret | M::Loop | M::Loope | M::Loopne)
        || matches!(insn.mnemonic(), M::Jcxz | M::Jecxz | M::Jrcxz)
}

/// CALL and JMP through a far pointer share their mnemonics with the near ones.
fn is_far(insn: &Insn) -> bool {
    matches!(
        insn.code,
        Code::Jmp_ptr1616
            | Code::Jmp_ptr1632
            | Code::Jmp_m1616
            | Code::Jmp_m1632
            | Code::Jmp_m1664
            | Code::Call_ptr1616
            | Code::Call_ptr1632
            | Code::Call_m1616
            | Code::Call_m1632
            | Code::Call_m1664
    )
}

/// The condition code of Jcc.
pub(crate) fn condition_of(mnemonic: Mnemonic) -> Option<u8> {
    use Mnemonic as M;
    Some(match mnemonic {
        M::Jo => 0,
        M::Jno => 1,
        M::Jb => 2,
        M::Jae => 3,
        M::Je => 4,
        M::Jne => 5,
        M::Jbe => 6,
        M::Ja => 7,
        M::Js => 8,
        M::Jns => 9,
        M::Jp => 10,
        M::Jnp => 11,
        M::Jl => 12,
        M::Jge => 13,
        M::Jle => 14,
        M::Jg => 15,
        _ => return None,
    })
}

#[inline(always)]
fn is_canonical(address: u64) -> bool {
    ((address << 16) as i64 >> 16) as u64 == address
}

impl<E: Env> Cpu<E> {
    /// Where a near transfer to `target` goes, the instruction pointer being `size` bytes.
    ///
    /// # Errors
    /// #GP(0) when it may not go there.
    #[inline]
    fn near(&mut self, target: u64, size: u8) -> Result<u64, Fault> {
        let target = cut(target, size);
        let allowed = if self.mode.is_64() {
            is_canonical(target)
        } else {
            target <= u64::from(self.segment(SegReg::Cs).limit)
        };
        if allowed { Ok(target) } else { Err(self.gp0()) }
    }

    #[inline(always)]
    pub(crate) fn jump64(&mut self, distance: u64) -> Result<(), Fault> {
        let target = self.rip.wrapping_add(distance);
        if !is_canonical(target) {
            return Err(self.gp0());
        }
        self.rip = target;
        Ok(())
    }
}

fn jcc64<E: Env, const C: u8>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    if cpu.flags.condition(C) { cpu.jump64(insn.imm) } else { Ok(()) }
}

fn jcc<E: Env, const C: u8>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    if cpu.flags.condition(C) { jmp(cpu, insn) } else { Ok(()) }
}

fn jmp64<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    cpu.jump64(insn.imm)
}

fn jmp<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    cpu.rip = cpu.near(cpu.rip.wrapping_add(insn.imm), insn.op_size)?;
    Ok(())
}

fn jmp_indirect<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let target: T = cpu.read_op(insn, 0)?;
    cpu.rip = cpu.near(target.to_u64(), insn.op_size)?;
    Ok(())
}

fn call64<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let next = cpu.rip;
    let target = next.wrapping_add(insn.imm);
    let pointer = cpu.gpr[Gpr::Rsp as usize].wrapping_sub(8);
    match cpu.flat_write::<u64>(pointer).filter(|_| is_canonical(target)) {
        Some(at) => {
            cpu.gpr[Gpr::Rsp as usize] = pointer;
            cpu.rip = target;
            cpu.flat_store(at, next)
        }
        None => call::<E, u64>(cpu, insn),
    }
}

fn call<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let target = cpu.near(cpu.rip.wrapping_add(insn.imm), insn.op_size)?;
    cpu.push(T::from_u64(cpu.rip))?;
    cpu.rip = target;
    Ok(())
}

fn call_indirect<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let target: T = cpu.read_op(insn, 0)?;
    let target = cpu.near(target.to_u64(), insn.op_size)?;
    cpu.push(T::from_u64(cpu.rip))?;
    cpu.rip = target;
    Ok(())
}

fn ret64<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let sp = cpu.gpr[Gpr::Rsp as usize];
    let Some(at) = cpu.flat_read::<u64>(sp) else { return ret::<E, u64>(cpu, insn) };
    let target = u64::load(&cpu.env, at);
    if !is_canonical(target) {
        return Err(cpu.gp0());
    }
    cpu.gpr[Gpr::Rsp as usize] = sp.wrapping_add(8);
    cpu.rip = target;
    Ok(())
}

/// `imm` is zero where there is none.
fn ret<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let target: T = cpu.read(SegReg::Ss, cpu.stack_pointer(0))?;
    let target = cpu.near(target.to_u64(), T::SIZE as u8)?;
    cpu.set_stack_pointer_to(cpu.stack_pointer(T::SIZE as u64 + (insn.imm & 0xffff)));
    cpu.rip = target;
    Ok(())
}

/// LOOP and its kind: the count is as large as addresses are.
fn loop_while<E: Env>(
    cpu: &mut Cpu<E>,
    insn: &Insn,
    condition: impl Fn(bool) -> bool,
) -> Result<(), Fault> {
    let count = cut(cpu.gpr[Gpr::Rcx as usize].wrapping_sub(1), insn.addr_size);
    if count != 0 && condition(cpu.flags.is_zero()) {
        jmp(cpu, insn)?;
    }
    cpu.set_address_reg(Gpr::Rcx, count, insn.addr_size);
    Ok(())
}

fn jcxz<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    if cpu.reg::<T>(Gpr::Rcx as u8).to_u64() == 0 { jmp(cpu, insn) } else { Ok(()) }
}
