//! Registers of the HPET (IA-PC HPET specification 1.0a).

use crate::time::Hz;

/// Bytes of MMIO.
pub const SIZE: u64 = 0x400;
/// Where a PC has the first one.
pub const BASE: u64 = 0xfed0_0000;
/// Comparators.
pub const TIMERS: usize = 3;

/// General capabilities and ID.
pub const CAPABILITIES: u64 = 0x000;
/// General configuration.
pub const CONFIGURATION: u64 = 0x010;
/// General interrupt status.
pub const STATUS: u64 = 0x020;
/// Main counter.
pub const COUNTER: u64 = 0x0f0;
/// The first comparator's registers; the others follow, this far apart.
pub const TIMER_BASE: u64 = 0x100;
/// Distance of comparators' registers.
pub const TIMER_STRIDE: u64 = 0x20;
/// In a comparator: configuration and capability.
pub const TIMER_CONFIGURATION: u64 = 0x00;
/// In a comparator: comparator value.
pub const TIMER_COMPARATOR: u64 = 0x08;
/// In a comparator: FSB interrupt route.
pub const TIMER_FSB_ROUTE: u64 = 0x10;

/// The main counter's frequency, and its period in femtoseconds.
pub(super) const CLOCK: Hz = Hz(100_000_000);
/// Femtoseconds a tick.
pub const PERIOD_FS: u64 = 10_000_000;
/// Revision 1, three timers, 64 bits, legacy replacement, vendor 0x8086.
pub const CAPABILITIES_VALUE: u64 =
    PERIOD_FS << 32 | 0x8086 << 16 | 1 << 15 | 1 << 13 | (TIMERS as u64 - 1) << 8 | 1;

/// Configuration: the counter runs.
pub const ENABLE_CNF: u64 = 1 << 0;
/// Configuration: timers 0 and 1 replace the PIT's and the RTC's interrupts.
pub const LEG_RT_CNF: u64 = 1 << 1;

/// Timer: level triggered.
pub const INT_TYPE_CNF: u64 = 1 << 1;
/// Timer: may interrupt.
pub const INT_ENB_CNF: u64 = 1 << 2;
/// Timer: periodic.
pub const TYPE_CNF: u64 = 1 << 3;
/// Timer: can be periodic.
pub const PER_INT_CAP: u64 = 1 << 4;
/// Timer: is 64 bits wide.
pub const SIZE_CAP: u64 = 1 << 5;
/// Timer: the next write of the comparator sets its value, not only the period.
pub const VAL_SET_CNF: u64 = 1 << 6;
/// Timer: works on 32 bits.
pub const MODE32_CNF: u64 = 1 << 8;
/// Timer: where the IOAPIC's input is.
pub const INT_ROUTE_SHIFT: u32 = 9;
/// Timer: which inputs it may use: 20 to 23.
pub const INT_ROUTE_CAP: u64 = 0x00f0_0000 << 32;
/// Timer: interrupts are messages.
pub const FSB_EN_CNF: u64 = 1 << 14;
/// Timer: interrupts can be messages.
pub const FSB_INT_DEL_CAP: u64 = 1 << 15;
/// Timer: what cannot be changed.
pub const TIMER_CAPABILITIES: u64 = PER_INT_CAP | SIZE_CAP | FSB_INT_DEL_CAP | INT_ROUTE_CAP;
/// Timer: what can be changed.
pub const TIMER_WRITABLE: u64 =
    INT_TYPE_CNF | INT_ENB_CNF | TYPE_CNF | VAL_SET_CNF | MODE32_CNF | 0x1f << 9 | FSB_EN_CNF;

/// ISA IRQ of timer 0 in legacy replacement: the PIT's.
pub const LEGACY_IRQ_0: u32 = 0;
/// ISA IRQ of timer 1 in legacy replacement: the RTC's.
pub const LEGACY_IRQ_1: u32 = 8;
