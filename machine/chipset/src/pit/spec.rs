//! Registers of the 8254 (Intel 231164-005) and of system control port B (0x61).

use crate::PortRange;
use crate::time::Hz;

/// Where a PC has them.
pub const PORTS: &[PortRange] = &[
    PortRange { base: 0x40, size: 4, offset: COUNTER_0 },
    PortRange { base: 0x61, size: 1, offset: PORT_B },
];

/// Offset of counter 0; 1 follows.
pub const COUNTER_0: u64 = 0;
/// Offset of counter 2.
pub const COUNTER_2: u64 = 2;
/// Offset of the control word register.
pub const CONTROL: u64 = 3;
/// Offset of system control port B.
pub const PORT_B: u64 = 4;

/// The frequency of all three clocks.
pub(super) const CLK: Hz = Hz(1_193_182);

/// Control word: which counter, or read-back.
pub const SC_SHIFT: u8 = 6;
/// Control word: the read-back command.
pub const SC_READ_BACK: u8 = 3;
/// Control word: which bytes are read and written; none is the latch command.
pub const RW_SHIFT: u8 = 4;
/// Control word: least significant byte.
pub const RW_LSB: u8 = 1;
/// Control word: most significant byte.
pub const RW_MSB: u8 = 2;
/// Control word: mode.
pub const M_SHIFT: u8 = 1;
/// Control word: count in decimal.
pub const BCD: u8 = 0x01;

/// Read-back: leave the counts alone.
pub const READ_BACK_NO_COUNT: u8 = 0x20;
/// Read-back: leave the statuses alone.
pub const READ_BACK_NO_STATUS: u8 = 0x10;

/// Status: OUT.
pub const STATUS_OUT: u8 = 0x80;
/// Status: the count written is not yet being counted.
pub const STATUS_NULL_COUNT: u8 = 0x40;

/// Port B: gate of counter 2.
pub const PORT_B_GATE_2: u8 = 0x01;
/// Port B: what can be written (the rest: speaker data and error enables).
pub const PORT_B_WRITABLE: u8 = 0x0f;
/// Port B: toggles at each refresh of memory.
pub const PORT_B_REFRESH: u8 = 0x10;
/// Port B: OUT of counter 2.
pub const PORT_B_OUT_2: u8 = 0x20;
/// Time between refreshes: 18 clocks of counter 1.
pub const REFRESH_NS: u64 = 15_085;
