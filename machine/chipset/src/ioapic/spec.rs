//! Registers of the I/O APIC (Intel 82093AA, 290566-001), and the EOI register of its successors
//! (version 0x20).

/// Bytes of MMIO.
pub const SIZE: u64 = 0x1000;
/// Where a PC has the first one.
pub const BASE: u64 = 0xfec0_0000;
/// Inputs, at most.
pub const INPUTS: usize = 24;

/// Register select.
pub const IOREGSEL: u64 = 0x00;
/// Register window.
pub const IOWIN: u64 = 0x10;
/// A vector written here is ended, as by a broadcast.
pub const IOEOI: u64 = 0x40;

/// Identification.
pub const IOAPICID: u8 = 0x00;
/// Version and number of inputs.
pub const IOAPICVER: u8 = 0x01;
/// Arbitration: the ID again.
pub const IOAPICARB: u8 = 0x02;
/// The redirection table, two registers an entry.
pub const IOREDTBL: u8 = 0x10;
/// The version: 0x20 is the first with [`IOEOI`].
pub const VERSION: u32 = 0x20;

/// Logical destination.
pub const RTE_LOGICAL: u64 = 1 << 11;
/// The interrupt was accepted and not yet ended.
pub const RTE_REMOTE_IRR: u64 = 1 << 14;
/// Level triggered.
pub const RTE_LEVEL: u64 = 1 << 15;
/// Masked.
pub const RTE_MASK: u64 = 1 << 16;
/// What software can change: vector, modes, polarity, trigger, mask and destination.
pub const RTE_WRITABLE: u64 = 0xff00_0000_0001_afff;

/// Address of interrupt messages.
pub const MSI_ADDRESS: u64 = 0xfee0_0000;
/// Logical destination, in a message's address.
pub const MSI_LOGICAL: u64 = 1 << 2;
/// The level is asserted, in a message's data.
pub const MSI_ASSERT: u32 = 1 << 14;
/// Level triggered, in a message's data.
pub const MSI_LEVEL: u32 = 1 << 15;
