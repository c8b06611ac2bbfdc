//! The firmware configuration interface (QEMU, docs/specs/fw_cfg), by which firmware of virtual
//! machines finds out where it is.

use crate::PortRange;

/// Where firmware expects it.
pub const PORTS: &[PortRange] = &[PortRange { base: 0x510, size: 12, offset: SELECTOR }];

/// Offset of the selector, 16 bits, little-endian.
pub const SELECTOR: u64 = 0;
/// Offset of the data port. It shares a port with the selector's upper half.
pub const DATA: u64 = 1;
/// Offset of the DMA address's upper half, big-endian.
pub const DMA_HIGH: u64 = 4;
/// Offset of the DMA address's lower half; writing it starts.
pub const DMA_LOW: u64 = 8;

/// Item: the signature.
pub const KEY_SIGNATURE: u16 = 0x00;
/// Item: the interface's features.
pub const KEY_ID: u16 = 0x01;
/// Item: bytes of RAM.
pub const KEY_RAM_SIZE: u16 = 0x03;
/// Item: CPUs at boot.
pub const KEY_NB_CPUS: u16 = 0x05;
/// Item: CPUs there may ever be.
pub const KEY_MAX_CPUS: u16 = 0x0f;
/// Item: the directory of files.
pub const KEY_FILE_DIR: u16 = 0x19;
/// Item: the first file.
pub const KEY_FILE_FIRST: u16 = 0x20;
/// Items that are not files but for one architecture only.
pub const KEY_ARCH_LOCAL: u16 = 0x8000;
/// A bit of the selector that asked for writing, long ago.
pub const KEY_WRITE_CHANNEL: u16 = 0x4000;

/// What [`KEY_SIGNATURE`] says.
pub const SIGNATURE: &[u8; 4] = b"QEMU";
/// What [`KEY_ID`] says: the traditional interface, and DMA.
pub const ID: u32 = 3;
/// What the DMA register reads as.
pub const DMA_SIGNATURE: &[u8; 8] = b"QEMU CFG";

/// DMA control: it went wrong.
pub const DMA_ERROR: u32 = 1 << 0;
/// DMA control: read the item to memory.
pub const DMA_READ: u32 = 1 << 1;
/// DMA control: skip.
pub const DMA_SKIP: u32 = 1 << 2;
/// DMA control: select the item in the upper half first.
pub const DMA_SELECT: u32 = 1 << 3;
/// DMA control: write the item from memory.
pub const DMA_WRITE: u32 = 1 << 4;

/// Longest name of a file, without its final zero.
pub const NAME_MAX: usize = 55;
/// Zeroes that a DMA read past the end of an item gets; more is an error. It stops a guest from
/// having us fill all of its memory in one access.
pub const PADDING_MAX: u64 = 0x1_0000;
