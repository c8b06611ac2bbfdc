//! The reset control register of the PIIX and ICH (0xcf9) and system control port A of the PS/2
//! (0x92).

use crate::PortRange;

/// Where both are. Port 0xcf9 lies inside PCI's configuration address register, which answers
/// accesses of four bytes only; whoever maps that passes narrow ones at 0xcf9 on.
pub const PORTS: &[PortRange] = &[RESET_PORT, PORT_A];
/// The reset control register's place.
pub const RESET_PORT: PortRange = PortRange { base: 0xcf9, size: 1, offset: RST_CNT };
/// System control port A's place.
pub const PORT_A: PortRange = PortRange { base: 0x92, size: 1, offset: SYSTEM_CONTROL_A };

/// Offset of the reset control register.
pub const RST_CNT: u64 = 0;
/// Offset of system control port A.
pub const SYSTEM_CONTROL_A: u64 = 1;

/// A rising edge of this bit resets.
pub const RST_CPU: u8 = 0x04;
/// What of RST_CNT is kept: SYS_RST, RST_CPU and FULL_RST.
pub const RST_MASK: u8 = 0x0e;

/// A rising edge of this bit resets.
pub const FAST_RESET: u8 = 0x01;
/// A20 is open: always, since a guest that closes it is a guest of 1985.
pub const A20: u8 = 0x02;
