//! Who a message is for.

use x86_state::{ApicState, DeliveryMode, Msi, Vector};

use crate::Lapic;
use crate::spec::*;

/// A destination, as a message carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    /// APIC ID, or a logical set.
    pub id: u32,
    /// `id` is logical.
    pub logical: bool,
    /// `id` has 32 bits, from an x2APIC; else the 8 bits of xAPIC and MSI.
    pub wide: bool,
}

/// ICR destination shorthand (SDM vol. 3A, 11.6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shorthand {
    /// By the destination field.
    None,
    /// The sender.
    Own,
    /// Everyone.
    All,
    /// Everyone but the sender.
    Others,
}

/// An interrupt one APIC sends to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipi {
    /// To whom, unless the shorthand says.
    pub destination: Destination,
    /// To whom.
    pub shorthand: Shorthand,
    /// How.
    pub mode: DeliveryMode,
    /// Which.
    pub vector: Vector,
    /// Level-triggered.
    pub level: bool,
}

impl Ipi {
    /// From the interrupt command register. `None` for what has no effect: INIT de-assert and
    /// reserved modes.
    pub(crate) fn from_icr(low: u32, destination: Destination) -> Option<Self> {
        let mode = DeliveryMode::from_bits((low >> DELIVERY_SHIFT) as u8)?;
        let level = low & LEVEL != 0;
        if mode == DeliveryMode::Init && level && low & ICR_ASSERT == 0 {
            return None;
        }
        let shorthand = match low >> 18 & 3 {
            0 => Shorthand::None,
            1 => Shorthand::Own,
            2 => Shorthand::All,
            _ => Shorthand::Others,
        };
        // Level-triggered fixed IPIs are sent as edge: KVM and current CPUs ignore the bit too.
        Some(Self { destination, shorthand, mode, vector: low as u8, level: false })
    }

    /// From an interrupt message of a device or IOAPIC. `None` when its mode is reserved.
    pub fn from_msi(msi: Msi) -> Option<Self> {
        Some(Self {
            destination: Destination {
                id: u32::from(msi.destination()),
                logical: msi.logical(),
                wide: false,
            },
            shorthand: Shorthand::None,
            mode: msi.delivery_mode()?,
            vector: msi.vector(),
            level: msi.level_triggered(),
        })
    }
}

impl Lapic {
    /// The message is for this APIC, the shorthand aside.
    pub fn is_addressed_by(&self, destination: Destination) -> bool {
        let Destination { id, logical, wide } = destination;
        let x2apic = self.is_x2apic();
        let broadcast = if wide { 0xffff_ffff } else { 0xff };
        if id == broadcast {
            return true;
        }
        if !logical {
            return id == self.id();
        }
        if x2apic {
            // Messages carry 8 bits: cluster 0 of the x2APIC's logical IDs.
            let ldr = self.reg(LDR);
            return ldr >> 16 == id >> 16 && ldr & id & 0xffff != 0;
        }
        let ldr = self.reg(LDR) >> 24;
        match self.reg(DFR) >> 28 {
            0xf => ldr & id & 0xff != 0,
            0x0 => ldr >> 4 == id >> 4 & 0xf && ldr & id & 0xf != 0,
            _ => false,
        }
    }

    /// The APIC ID: 8 bits in xAPIC mode, 32 in x2APIC mode.
    pub fn id(&self) -> u32 {
        if self.is_x2apic() { self.reg(ID) } else { self.reg(ID) >> 24 }
    }

    /// In x2APIC mode.
    pub fn is_x2apic(&self) -> bool {
        self.base() & ApicState::BASE_X2APIC != 0
    }

    /// Enabled in IA32_APIC_BASE.
    pub fn is_enabled(&self) -> bool {
        self.base() & ApicState::BASE_ENABLE != 0
    }
}
