//! Registers, commands and status codes, by their names in the specification.

/// Registers (3.1).
pub(crate) const CAP: u64 = 0x00;
pub(crate) const VS: u64 = 0x08;
/// Which vectors' interrupts by pin are masked: set, and clear.
pub(crate) const INTMS: u64 = 0x0c;
pub(crate) const INTMC: u64 = 0x10;
pub(crate) const CC: u64 = 0x14;
pub(crate) const CSTS: u64 = 0x1c;
pub(crate) const AQA: u64 = 0x24;
pub(crate) const ASQ: u64 = 0x28;
pub(crate) const ACQ: u64 = 0x30;
pub(crate) const DOORBELLS: u64 = 0x1000;
pub(crate) const MSIX_TABLE: u64 = 0x2000;
pub(crate) const MSIX_PENDING: u64 = 0x3000;
pub(crate) const BAR_SIZE: u64 = 0x4000;

/// Entries of a queue at most.
pub(crate) const ENTRIES_MAX: u32 = 1024;
/// NVM command set, 10 s to become ready, contiguous queues, as many entries.
pub(crate) const CAP_VALUE: u64 = 1 << 37 | 20 << 24 | 1 << 16 | (ENTRIES_MAX as u64 - 1);
pub(crate) const VS_VALUE: u32 = 0x0001_0400;
pub(crate) const CC_EN: u32 = 1 << 0;
/// Command set, page size and arbitration: all have to be 0.
pub(crate) const CC_CHOICES: u32 = 0x3ff0;
pub(crate) const CC_SHN: u32 = 3 << 14;
pub(crate) const CC_WRITABLE: u32 = 0x00ff_fff1;
pub(crate) const CSTS_RDY: u32 = 1 << 0;
pub(crate) const CSTS_CFS: u32 = 1 << 1;
pub(crate) const CSTS_SHST_DONE: u32 = 2 << 2;

pub(crate) const SQE_SIZE: u64 = 64;
pub(crate) const CQE_SIZE: u64 = 16;
pub(crate) const PAGE: u64 = 4096;
/// Most pages of a transfer, as a power of two.
pub(crate) const MDTS: u8 = 7;
pub(crate) const TRANSFER_MAX: u64 = PAGE << MDTS;
pub(crate) const BLOCK: u64 = 512;
pub(crate) const NAMESPACE: u32 = 1;
pub(crate) const NAMESPACES_ALL: u32 = 0xffff_ffff;
/// Asynchronous event requests held at most.
pub(crate) const EVENTS_MAX: usize = 4;
/// Ranges of a DATASET MANAGEMENT at most.
pub(crate) const RANGES_MAX: usize = 256;

/// Admin commands (5).
pub(crate) mod admin {
    pub(crate) const DELETE_SQ: u8 = 0x00;
    pub(crate) const CREATE_SQ: u8 = 0x01;
    pub(crate) const GET_LOG_PAGE: u8 = 0x02;
    pub(crate) const DELETE_CQ: u8 = 0x04;
    pub(crate) const CREATE_CQ: u8 = 0x05;
    pub(crate) const IDENTIFY: u8 = 0x06;
    pub(crate) const ABORT: u8 = 0x08;
    pub(crate) const SET_FEATURES: u8 = 0x09;
    pub(crate) const GET_FEATURES: u8 = 0x0a;
    pub(crate) const ASYNC_EVENT_REQUEST: u8 = 0x0c;
}

/// NVM commands (6).
pub(crate) mod nvm {
    pub(crate) const FLUSH: u8 = 0x00;
    pub(crate) const WRITE: u8 = 0x01;
    pub(crate) const READ: u8 = 0x02;
    pub(crate) const WRITE_ZEROES: u8 = 0x08;
    pub(crate) const DATASET_MANAGEMENT: u8 = 0x09;
}

/// Status: type in bits 8 to 10, code below (4.6.1).
pub(crate) type Status = u16;
pub(crate) const SUCCESS: Status = 0;
pub(crate) const INVALID_OPCODE: Status = 0x01;
pub(crate) const INVALID_FIELD: Status = 0x02;
pub(crate) const DATA_TRANSFER_ERROR: Status = 0x04;
pub(crate) const INVALID_NAMESPACE: Status = 0x0b;
pub(crate) const PRP_OFFSET_INVALID: Status = 0x13;
pub(crate) const LBA_OUT_OF_RANGE: Status = 0x80;
pub(crate) const CQ_INVALID: Status = 0x100;
pub(crate) const QUEUE_ID_INVALID: Status = 0x101;
pub(crate) const QUEUE_SIZE_INVALID: Status = 0x102;
pub(crate) const EVENTS_EXCEEDED: Status = 0x105;
pub(crate) const VECTOR_INVALID: Status = 0x108;
pub(crate) const LOG_PAGE_INVALID: Status = 0x109;
pub(crate) const QUEUE_DELETION_INVALID: Status = 0x10c;
pub(crate) const WRITE_FAULT: Status = 0x280;
pub(crate) const READ_ERROR: Status = 0x281;
pub(crate) const READ_ONLY: Status = 0x182;
/// Do not retry.
pub(crate) const DNR: Status = 1 << 14;
