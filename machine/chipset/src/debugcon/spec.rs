//! The debug console of Bochs and QEMU.

use crate::PortRange;

/// Where firmware looks for it.
pub const PORTS: &[PortRange] = &[PortRange { base: 0x402, size: 1, offset: 0 }];

/// What it reads as: firmware writes only where it finds this.
pub const PRESENT: u8 = 0xe9;
