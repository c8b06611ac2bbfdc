//! Debug registers (SDM vol. 3B, chapter 18). Breakpoints and single step are the loop's.

use x86_decode::{Code, Insn};
use x86_state::Exception;
use x86_state::bits::{Cr4, Dr6};

use crate::memory::{dr7_condition, dr7_enabled, dr7_length};
use crate::{Cpu, Env, Fault, FaultInfo};

/// General detect: access to a debug register raises #DB.
const DR7_GD: u64 = 1 << 13;
/// Bits of DR7 that can be set.
const DR7_WRITABLE: u64 = 0xffff_23ff;
const DR7_FIXED: u64 = 1 << 10;
const DR7_ENABLES: u64 = 0xff;
/// Bits of DR6 that can be set.
const DR6_WRITABLE: u64 = 0xe00f;
/// B0 to B3, which each debug exception replaces.
const DR6_HITS: u64 = 0xf;

impl<E: Env> Cpu<E> {
    fn debug_exception(&mut self, payload: u64) -> Fault {
        let fault = self.raise(Exception::Db);
        self.fault = FaultInfo { payload, ..self.fault };
        fault
    }

    /// Notes I/O breakpoints this access meets.
    pub(super) fn note_io_breakpoints(&mut self, port: u16, size: u8) {
        let dr7 = self.debug.dr7;
        if dr7 & DR7_ENABLES == 0 || self.cr4 & Cr4::DE.bits() == 0 {
            return;
        }
        let (first, last) = (u64::from(port), u64::from(port) + u64::from(size) - 1);
        for index in (0..4).filter(|i| dr7_enabled(dr7, *i) && dr7_condition(dr7, *i) == 2) {
            let length = dr7_length(dr7, index);
            let start = self.debug.address[index as usize] & !(length - 1);
            if first <= start.wrapping_add(length - 1) && start <= last {
                self.debug_hits |= 1 << index;
            }
        }
    }

    /// What the delivery of a debug exception does to DR6 and DR7.
    pub(super) fn note_debug_exception(&mut self, payload: u64) {
        self.debug.dr6 = self.debug.dr6 & !DR6_HITS | payload;
        self.debug.dr7 &= !DR7_GD;
    }

    /// What both directions of MOV DRn check; gives the register's number.
    fn debug_register(&mut self, number: u8) -> Result<u8, Fault> {
        let alias = matches!(number, 4 | 5);
        if number > 7 || alias && self.cr4 & Cr4::DE.bits() != 0 {
            return Err(self.ud());
        }
        self.require_ring0()?;
        if self.debug.dr7 & DR7_GD != 0 {
            return Err(self.debug_exception(Dr6::BD.bits()));
        }
        Ok(if alias { number + 2 } else { number })
    }
}

/// MOV DRn, r.
pub(super) fn mov_to<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let number = cpu.debug_register(insn.reg0())?;
    let value = match insn.code {
        Code::Mov_dr_r64 => cpu.reg::<u64>(insn.reg1()),
        _ => cpu.reg::<u32>(insn.reg1()).into(),
    };
    if number >= 6 && value >> 32 != 0 {
        return Err(cpu.gp0());
    }
    match number {
        0..=3 => cpu.debug.address[usize::from(number)] = value,
        6 => cpu.debug.dr6 = value & DR6_WRITABLE | x86_state::bits::DR6_RESET,
        _ => cpu.debug.dr7 = value & DR7_WRITABLE | DR7_FIXED,
    }
    cpu.update_access();
    cpu.check_events = true;
    Ok(())
}

/// MOV r, DRn.
pub(super) fn mov_from<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let number = cpu.debug_register(insn.reg1())?;
    let value = match number {
        0..=3 => cpu.debug.address[usize::from(number)],
        6 => cpu.debug.dr6,
        _ => cpu.debug.dr7,
    };
    match insn.code {
        Code::Mov_r64_dr => cpu.set_reg(insn.reg0(), value),
        _ => cpu.set_reg(insn.reg0(), value as u32),
    }
    Ok(())
}
