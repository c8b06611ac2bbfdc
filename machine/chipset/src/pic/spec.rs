//! Registers of the 8259A (Intel 231468-003) and of the edge/level control of the PIIX and ICH.

use crate::PortRange;

/// Where a PC has both chips and the two edge/level control registers.
pub const PORTS: &[PortRange] = &[
    PortRange { base: 0x20, size: 2, offset: MASTER },
    PortRange { base: 0xa0, size: 2, offset: SLAVE },
    PortRange { base: 0x4d0, size: 2, offset: ELCR },
];

/// Offset of the master's two ports.
pub const MASTER: u64 = 0;
/// Offset of the slave's two ports.
pub const SLAVE: u64 = 2;
/// Offset of the edge/level control registers, master's first.
pub const ELCR: u64 = 4;

/// The master's input that the slave drives.
pub const CASCADE: u8 = 2;
/// The request an acknowledge cycle gets when there is none.
pub const SPURIOUS: u8 = 7;

/// ELCR bits that cannot be set: timer, keyboard and cascade; RTC and FPU.
pub const ELCR_FIXED: [u8; 2] = [0x07, 0x21];

/// First word of the initialisation, among writes to the even port.
pub const ICW1: u8 = 0x10;
/// ICW4 will follow.
pub const ICW1_IC4: u8 = 0x01;
/// No cascade: ICW3 will not follow.
pub const ICW1_SNGL: u8 = 0x02;
/// All inputs are level-triggered.
pub const ICW1_LTIM: u8 = 0x08;
/// Automatic end of interrupt.
pub const ICW4_AEOI: u8 = 0x02;
/// Special fully nested mode.
pub const ICW4_SFNM: u8 = 0x10;

/// OCW3, among writes to the even port.
pub const OCW3: u8 = 0x08;
/// Read register command is valid.
pub const OCW3_RR: u8 = 0x02;
/// Read ISR, not IRR.
pub const OCW3_RIS: u8 = 0x01;
/// Poll.
pub const OCW3_P: u8 = 0x04;
/// SMM is valid.
pub const OCW3_ESMM: u8 = 0x40;
/// Special mask mode.
pub const OCW3_SMM: u8 = 0x20;

/// OCW2: specific level in the low bits.
pub const OCW2_SL: u8 = 0x40;
/// OCW2: end of interrupt.
pub const OCW2_EOI: u8 = 0x20;
/// OCW2: rotate.
pub const OCW2_R: u8 = 0x80;

/// The answer to a poll when there is a request.
pub const POLL_I: u8 = 0x80;
