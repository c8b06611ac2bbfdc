//! ACPI fixed hardware (ACPI 6.5, section 4.8), where the ICH9 has it (datasheet, section 13.8.3).

use crate::time::Hz;

/// Ports of the device.
pub const SIZE: u64 = 0x80;

/// Offset of PM1a_STS. The event block is 4 bytes.
pub const PM1_STS: u64 = 0x0;
/// Offset of PM1a_EN.
pub const PM1_EN: u64 = 0x2;
/// Offset of PM1a_CNT, 2 bytes.
pub const PM1_CNT: u64 = 0x4;
/// Offset of PM_TMR, 4 bytes.
pub const PM_TMR: u64 = 0x8;
/// Offset of GPE0_STS: the 16 events there are. Systems write to each byte of the block as they
/// start, wherefore it is no longer than that.
pub const GPE0_STS: u64 = 0x20;
/// Offset of GPE0_EN.
pub const GPE0_EN: u64 = 0x22;
/// Offset of SMI_EN. There is no system management mode: it reads as already taken by firmware, which
/// then leaves it alone.
pub const SMI_EN: u64 = 0x30;
/// SMI_EN: the APM port makes an SMI.
pub const APMC_EN: u16 = 1 << 5;

/// PM1: the timer's highest bit has changed.
pub const TMR: u16 = 1 << 0;
/// PM1: global lock released.
pub const GBL: u16 = 1 << 5;
/// PM1: power button.
pub const PWRBTN: u16 = 1 << 8;
/// PM1: sleep button.
pub const SLPBTN: u16 = 1 << 9;
/// PM1: RTC alarm.
pub const RTC: u16 = 1 << 10;
/// PM1 status: woken.
pub const WAK_STS: u16 = 1 << 15;
/// Status bits that exist.
pub const PM1_STS_MASK: u16 = TMR | GBL | PWRBTN | SLPBTN | RTC | WAK_STS;
/// Enable bits that exist.
pub const PM1_EN_MASK: u16 = TMR | GBL | PWRBTN | SLPBTN | RTC;

/// Control: ACPI mode. Always set: there is no other mode, and no SMI command port.
pub const SCI_EN: u16 = 1 << 0;
/// Control: the sleep type's place.
pub const SLP_TYP_SHIFT: u16 = 10;
/// Control: go to sleep. Reads as zero.
pub const SLP_EN: u16 = 1 << 13;
/// Control: what reads back: BM_RLD and SLP_TYP.
pub const PM1_CNT_MASK: u16 = 0x1c02;
/// The sleep type of S5, soft off, for the tables' `_S5`.
pub const SLP_TYP_S5: u16 = 5;

/// The frequency of PM_TMR.
pub(super) const TIMER: Hz = Hz(3_579_545);
