//! Configuration space of a type 0 function (PCI Local Bus 3.0, chapter 6; MSI-X in 6.8.2).

/// Bytes of conventional configuration space.
pub const CONFIG_SIZE: usize = 256;
/// Bytes of configuration space of a function in ECAM.
pub const ECAM_FUNCTION_SIZE: u64 = 4096;

pub(crate) const VENDOR_ID: usize = 0x00;
pub(crate) const DEVICE_ID: usize = 0x02;
/// Which spaces a function decodes, and whether it may master the bus.
pub const COMMAND: usize = 0x04;
pub(crate) const STATUS: usize = 0x06;
pub(crate) const REVISION_ID: usize = 0x08;
pub(crate) const CLASS_CODE: usize = 0x09;
pub(crate) const CACHE_LINE_SIZE: usize = 0x0c;
pub(crate) const LATENCY_TIMER: usize = 0x0d;
pub(crate) const HEADER_TYPE: usize = 0x0e;
pub(crate) const BAR0: usize = 0x10;
pub(crate) const SUBSYSTEM_VENDOR_ID: usize = 0x2c;
pub(crate) const SUBSYSTEM_ID: usize = 0x2e;
/// Base address of the expansion ROM.
pub(crate) const ROM_BAR: usize = 0x30;
pub(crate) const CAPABILITIES_POINTER: usize = 0x34;
pub(crate) const INTERRUPT_LINE: usize = 0x3c;
pub(crate) const INTERRUPT_PIN: usize = 0x3d;
/// First byte a function can use as it likes.
pub(crate) const DEVICE_SPECIFIC: usize = 0x40;

/// Base address registers of a type 0 function.
pub(crate) const BAR_COUNT: usize = 6;

pub(crate) const COMMAND_IO: u16 = 1 << 0;
/// BARs in memory are decoded.
pub const COMMAND_MEMORY: u16 = 1 << 1;
pub(crate) const COMMAND_BUS_MASTER: u16 = 1 << 2;
/// The interrupt pin is not driven.
pub(crate) const COMMAND_INTX_OFF: u16 = 1 << 10;
/// Parity and SERR enables are kept though nothing ever fails.
pub(crate) const COMMAND_WRITABLE: u16 =
    COMMAND_IO | COMMAND_MEMORY | COMMAND_BUS_MASTER | 1 << 6 | 1 << 8 | COMMAND_INTX_OFF;

/// The function wants an interrupt by its pin.
pub(crate) const STATUS_INTERRUPT: u8 = 1 << 3;
pub(crate) const STATUS_CAPABILITIES: u16 = 1 << 4;

pub(crate) const BAR_IO: u32 = 1;
pub(crate) const BAR_MEMORY_64: u32 = 2 << 1;
pub(crate) const BAR_PREFETCHABLE: u32 = 1 << 3;

/// Bit 0 of the expansion ROM's register.
pub(crate) const ROM_ENABLE: u32 = 1;
/// The largest expansion ROM (6.2.5.2).
pub(crate) const ROM_SIZE_MAX: u64 = 16 << 20;

/// Several functions in this device: bit 7 of the header type.
pub(crate) const HEADER_MULTIFUNCTION: u8 = 1 << 7;

/// MSI capability.
pub const CAPABILITY_MSI: u8 = 0x05;
/// Vendor-specific capability.
pub const CAPABILITY_VENDOR: u8 = 0x09;
/// MSI-X capability.
pub const CAPABILITY_MSIX: u8 = 0x11;

pub(crate) const MSIX_ENTRY_SIZE: usize = 16;
/// Vector control of a table entry; bit 0 masks.
pub(crate) const MSIX_VECTOR_CONTROL: usize = 12;
pub(crate) const MSIX_VECTOR_MASKED: u8 = 1;
pub(crate) const MSIX_CONTROL_FUNCTION_MASK: u16 = 1 << 14;
pub(crate) const MSIX_CONTROL_ENABLE: u16 = 1 << 15;
/// Most vectors the 11 bits of the table size can say.
pub(crate) const MSIX_VECTORS_MAX: u16 = 2048;
