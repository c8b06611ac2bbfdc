//! The APIC's model-specific registers: IA32_APIC_BASE, IA32_TSC_DEADLINE and those of x2APIC
//! mode (SDM vol. 3A, 11.12). `None` is #GP.

use x86_state::{ApicState, msr};

use crate::registers::{is_readable, is_writable};
use crate::spec::*;
use crate::{Destination, Effect, Lapic, Now};

impl Lapic {
    /// RDMSR.
    pub fn read_msr(&self, number: u32, now: Now) -> Option<u64> {
        match number {
            msr::IA32_APIC_BASE => Some(self.base()),
            msr::IA32_TSC_DEADLINE => Some(self.timer.tsc_deadline),
            msr::X2APIC_FIRST..=msr::X2APIC_LAST if self.is_x2apic() => {
                let register = (number - msr::X2APIC_FIRST) * 16;
                if register >= 0x400 || !is_readable(register, true) {
                    return None;
                }
                let high = if register == ICR { u64::from(self.reg(ICR2)) << 32 } else { 0 };
                Some(high | u64::from(self.read(register, now)))
            }
            _ => None,
        }
    }

    /// WRMSR. `physical_bits` bounds IA32_APIC_BASE.
    pub fn write_msr(
        &mut self,
        number: u32,
        value: u64,
        physical_bits: u8,
        now: Now,
    ) -> Option<Effect> {
        match number {
            msr::IA32_APIC_BASE => self.write_base(value, physical_bits).map(|()| Effect::None),
            msr::IA32_TSC_DEADLINE => {
                self.set_tsc_deadline(value, now);
                Some(Effect::None)
            }
            msr::X2APIC_FIRST..=msr::X2APIC_LAST if self.is_x2apic() => {
                self.write_x2apic((number - msr::X2APIC_FIRST) * 16, value, now)
            }
            _ => None,
        }
    }

    fn write_base(&mut self, value: u64, physical_bits: u8) -> Option<()> {
        use ApicState as A;
        let mode = A::BASE_ENABLE | A::BASE_X2APIC;
        let allowed = ((1 << physical_bits) - 1) & !0xfff | A::BASE_BSP | mode;
        let (old, new) = (self.base() & mode, value & mode);
        // SDM vol. 3A, figure 11-27: x2APIC is entered from xAPIC and left to disabled.
        let legal = new == old
            || new == 0
            || (new == A::BASE_ENABLE && old == 0)
            || (new == mode && old == A::BASE_ENABLE);
        if value & !allowed != 0 || !legal {
            return None;
        }
        self.set_base(value);
        Some(())
    }

    fn write_x2apic(&mut self, register: u32, value: u64, now: Now) -> Option<Effect> {
        if register == ICR {
            if value & 0xffff_ffff & !0x000c_dfff != 0 {
                return None;
            }
            self.set_reg(ICR2, (value >> 32) as u32);
            let id = (value >> 32) as u32;
            return Some(self.send(value as u32, |logical| Destination {
                id,
                logical,
                wide: true,
            }));
        }
        let low = u32::try_from(value).ok()?;
        match register {
            SELF_IPI if low <= 0xff => Some(self.send_to_self(low)),
            EOI | ESR if low != 0 => None,
            TPR if low > 0xff => None,
            SVR if low & !0x1ff != 0 => None,
            DIVIDE if low & !0xb != 0 => None,
            _ if !is_writable(register) => None,
            _ => {
                let lvt = LVT.iter().find(|(lvt, _)| *lvt == register);
                // Delivery status (bit 12) and remote IRR (bit 14) are read-only, not reserved.
                if lvt.is_some_and(|(_, bits)| low & !(bits | 0x5000) != 0) {
                    return None;
                }
                Some(self.write(register, low, now))
            }
        }
    }
}
