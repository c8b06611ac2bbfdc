//! Descriptor-table registers and the checks of selectors (SDM vol. 3A, 2.4, 5.10).

use x86_decode::{Code, Insn};
use x86_state::bits::{Efer, Rflags};
use x86_state::{DescriptorTable, Exception, Segment};

use super::descriptor::{Descriptor, Selector, kind};
use crate::memory::is_canonical;
use crate::{Cpu, Env, Fault, Flags};

/// LGDT and LIDT.
pub(super) fn load_table<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    cpu.require_ring0()?;
    let mut bytes = [0; 10];
    let wide = matches!(insn.code, Code::Lgdt_m1664 | Code::Lidt_m1664);
    let size = if wide { 10 } else { 6 };
    cpu.read_bytes(insn.seg, cpu.ea(insn), &mut bytes[..size])?;
    let mut base = [0; 8];
    base.copy_from_slice(&bytes[2..]);
    let mut base = u64::from_le_bytes(base);
    if matches!(insn.code, Code::Lgdt_m1632_16 | Code::Lidt_m1632_16) {
        base &= 0x00ff_ffff;
    }
    if !is_canonical(base) {
        return Err(cpu.gp0());
    }
    let table = DescriptorTable { base, limit: u16::from_le_bytes([bytes[0], bytes[1]]) };
    match insn.code {
        Code::Lgdt_m1632_16 | Code::Lgdt_m1632 | Code::Lgdt_m1664 => cpu.gdtr = table,
        _ => cpu.idtr = table,
    }
    Ok(())
}

/// SGDT and SIDT.
pub(super) fn store_table<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    cpu.check_umip()?;
    let table = match insn.code {
        Code::Sgdt_m1632_16 | Code::Sgdt_m1632 | Code::Sgdt_m1664 => cpu.gdtr,
        _ => cpu.idtr,
    };
    let wide = matches!(insn.code, Code::Sgdt_m1664 | Code::Sidt_m1664);
    let mut bytes = [0; 10];
    bytes[..2].copy_from_slice(&table.limit.to_le_bytes());
    bytes[2..].copy_from_slice(&table.base.to_le_bytes());
    let size = if wide { 10 } else { 6 };
    cpu.write_bytes(insn.seg, cpu.ea(insn), &bytes[..size])
}

impl<E: Env> Cpu<E> {
    /// #UD in real-address and virtual-8086 mode.
    fn require_protected(&mut self) -> Result<(), Fault> {
        if self.mode.is_protected() { Ok(()) } else { Err(self.ud()) }
    }

    fn is_long_active(&self) -> bool {
        self.efer & Efer::LMA.bits() != 0
    }

    /// A system segment of the GDT: its hidden part and descriptor.
    fn system_segment(
        &mut self,
        selector: Selector,
        wanted: fn(u8) -> bool,
    ) -> Result<(Segment, Descriptor), Fault> {
        if selector.0 & 4 != 0 {
            return Err(self.selector_fault(Exception::Gp, selector));
        }
        let descriptor = self.descriptor(selector, Exception::Gp)?;
        if descriptor.is_segment() || !wanted(descriptor.kind()) {
            return Err(self.selector_fault(Exception::Gp, selector));
        }
        let mut segment = descriptor.segment(selector);
        if self.is_long_active() {
            let high = self.descriptor_high(selector, Exception::Gp)?;
            segment.base |= high << 32;
            if high >> 40 & 0x1f != 0 || !is_canonical(segment.base) {
                return Err(self.selector_fault(Exception::Gp, selector));
            }
        }
        if !descriptor.is_present() {
            return Err(self.selector_fault(Exception::Np, selector));
        }
        Ok((segment, descriptor))
    }
}

/// LLDT.
pub(super) fn lldt<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    cpu.require_protected()?;
    cpu.require_ring0()?;
    let selector = Selector(cpu.read_op::<u16>(insn, 0)?);
    cpu.ldtr = if selector.is_null() {
        Segment::unusable(selector.0, 0)
    } else {
        cpu.system_segment(selector, |k| k == kind::LDT)?.0
    };
    Ok(())
}

