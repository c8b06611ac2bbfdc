//! The registers, between the interpreter and translated code.

use x86_state::bits::{Cr4, Rflags};
use x86_state::{InterruptShadow, SegReg};

use super::{FullVcpu, NOWHERE};
use crate::cache::Reason;
use crate::{entry, transition};

impl FullVcpu {
    /// The context has the registers from here on.
    pub(super) fn give_registers(&mut self) {
        if std::mem::replace(&mut self.given, true) {
            return;
        }
        self.narrow();
        if let Some(check) = &mut self.check {
            check.begin(&self.soft.cpu);
        }
        let cpu = &self.soft.cpu;
        let context = self.views.context();
        context.gpr.copy_from_slice(&cpu.gpr[..16]);
        let flags = cpu.flags.bits();
        context.flags = flags as u8;
        context.overflow = u8::from(flags & Rflags::OF.bits() != 0);
        let base = |reg: SegReg| cpu.segments[reg as usize].base;
        context.segment_base = [base(SegReg::Fs), base(SegReg::Gs)];
        context.kernel_gs_base = cpu.msrs.kernel_gs_base;
        let apart = Rflags::IF | Rflags::DF | Rflags::AC | Rflags::FIXED;
        context.system_flags = cpu.system_flags & !apart.bits();
        context.interrupts = cpu.system_flags & Rflags::IF.bits();
        context.direction = cpu.system_flags & Rflags::DF.bits();
        context.access = cpu.system_flags & Rflags::AC.bits();
        context.shadow_rip = NOWHERE;
        context.event_waiting = u32::from(cpu.env.event_waiting);
        transition::give(cpu, context);
        context.tsc_number = cpu.msrs.tsc_aux & 0xffff_ffff;
        context.mxcsr = [cpu.fpu.mxcsr, entry::HOST_MXCSR];
        self.give_tsc();
        let (cpu, context) = (&self.soft.cpu, self.views.context());
        for (own, register) in context.vector.0.iter_mut().zip(&cpu.fpu.xmm) {
            *own = [*register as u64, (*register >> 64) as u64];
        }
    }

    /// The interpreter has the registers from here on; it goes on at `rip`.
    pub(super) fn take_registers(&mut self, rip: u64) {
        self.soft.cpu.rip = rip;
        if !std::mem::replace(&mut self.given, false) {
            return;
        }
        self.take_x87();
        let cpu = &mut self.soft.cpu;
        let context = self.views.context();
        cpu.gpr[..16].copy_from_slice(&context.gpr);
        let overflow = if context.overflow != 0 { Rflags::OF.bits() } else { 0 };
        cpu.flags = x86_exec::Flags::from_bits(u64::from(context.flags) | overflow);
        cpu.system_flags = context.system_flags | context.interrupts | context.direction;
        cpu.system_flags |= context.access | Rflags::FIXED.bits();
        transition::take_bases(cpu, context);
        if context.shadow_rip == rip && context.interrupts != 0 {
            cpu.shadow = InterruptShadow::Sti;
        }
        cpu.fpu.mxcsr = context.mxcsr[0];
        for (own, register) in cpu.fpu.xmm.iter_mut().zip(&context.vector.0) {
            *own = u128::from(register[1]) << 64 | u128::from(register[0]);
        }
        if let Some(check) = &mut self.check {
            check.end(&self.soft.cpu);
        }
    }

    /// What translated code came back for is looked at with the registers taken: units are checked
    /// one by one, and none is linked to another.
    pub(super) fn ends_stretch(&self, reason: Reason) -> bool {
        let between = matches!(reason, Reason::Link | Reason::Jump | Reason::Go | Reason::Retired);
        between && self.check.as_ref().is_some_and(|check| check.by_unit)
    }

    /// Takes the line of the TSC that is in force.
    pub(super) fn take_tsc_line(&mut self) {
        let Some(tsc) = &self.complex.tsc else { return };
        if tsc.version() != self.tsc_line.0 {
            self.tsc_line = (tsc.version(), tsc.line());
            if self.given {
                self.give_tsc();
            }
        }
    }

    fn give_tsc(&mut self) {
        let allowed = self.soft.cpu.cr4 & Cr4::TSD.bits() == 0;
        let line = self.tsc_line.1;
        let context = self.views.context();
        context.tsc_rate = if allowed { line.rate } else { 0 };
        context.tsc_bias = line.bias;
        context.tsc_base = line.base.wrapping_add(self.soft.cpu.env.time.tsc_offset);
    }

    pub(super) fn give_x87(&mut self) {
        let context = self.views.context();
        let image = &mut context.fxsave.0;
        self.soft.cpu.fpu.put_x87(image, true);
        image[24..28].copy_from_slice(&entry::HOST_MXCSR.to_le_bytes());
        context.x87_at_hand = 1;
        entry::load_x87(&context.fxsave);
    }

    pub(super) fn take_x87(&mut self) {
        let context = self.views.context();
        if std::mem::take(&mut context.x87_at_hand) == 0 {
            return;
        }
        entry::save_x87(&mut context.fxsave);
        let fpu = &mut self.soft.cpu.fpu;
        fpu.take_x87(&context.fxsave.0, true);
        // The host's are addresses of translated code, which are nobody's business.
        (fpu.fop, fpu.fip, fpu.fdp) = (0, 0, 0);
    }
}
