//! Registers of the MC146818A (Motorola, 1984), with the extended bank of the ICH.

use crate::PortRange;
use crate::time::Hz;

/// Where a PC has it.
pub const PORTS: &[PortRange] = &[PortRange { base: 0x70, size: 4, offset: INDEX }];

/// Offset of the index port. Bit 7, which masks NMIs on a PC, is ignored.
pub const INDEX: u64 = 0;
/// Offset of the data port.
pub const DATA: u64 = 1;
/// Offset of the index port of the upper 128 bytes.
pub const INDEX_HIGH: u64 = 2;
/// Offset of the data port of the upper 128 bytes.
pub const DATA_HIGH: u64 = 3;

/// Bytes of memory, clock registers included.
pub const CMOS_SIZE: usize = 256;

/// Seconds.
pub const SECONDS: u8 = 0x00;
/// Seconds of the alarm; minutes and hours are at 3 and 5.
pub const SECONDS_ALARM: u8 = 0x01;
/// Minutes.
pub const MINUTES: u8 = 0x02;
/// Minutes of the alarm.
pub const MINUTES_ALARM: u8 = 0x03;
/// Hours.
pub const HOURS: u8 = 0x04;
/// Hours of the alarm.
pub const HOURS_ALARM: u8 = 0x05;
/// Day of the week, Sunday is 1.
pub const DAY_OF_WEEK: u8 = 0x06;
/// Day of the month.
pub const DATE: u8 = 0x07;
/// Month.
pub const MONTH: u8 = 0x08;
/// Year of the century.
pub const YEAR: u8 = 0x09;
/// Register A.
pub const REG_A: u8 = 0x0a;
/// Register B.
pub const REG_B: u8 = 0x0b;
/// Register C.
pub const REG_C: u8 = 0x0c;
/// Register D.
pub const REG_D: u8 = 0x0d;
/// Century, where ACPI's FADT says.
pub const CENTURY: u8 = 0x32;

/// A: update in progress.
pub const A_UIP: u8 = 0x80;
/// A: divider control.
pub const A_DV: u8 = 0x70;
/// A: the divider's value for a 32,768 Hz crystal.
pub const A_DV_NORMAL: u8 = 0x20;
/// A: either value holds the divider in reset.
pub const A_DV_RESET: u8 = 0x60;
/// A: rate of the periodic interrupt.
pub const A_RS: u8 = 0x0f;

/// B: the guest sets the time; no updates.
pub const B_SET: u8 = 0x80;
/// B: periodic interrupt enable.
pub const B_PIE: u8 = 0x40;
/// B: alarm interrupt enable.
pub const B_AIE: u8 = 0x20;
/// B: update-ended interrupt enable.
pub const B_UIE: u8 = 0x10;
/// B: square wave, which goes nowhere.
pub const B_SQWE: u8 = 0x08;
/// B: binary, not BCD.
pub const B_DM: u8 = 0x04;
/// B: 24 hours, not 12.
pub const B_24H: u8 = 0x02;

/// C: an enabled interrupt is pending.
pub const C_IRQF: u8 = 0x80;
/// C: periodic.
pub const C_PF: u8 = 0x40;
/// C: alarm.
pub const C_AF: u8 = 0x20;
/// C: update ended.
pub const C_UF: u8 = 0x10;

/// D: the battery is good.
pub const D_VRT: u8 = 0x80;

/// Hours in 12-hour mode: afternoon.
pub const PM: u8 = 0x80;
/// An alarm byte of this or above matches always.
pub const ANY: u8 = 0xc0;

/// The crystal.
pub(super) const CRYSTAL: Hz = Hz(32_768);
/// UIP rises this long before an update.
pub const UIP_NS: u64 = 244_141;
