//! PUSH, POP, PUSHA, POPA, PUSHF, POPF, ENTER, LEAVE.

use x86_decode::{Code, Insn, Mnemonic, OperandKind};
use x86_state::bits::Rflags;
use x86_state::{Gpr, SegReg, Segment};

use crate::integer::sized_wide;
use crate::{Access, Cpu, Env, Fault, Handler, Mode, Word};

const SP: usize = Gpr::Rsp as usize;
const BP: u8 = Gpr::Rbp as u8;

/// The function that does `insn`, when it is of this family. Segment registers are `system`'s.
pub(crate) fn select<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    Some(match insn.mnemonic() {
        Mnemonic::Push => match insn.code {
            Code::Push_r64 => push_r64,
            _ if insn.kind(0) == OperandKind::Reg && !is_gpr_push(insn.code) => return None,
            _ => sized_wide!(insn.op_size, push),
        },
        Mnemonic::Pop => match (insn.kind(0), insn.code) {
            (OperandKind::Mem, _) => sized_wide!(insn.op_size, pop_mem),
            (_, Code::Pop_r64) => pop_r64,
            (
                _,
                Code::Pop_r16 | Code::Pop_r32 | Code::Pop_rm16 | Code::Pop_rm32 | Code::Pop_rm64,
            ) => {
                sized_wide!(insn.op_size, pop_reg)
            }
            _ => return None,
        },
        Mnemonic::Pusha => pusha::<E, u16>,
        Mnemonic::Pushad => pusha::<E, u32>,
        Mnemonic::Popa => popa::<E, u16>,
        Mnemonic::Popad => popa::<E, u32>,
        Mnemonic::Pushf => pushf::<E, u16>,
        Mnemonic::Pushfd => pushf::<E, u32>,
        Mnemonic::Pushfq => pushf::<E, u64>,
        Mnemonic::Popf => popf::<E, u16>,
        Mnemonic::Popfd => popf::<E, u32>,
        Mnemonic::Popfq => popf::<E, u64>,
        Mnemonic::Enter => match insn.code {
            Code::Enterw_imm16_imm8 => enter::<E, u16>,
            Code::Enterd_imm16_imm8 => enter::<E, u32>,
            _ => enter::<E, u64>,
        },
        Mnemonic::Leave => match insn.code {
            Code::Leavew => leave::<E, u16>,
            Code::Leaved => leave::<E, u32>,
            _ => leave::<E, u64>,
        },
        _ => return None,
    })
}

fn is_gpr_push(code: Code) -> bool {
    use Code as C;
    matches!(
        code,
        C::Push_r16 | C::Push_r32 | C::Push_r64 | C::Push_rm16 | C::Push_rm32 | C::Push_rm64
    )
}

impl<E: Env> Cpu<E> {
    /// What of a stack address counts.
    #[inline(always)]
    fn stack_mask(&self) -> u64 {
        if self.mode.is_64() {
            u64::MAX
        } else if self.segment(SegReg::Ss).has(Segment::DB) {
            0xffff_ffff
        } else {
            0xffff
        }
    }

    /// The stack pointer moved up by `distance`, cut to the stack's address size.
    #[inline(always)]
    pub(crate) fn stack_pointer(&self, distance: u64) -> u64 {
        self.gpr[SP].wrapping_add(distance) & self.stack_mask()
    }

    /// Sets the stack pointer, as much of it as the stack's address size has.
    #[inline(always)]
    pub(crate) fn set_stack_pointer_to(&mut self, value: u64) {
        let mask = self.stack_mask();
        let kept = if mask == 0xffff { self.gpr[SP] & !mask } else { 0 };
        self.gpr[SP] = kept | value & mask;
    }

    /// Pushes.
    ///
    /// # Errors
    /// What memory raises; nothing has changed then.
    #[inline(always)]
    pub(crate) fn push<T: Word>(&mut self, value: T) -> Result<(), Fault> {
        let pointer = self.stack_pointer((T::SIZE as u64).wrapping_neg());
        self.write(SegReg::Ss, pointer, value)?;
        self.set_stack_pointer_to(pointer);
        Ok(())
    }

    /// Pops.
    ///
    /// # Errors
    /// What memory raises; nothing has changed then.
    #[inline(always)]
    pub(crate) fn pop<T: Word>(&mut self) -> Result<T, Fault> {
        let value = self.read(SegReg::Ss, self.stack_pointer(0))?;
        self.set_stack_pointer_to(self.stack_pointer(T::SIZE as u64));
        Ok(value)
    }
}

/// Most pushes: 64-bit code has no stack sizes.
fn push_r64<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let value = cpu.reg::<u64>(insn.reg0());
    let pointer = cpu.gpr[SP].wrapping_sub(8);
    let Some(at) = cpu.flat_write::<u64>(pointer) else { return push::<E, u64>(cpu, insn) };
    cpu.gpr[SP] = pointer;
    cpu.flat_store(at, value)
}

fn pop_r64<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let pointer = cpu.gpr[SP];
    let Some(at) = cpu.flat_read::<u64>(pointer) else { return pop_reg::<E, u64>(cpu, insn) };
    let value = u64::load(&cpu.env, at);
    cpu.gpr[SP] = pointer.wrapping_add(8);
    cpu.set_reg(insn.reg0(), value);
    Ok(())
}

