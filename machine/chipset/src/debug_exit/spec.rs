//! The debug-exit port, as bare-metal test guests know it.

use crate::PortRange;

/// Where guests expect it.
pub const PORTS: &[PortRange] = &[PortRange { base: 0xf4, size: SIZE, offset: 0 }];

/// Ports of the device.
pub const SIZE: u64 = 4;
