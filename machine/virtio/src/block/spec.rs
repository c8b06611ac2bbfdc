//! Block device (5.2).

use storage::SECTOR_SIZE;

/// Most data descriptors of a request.
pub(super) const F_SEG_MAX: u64 = 1 << 2;
/// The disk is read-only.
pub(super) const F_RO: u64 = 1 << 5;
/// `blk_size` is valid.
pub(super) const F_BLK_SIZE: u64 = 1 << 6;
/// Flushes are understood.
pub(super) const F_FLUSH: u64 = 1 << 9;
/// The driver may choose write-back or write-through.
pub(super) const F_CONFIG_WCE: u64 = 1 << 11;
/// More than one queue.
pub(super) const F_MQ: u64 = 1 << 12;
/// Discards are understood.
pub(super) const F_DISCARD: u64 = 1 << 13;
/// Write-zeroes are understood.
pub(super) const F_WRITE_ZEROES: u64 = 1 << 14;

/// Device configuration (5.2.4): offsets of `struct virtio_blk_config`.
pub(super) const CAPACITY: usize = 0;
pub(super) const SEG_MAX: usize = 12;
pub(super) const BLK_SIZE: usize = 20;
pub(super) const WRITEBACK: usize = 32;
pub(super) const NUM_QUEUES: usize = 34;
pub(super) const MAX_DISCARD_SECTORS: usize = 36;
pub(super) const MAX_DISCARD_SEG: usize = 40;
pub(super) const DISCARD_SECTOR_ALIGNMENT: usize = 44;
pub(super) const MAX_WRITE_ZEROES_SECTORS: usize = 48;
pub(super) const MAX_WRITE_ZEROES_SEG: usize = 52;
pub(super) const WRITE_ZEROES_MAY_UNMAP: usize = 56;
pub(super) const CONFIG_SIZE: usize = 60;

/// Request types (5.2.6).
pub(super) const T_IN: u32 = 0;
pub(super) const T_OUT: u32 = 1;
pub(super) const T_FLUSH: u32 = 4;
pub(super) const T_GET_ID: u32 = 8;
pub(super) const T_DISCARD: u32 = 11;
pub(super) const T_WRITE_ZEROES: u32 = 13;

/// Type, reserved, sector.
pub(super) const HEADER_SIZE: u64 = 16;
/// Bytes of the serial number (5.2.6.2).
pub(super) const ID_SIZE: usize = 20;
/// One range of a discard or write-zeroes: sector, number of sectors, flags.
pub(super) const SEGMENT_SIZE: u64 = 16;
/// Flag of a write-zeroes range: its space may be given back.
pub(super) const SEGMENT_UNMAP: u32 = 1;

/// Most ranges of one discard or write-zeroes. A range is a system call of any length, and a
/// pause waits for the request.
pub(super) const SEGMENTS_MAX: u32 = 16;
/// Most sectors of one range: 1 GiB, which the host can zero without holes in bounded time.
pub(super) const SEGMENT_SECTORS_MAX: u32 = (1 << 30) / SECTOR_SIZE as u32;

/// Request status (5.2.6).
pub(super) const S_OK: u8 = 0;
pub(super) const S_IOERR: u8 = 1;
pub(super) const S_UNSUPP: u8 = 2;