fn push<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let value: T = cpu.read_op(insn, 0)?;
    cpu.push(value)
}

fn pop_reg<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let value: T = cpu.pop()?;
    cpu.set_reg(insn.reg0(), value);
    Ok(())
}

/// An address that uses the stack pointer sees it already moved.
fn pop_mem<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let before = cpu.gpr[SP];
    let value: T = cpu.pop()?;
    let written = cpu.write(insn.seg, cpu.ea(insn), value);
    if written.is_err() {
        cpu.gpr[SP] = before;
    }
    written
}

fn pusha<E: Env, T: Word>(cpu: &mut Cpu<E>, _: &Insn) -> Result<(), Fault> {
    for number in 0..8u8 {
        let distance = (T::SIZE as u64 * (u64::from(number) + 1)).wrapping_neg();
        let value = cpu.reg::<T>(number);
        cpu.write(SegReg::Ss, cpu.stack_pointer(distance), value)?;
    }
    cpu.set_stack_pointer_to(cpu.stack_pointer((8 * T::SIZE as u64).wrapping_neg()));
    Ok(())
}

fn popa<E: Env, T: Word>(cpu: &mut Cpu<E>, _: &Insn) -> Result<(), Fault> {
    let mut values = [T::default(); 8];
    for (distance, value) in (0..).step_by(T::SIZE).zip(&mut values) {
        *value = cpu.read(SegReg::Ss, cpu.stack_pointer(distance))?;
    }
    let end = cpu.stack_pointer(8 * T::SIZE as u64);
    for (number, value) in (0..8u8).rev().zip(values) {
        if usize::from(number) != SP {
            cpu.set_reg(number, value);
        }
    }
    cpu.set_stack_pointer_to(end);
    Ok(())
}

/// #GP(0) in virtual-8086 mode, unless the I/O privilege level is 3.
fn check_v86<E: Env>(cpu: &mut Cpu<E>) -> Result<(), Fault> {
    if cpu.mode == Mode::Virtual8086
        && cpu.system_flags & Rflags::IOPL.bits() != Rflags::IOPL.bits()
    {
        return Err(cpu.gp0());
    }
    Ok(())
}

fn pushf<E: Env, T: Word>(cpu: &mut Cpu<E>, _: &Insn) -> Result<(), Fault> {
    check_v86(cpu)?;
    let image = cpu.rflags() & !(Rflags::VM | Rflags::RF).bits();
    cpu.push(T::from_u64(image))
}

/// Which flags change depends on privilege (SDM vol. 2B, POPF). RF is cleared.
fn popf<E: Env, T: Word>(cpu: &mut Cpu<E>, _: &Insn) -> Result<(), Fault> {
    check_v86(cpu)?;
    let image: T = cpu.pop()?;
    let old = cpu.rflags();
    let iopl = ((old & Rflags::IOPL.bits()) >> Rflags::IOPL.bits().trailing_zeros()) as u8;
    let mut changes = crate::flags::ARITHMETIC
        | (Rflags::TF | Rflags::DF | Rflags::NT | Rflags::AC | Rflags::ID).bits();
    if cpu.cpl == 0 {
        changes |= Rflags::IOPL.bits();
    }
    if cpu.cpl <= iopl {
        changes |= Rflags::IF.bits();
    }
    if T::SIZE == 2 {
        changes &= 0xffff;
    }
    let new = old & !changes & !Rflags::RF.bits() | image.to_u64() & changes;
    cpu.set_rflags(new);
    if (old ^ new) & Rflags::AC.bits() != 0 {
        cpu.update_access();
    }
    cpu.check_events = true;
    Ok(())
}

/// SDM vol. 2A, ENTER. Registers change last, so that a fault leaves them as they were.
fn enter<E: Env, T: Word>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let (size, level) = (insn.imm & 0xffff, insn.imm >> 16 & 31);
    let slot = T::SIZE as u64;
    let mask = cpu.stack_mask();
    let base = cpu.gpr[usize::from(BP)];
    let mut pointer = cpu.stack_pointer(slot.wrapping_neg());
    let frame = pointer;
    cpu.write(SegReg::Ss, pointer, T::from_u64(base))?;
    for i in 1..level {
        let outer: T = cpu.read(SegReg::Ss, base.wrapping_sub(i * slot) & mask)?;
        pointer = pointer.wrapping_sub(slot) & mask;
        cpu.write(SegReg::Ss, pointer, outer)?;
    }
    if level > 0 {
        pointer = pointer.wrapping_sub(slot) & mask;
        cpu.write(SegReg::Ss, pointer, T::from_u64(frame))?;
    }
    pointer = pointer.wrapping_sub(size) & mask;
    cpu.probe(SegReg::Ss, pointer, T::SIZE, Access::Write)?;
    cpu.set_reg(BP, T::from_u64(frame));
    cpu.set_stack_pointer_to(pointer);
    Ok(())
}

fn leave<E: Env, T: Word>(cpu: &mut Cpu<E>, _: &Insn) -> Result<(), Fault> {
    let frame = cpu.gpr[usize::from(BP)] & cpu.stack_mask();
    let value: T = cpu.read(SegReg::Ss, frame)?;
    cpu.set_stack_pointer_to(frame.wrapping_add(T::SIZE as u64));
    cpu.set_reg(BP, value);
    Ok(())
}