/// LTR.
pub(super) fn ltr<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    cpu.require_protected()?;
    cpu.require_ring0()?;
    let selector = Selector(cpu.read_op::<u16>(insn, 0)?);
    if selector.is_null() {
        return Err(cpu.gp0());
    }
    let wanted: fn(u8) -> bool = if cpu.is_long_active() {
        |k| k == kind::TSS32
    } else {
        |k| matches!(k, kind::TSS16 | kind::TSS32)
    };
    let (segment, descriptor) = cpu.system_segment(selector, wanted)?;
    cpu.change_linear32(descriptor.at.wrapping_add(4), 0, 1 << 9)?;
    cpu.tr = Segment { attr: segment.attr | 2, ..segment };
    Ok(())
}

/// SLDT.
pub(super) fn sldt<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    cpu.require_protected()?;
    cpu.check_umip()?;
    cpu.store_selector(insn, cpu.ldtr.selector)
}

/// STR.
pub(super) fn str_<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    cpu.require_protected()?;
    cpu.check_umip()?;
    cpu.store_selector(insn, cpu.tr.selector)
}

impl<E: Env> Cpu<E> {
    fn set_zero_flag(&mut self, on: bool) {
        let bits = self.flags.bits() & !Rflags::ZF.bits();
        self.flags = Flags::from_bits(if on { bits | Rflags::ZF.bits() } else { bits });
    }

    /// The descriptor, or `None` when a check instruction would clear ZF. Only page faults are
    /// faults here.
    fn visible_descriptor(&mut self, selector: Selector) -> Result<Option<Descriptor>, Fault> {
        if selector.is_null() {
            return Ok(None);
        }
        match self.descriptor(selector, Exception::Gp) {
            Ok(descriptor) => Ok(Some(descriptor)),
            Err(_) if self.fault.exception == Exception::Gp => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    fn is_in_reach(&self, selector: Selector, descriptor: Descriptor) -> bool {
        descriptor.is_conforming() || descriptor.dpl() >= self.cpl.max(selector.rpl())
    }
}

/// VERR and VERW.
pub(super) fn verify<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    cpu.require_protected()?;
    let selector = Selector(cpu.read_op::<u16>(insn, 0)?);
    let write = matches!(insn.code, Code::Verw_rm16 | Code::Verw_r32m16 | Code::Verw_r64m16);
    let allowed = cpu.visible_descriptor(selector)?.is_some_and(|d| {
        let kind_fits = if write { d.is_writable_data() } else { d.is_readable() };
        kind_fits && cpu.is_in_reach(selector, d)
    });
    cpu.set_zero_flag(allowed);
    Ok(())
}

/// LAR and LSL.
pub(super) fn load_attributes<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    cpu.require_protected()?;
    let selector = Selector(cpu.read_op::<u16>(insn, 1)?);
    let limit =
        matches!(insn.code, Code::Lsl_r16_rm16 | Code::Lsl_r32_r32m16 | Code::Lsl_r64_r64m16);
    let long = cpu.is_long_active();
    let found = cpu.visible_descriptor(selector)?.filter(|d| {
        let known = d.is_segment()
            || match d.kind() {
                kind::LDT | kind::TSS32 | kind::TSS32_BUSY => true,
                kind::TSS16 | kind::TSS16_BUSY => !long,
                kind::CALL_GATE32 => !limit,
                kind::CALL_GATE16 | kind::TASK_GATE => !limit && !long,
                _ => false,
            };
        known && cpu.is_in_reach(selector, *d)
    });
    if let Some(descriptor) = found {
        let value = if limit {
            descriptor.segment(selector).limit
        } else {
            (descriptor.raw >> 32) as u32 & 0x00ff_ff00
        };
        match insn.op_size {
            2 => cpu.set_reg(insn.reg0(), value as u16),
            _ => cpu.set_reg(insn.reg0(), value),
        }
    }
    cpu.set_zero_flag(found.is_some());
    Ok(())
}

/// ARPL.
pub(super) fn arpl<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    cpu.require_protected()?;
    let wanted = cpu.reg::<u16>(insn.reg1()) & 3;
    let raised = cpu.modify_op::<u16, bool>(insn, |old| {
        let raises = old & 3 < wanted;
        (if raises { old & !3 | wanted } else { old }, raises)
    })?;
    cpu.set_zero_flag(raised);
    Ok(())
}
