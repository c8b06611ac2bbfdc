//! Register offsets and bits, under the names of SDM vol. 3A, tables 11-1 and 11-6.

/// Local APIC ID.
pub const ID: u32 = 0x20;
/// Version.
pub const VERSION: u32 = 0x30;
/// Task priority.
pub const TPR: u32 = 0x80;
/// Arbitration priority.
pub const APR: u32 = 0x90;
/// Processor priority.
pub const PPR: u32 = 0xa0;
/// End of interrupt.
pub const EOI: u32 = 0xb0;
/// Remote read.
pub const RRD: u32 = 0xc0;
/// Logical destination.
pub const LDR: u32 = 0xd0;
/// Destination format.
pub const DFR: u32 = 0xe0;
/// Spurious interrupt vector.
pub const SVR: u32 = 0xf0;
/// In service, eight registers.
pub const ISR: u32 = 0x100;
/// Trigger mode, eight registers.
pub const TMR: u32 = 0x180;
/// Interrupt request, eight registers.
pub const IRR: u32 = 0x200;
/// Error status.
pub const ESR: u32 = 0x280;
/// Interrupt command, low half.
pub const ICR: u32 = 0x300;
/// Interrupt command, high half.
pub const ICR2: u32 = 0x310;
/// Timer.
pub const LVT_TIMER: u32 = 0x320;
/// Thermal sensor.
pub const LVT_THERMAL: u32 = 0x330;
/// Performance counters.
pub const LVT_PERF: u32 = 0x340;
/// LINT0 pin.
pub const LVT_LINT0: u32 = 0x350;
/// LINT1 pin.
pub const LVT_LINT1: u32 = 0x360;
/// Error.
pub const LVT_ERROR: u32 = 0x370;
/// Initial count.
pub const INITIAL_COUNT: u32 = 0x380;
/// Current count.
pub const CURRENT_COUNT: u32 = 0x390;
/// Divide configuration.
pub const DIVIDE: u32 = 0x3e0;
/// Self IPI, x2APIC only.
pub const SELF_IPI: u32 = 0x3f0;

/// SVR: the APIC is enabled by software.
pub const SVR_ENABLE: u32 = 1 << 8;
/// LVT: masked.
pub const LVT_MASKED: u32 = 1 << 16;
/// LVT timer: periodic.
pub const TIMER_PERIODIC: u32 = 1 << 17;
/// LVT timer: TSC-deadline.
pub const TIMER_TSC_DEADLINE: u32 = 2 << 17;
/// LVT timer: both mode bits.
pub const TIMER_MODE: u32 = 3 << 17;
/// LVT and ICR: delivery mode.
pub const DELIVERY_SHIFT: u32 = 8;
/// ICR: logical destination.
pub const ICR_LOGICAL: u32 = 1 << 11;
/// ICR: delivery status, read-only.
pub const ICR_BUSY: u32 = 1 << 12;
/// ICR: assert (as opposed to de-assert).
pub const ICR_ASSERT: u32 = 1 << 14;
/// ICR and LVT LINT: level-triggered.
pub const LEVEL: u32 = 1 << 15;

/// ESR: a message with an illegal vector was to be sent.
pub const ESR_SEND_VECTOR: u32 = 1 << 5;
/// ESR: a message with an illegal vector came.
pub const ESR_RECEIVE_VECTOR: u32 = 1 << 6;
/// ESR: a register that does not exist was accessed.
pub const ESR_REGISTER: u32 = 1 << 7;

/// LVT registers in the order of their offsets, with the bits software may write.
pub const LVT: [(u32, u32); 6] = [
    (LVT_TIMER, 0xff | LVT_MASKED | TIMER_MODE),
    (LVT_THERMAL, 0x7ff | LVT_MASKED),
    (LVT_PERF, 0x7ff | LVT_MASKED),
    (LVT_LINT0, 0xa7ff | LVT_MASKED),
    (LVT_LINT1, 0xa7ff | LVT_MASKED),
    (LVT_ERROR, 0xff | LVT_MASKED),
];
