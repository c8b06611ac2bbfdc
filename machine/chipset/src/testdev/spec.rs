//! The device that bare-metal test guests use to provoke events.

use crate::PortRange;

/// Where guests expect it.
pub const PORTS: &[PortRange] = &[
    PortRange { base: 0xe0, size: 4, offset: LATCH },
    PortRange { base: 0xe4, size: 4, offset: UNMAP },
    PortRange { base: 0x2000, size: IRQS, offset: IRQ },
];

/// Offset of a latch of four bytes, which read as they were written.
pub const LATCH: u64 = 0;
/// Offset of the port whose writes name a page to unmap.
pub const UNMAP: u64 = 4;
/// Offset of a port for each interrupt line: not zero raises it.
pub const IRQ: u64 = 0x10;
/// Interrupt lines.
pub const IRQS: u64 = 24;

/// Where guests expect RAM of their own, which the board maps.
pub const RAM_BASE: u64 = 0xff00_0000;
/// Its length.
pub const RAM_SIZE: u64 = 0x1_0000;
