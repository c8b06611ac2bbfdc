//! Commands and registers of Intel's flash command set (Intel 28F640J5/J3 datasheets; Common Flash
//! Memory Interface 1.4, JEDEC JEP137), one byte wide.

/// Bytes of a block, the unit of erasure: what UEFI's variable store is laid out for.
pub const BLOCK_SIZE: u64 = 4096;
/// Bytes of the write buffer.
pub const BUFFER_SIZE: usize = 64;

/// Reads are of the array.
pub const READ_ARRAY: u8 = 0xff;
/// Reads are of the identifiers.
pub const READ_ID: u8 = 0x90;
/// Reads are of the CFI table.
pub const READ_QUERY: u8 = 0x98;
/// Reads are of the status register.
pub const READ_STATUS: u8 = 0x70;
/// The status register's errors are gone.
pub const CLEAR_STATUS: u8 = 0x50;
/// The next byte written is programmed.
pub const PROGRAM: u8 = 0x40;
/// The same.
pub const PROGRAM_ALTERNATE: u8 = 0x10;
/// A count and so many bytes follow, and [`CONFIRM`].
pub const BUFFERED_PROGRAM: u8 = 0xe8;
/// [`CONFIRM`] follows, and the block is erased.
pub const BLOCK_ERASE: u8 = 0x20;
/// [`LOCK`] or [`CONFIRM`] follows. No block is ever locked.
pub const LOCK_SETUP: u8 = 0x60;
/// Confirms locking.
pub const LOCK: u8 = 0x01;
/// Confirms.
pub const CONFIRM: u8 = 0xd0;

/// Status: ready.
pub const SR_READY: u8 = 1 << 7;
/// Status: erasing failed; with [`SR_PROGRAM_ERROR`], the command sequence was wrong.
pub const SR_ERASE_ERROR: u8 = 1 << 5;
/// Status: programming failed.
pub const SR_PROGRAM_ERROR: u8 = 1 << 4;

/// Who makes it: Intel.
pub const MANUFACTURER: u8 = 0x89;
/// What it is.
pub const DEVICE: u8 = 0x18;

/// The CFI table, from address 0x10, with what says the sizes left out.
pub const CFI: [u8; 0x21] = [
    b'Q', b'R', b'Y', // 0x10
    0x01, 0x00, // 0x13: Intel's extended command set
    0x31, 0x00, // 0x15: its table
    0x00, 0x00, 0x00, 0x00, // 0x17: no alternate set
    0x45, 0x55, 0x00, 0x00, // 0x1b: 4.5 to 5.5 V, no programming voltage
    0x07, 0x07, 0x0a, 0x00, // 0x1f: typical times, 2^n: byte, buffer (us), erase (ms), chip
    0x04, 0x04, 0x04, 0x00, // 0x23: the longest, as multiples
    0x00, // 0x27: size, 2^n
    0x00, 0x00, // 0x28: one byte wide
    0x06, 0x00, // 0x2a: write buffer, 2^n
    0x01, // 0x2c: one kind of blocks
    0x00, 0x00, 0x00, 0x00, // 0x2d: their count less one, and their size in 256 bytes
];
/// Where [`CFI`] begins.
pub const CFI_BASE: u64 = 0x10;
/// CFI: size.
pub const CFI_SIZE: u64 = 0x27;
/// CFI: blocks.
pub const CFI_BLOCKS: u64 = 0x2d;
/// CFI: Intel's table, version 1.0, with nothing optional.
pub const CFI_PRIMARY: u64 = 0x31;
/// What is there.
pub const CFI_PRIMARY_TABLE: [u8; 15] = *b"PRI10\0\0\0\0\0\0\0\0\0\0";
