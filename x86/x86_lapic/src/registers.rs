//! Register reads and writes, common to both modes.

use crate::spec::*;
use crate::{Destination, Effect, Ipi, Lapic, Now, Shorthand};
use x86_state::DeliveryMode;

impl Lapic {
    /// Reads the xAPIC register page: `offset` below 4096. Only aligned 32-bit accesses mean
    /// something (SDM vol. 3A, 11.4.1); narrower ones read the bytes of the register, as current
    /// CPUs do.
    pub fn read_mmio(&mut self, offset: u64, data: &mut [u8], now: Now) {
        let (register, byte) = (offset as u32 & 0xff0, offset as usize & 0xf);
        let value = if register >= 0x400 || !is_readable(register, false) {
            self.error(ESR_REGISTER);
            0
        } else {
            self.read(register, now)
        };
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&value.to_le_bytes());
        for (i, out) in data.iter_mut().enumerate() {
            *out = bytes.get(byte + i).copied().unwrap_or(0);
        }
    }

    /// Writes the xAPIC register page. Accesses that are not of 32 aligned bits are ignored.
    pub fn write_mmio(&mut self, offset: u64, data: &[u8], now: Now) -> Effect {
        let register = offset as u32 & 0xfff;
        let (Ok(bytes), 0) = (<[u8; 4]>::try_from(data), register & 0xf) else {
            return Effect::None;
        };
        let value = u32::from_le_bytes(bytes);
        match register {
            ID => self.set_reg(ID, value & 0xff00_0000),
            LDR => self.set_reg(LDR, value & 0xff00_0000),
            DFR => self.set_reg(DFR, value | 0x0fff_ffff),
            ICR2 => self.set_reg(ICR2, value & 0xff00_0000),
            ICR => {
                let id = self.reg(ICR2) >> 24;
                return self.send(value, |logical| Destination { id, logical, wide: false });
            }
            _ if is_writable(register) => return self.write(register, value, now),
            _ => self.error(ESR_REGISTER),
        }
        Effect::None
    }

    pub(crate) fn read(&self, register: u32, now: Now) -> u32 {
        match register {
            PPR => u32::from(self.ppr()),
            CURRENT_COUNT => self.current_count(now),
            _ => self.reg(register),
        }
    }

    /// Writes what both modes have and treat alike. The register is writable.
    pub(crate) fn write(&mut self, register: u32, value: u32, now: Now) -> Effect {
        match register {
            TPR => self.set_reg(TPR, value & 0xff),
            EOI => return self.end_of_interrupt(),
            SVR => self.write_svr(value),
            ESR => self.latch_errors(),
            INITIAL_COUNT => {
                if !self.is_tsc_deadline_mode() {
                    self.set_reg(INITIAL_COUNT, value);
                    self.start_timer(now);
                }
            }
            DIVIDE => self.set_divide(value, now),
            _ => self.write_lvt(register, value),
        }
        Effect::None
    }

    fn write_svr(&mut self, value: u32) {
        self.set_reg(SVR, value & 0x1ff);
        if value & SVR_ENABLE == 0 {
            for (lvt, _) in LVT {
                self.set_reg(lvt, self.reg(lvt) | LVT_MASKED);
            }
        }
    }

    fn write_lvt(&mut self, register: u32, value: u32) {
        let Some((_, writable)) = LVT.iter().find(|(lvt, _)| *lvt == register) else { return };
        let old = self.reg(register);
        let masked = if self.reg(SVR) & SVR_ENABLE == 0 { LVT_MASKED } else { 0 };
        self.set_reg(register, value & writable | masked);
        if register == LVT_TIMER {
            self.timer_mode_changed(old);
        }
    }

    /// The low half of the interrupt command register is written.
    pub(crate) fn send(
        &mut self,
        value: u32,
        destination: impl FnOnce(bool) -> Destination,
    ) -> Effect {
        self.set_reg(ICR, value & 0x000c_cfff); // never busy: sending is done when it returns
        let Some(ipi) = Ipi::from_icr(value, destination(value & ICR_LOGICAL != 0)) else {
            return Effect::None;
        };
        let has_vector = matches!(ipi.mode, DeliveryMode::Fixed | DeliveryMode::LowestPriority);
        if has_vector && ipi.vector < 16 {
            self.error(ESR_SEND_VECTOR);
            return Effect::None;
        }
        Effect::Send(ipi)
    }

    /// x2APIC's self-IPI register.
    pub(crate) fn send_to_self(&mut self, value: u32) -> Effect {
        let destination = Destination { id: self.id(), logical: false, wide: true };
        if value & 0xff < 16 {
            self.error(ESR_SEND_VECTOR);
            return Effect::None;
        }
        Effect::Send(Ipi {
            destination,
            shorthand: Shorthand::Own,
            mode: DeliveryMode::Fixed,
            vector: value as u8,
            level: false,
        })
    }
}

/// The register is there and can be read.
pub(crate) fn is_readable(register: u32, x2apic: bool) -> bool {
    match register {
        DFR | ICR2 | APR | RRD => !x2apic,
        EOI | SELF_IPI => false,
        ID | VERSION | TPR | PPR | LDR | SVR | ESR | ICR | DIVIDE => true,
        INITIAL_COUNT | CURRENT_COUNT => true,
        ISR..TMR | TMR..IRR | IRR..ESR => true,
        LVT_TIMER..=LVT_ERROR => true,
        _ => false,
    }
}

/// The register is one that both modes can write and treat alike.
pub(crate) fn is_writable(register: u32) -> bool {
    matches!(register, TPR | EOI | SVR | ESR | INITIAL_COUNT | DIVIDE)
        || LVT.iter().any(|(lvt, _)| *lvt == register)
}
