//! IN and OUT, and who may (SDM vol. 1, chapter 19).

use x86_decode::{Code, Insn};
use x86_mmu::Privilege;

use super::descriptor::kind;
use crate::{Cpu, Env, Fault, Mode};

/// Where the 32-bit TSS holds the offset of the I/O permission bitmap.
const BITMAP_AT: u64 = 0x66;

impl<E: Env> Cpu<E> {
    /// The program may access these ports.
    ///
    /// # Errors
    /// #GP(0), or what reading the TSS raises.
    pub fn check_io(&mut self, port: u16, size: u8) -> Result<(), Fault> {
        let free = match self.mode {
            Mode::Real => true,
            Mode::Virtual8086 => false,
            _ => self.cpl <= self.iopl(),
        };
        if free || self.bitmap_allows(port, size)? { Ok(()) } else { Err(self.gp0()) }
    }

    fn bitmap_allows(&mut self, port: u16, size: u8) -> Result<bool, Fault> {
        let limit = u64::from(self.tr.limit);
        let is_wide = matches!(self.tr.kind(), kind::TSS32 | kind::TSS32_BUSY);
        if !is_wide || limit < BITMAP_AT + 1 {
            return Ok(false);
        }
        let base = self.tr.base;
        let bitmap: u16 = self.read_linear(base.wrapping_add(BITMAP_AT), Privilege::Supervisor)?;
        // Always two bytes, so that a range that crosses a byte is seen whole.
        let at = u64::from(bitmap) + u64::from(port / 8);
        if at + 1 > limit {
            return Ok(false);
        }
        let bits: u16 = self.read_linear(base.wrapping_add(at), Privilege::Supervisor)?;
        let mask = ((1u16 << size) - 1) << (port % 8);
        Ok(bits & mask == 0)
    }

    /// IN, for one element of 1, 2 or 4 bytes that [`Cpu::check_io`] allows.
    pub fn port_read(&mut self, port: u16, size: u8) -> u32 {
        let mut bytes = [0; 4];
        self.env.pio_read(port, &mut bytes[..usize::from(size)]);
        self.note_io_breakpoints(port, size);
        u32::from_le_bytes(bytes)
    }

    /// OUT, for one element of 1, 2 or 4 bytes that [`Cpu::check_io`] allows.
    pub fn port_write(&mut self, port: u16, size: u8, value: u32) {
        self.env.pio_write(port, &value.to_le_bytes()[..usize::from(size)]);
        self.note_io_breakpoints(port, size);
    }
}

/// IN.
pub(super) fn input<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let (size, port) = match insn.code {
        Code::In_AL_imm8 => (1, insn.imm as u8 as u16),
        Code::In_AX_imm8 => (2, insn.imm as u8 as u16),
        Code::In_EAX_imm8 => (4, insn.imm as u8 as u16),
        Code::In_AL_DX => (1, cpu.gpr[2] as u16),
        Code::In_AX_DX => (2, cpu.gpr[2] as u16),
        _ => (4, cpu.gpr[2] as u16),
    };
    cpu.check_io(port, size)?;
    let value = cpu.port_read(port, size);
    match size {
        1 => cpu.set_reg(0, value as u8),
        2 => cpu.set_reg(0, value as u16),
        _ => cpu.set_reg(0, value),
    }
    Ok(())
}

/// OUT.
pub(super) fn output<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let (size, port) = match insn.code {
        Code::Out_imm8_AL => (1, insn.imm as u8 as u16),
        Code::Out_imm8_AX => (2, insn.imm as u8 as u16),
        Code::Out_imm8_EAX => (4, insn.imm as u8 as u16),
        Code::Out_DX_AL => (1, cpu.gpr[2] as u16),
        Code::Out_DX_AX => (2, cpu.gpr[2] as u16),
        _ => (4, cpu.gpr[2] as u16),
    };
    cpu.check_io(port, size)?;
    cpu.port_write(port, size, cpu.gpr[0] as u32);
    Ok(())
}
