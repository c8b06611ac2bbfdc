//! Registers and structures of AHCI 1.3.1 and frames of Serial ATA 3.2, by their names there.

/// Generic host control (3.1).
pub(crate) const CAP: u64 = 0x00;
pub(crate) const GHC: u64 = 0x04;
pub(crate) const IS: u64 = 0x08;
pub(crate) const PI: u64 = 0x0c;
pub(crate) const VS: u64 = 0x10;

/// CAP without the number of ports: 64-bit addresses, NCQ, command list override, AHCI only, 3 Gbit/s,
/// 32 command slots.
pub(crate) const CAP_VALUE: u32 = 1 << 31 | 1 << 30 | 1 << 24 | 2 << 20 | 1 << 18 | 31 << 8;
pub(crate) const VS_VALUE: u32 = 0x0001_0301;
pub(crate) const GHC_HR: u32 = 1 << 0;
pub(crate) const GHC_IE: u32 = 1 << 1;
pub(crate) const GHC_AE: u32 = 1 << 31;

/// Ports (3.3).
pub(crate) const PORTS: u64 = 0x100;
pub(crate) const PORT_SIZE: u64 = 0x80;
pub(crate) const PXCLB: u64 = 0x00;
pub(crate) const PXCLBU: u64 = 0x04;
pub(crate) const PXFB: u64 = 0x08;
pub(crate) const PXFBU: u64 = 0x0c;
pub(crate) const PXIS: u64 = 0x10;
pub(crate) const PXIE: u64 = 0x14;
pub(crate) const PXCMD: u64 = 0x18;
pub(crate) const PXTFD: u64 = 0x20;
pub(crate) const PXSIG: u64 = 0x24;
pub(crate) const PXSSTS: u64 = 0x28;
pub(crate) const PXSCTL: u64 = 0x2c;
pub(crate) const PXSERR: u64 = 0x30;
pub(crate) const PXSACT: u64 = 0x34;
pub(crate) const PXCI: u64 = 0x38;

pub(crate) const IS_DHRS: u32 = 1 << 0;
pub(crate) const IS_PSS: u32 = 1 << 1;
pub(crate) const IS_SDBS: u32 = 1 << 3;
pub(crate) const IS_TFES: u32 = 1 << 30;
pub(crate) const IE_WRITABLE: u32 = 0xfdc0_007f;

pub(crate) const CMD_ST: u32 = 1 << 0;
pub(crate) const CMD_SUD: u32 = 1 << 1;
pub(crate) const CMD_POD: u32 = 1 << 2;
pub(crate) const CMD_CLO: u32 = 1 << 3;
pub(crate) const CMD_FRE: u32 = 1 << 4;
pub(crate) const CMD_FR: u32 = 1 << 14;
pub(crate) const CMD_CR: u32 = 1 << 15;
pub(crate) const CMD_ATAPI: u32 = 1 << 24;
pub(crate) const CMD_CCS_SHIFT: u32 = 8;
pub(crate) const CMD_WRITABLE: u32 = CMD_ST | CMD_FRE | CMD_ATAPI | 1 << 25 | 1 << 26 | 1 << 27;

/// A device is there and speaks at 3 Gbit/s; the interface is active.
pub(crate) const SSTS_PRESENT: u32 = 0x123;
pub(crate) const SCTL_DET: u32 = 0xf;
pub(crate) const SIG_ATA: u32 = 0x0000_0101;
pub(crate) const SIG_ATAPI: u32 = 0xeb14_0101;
pub(crate) const SIG_NONE: u32 = 0xffff_ffff;
/// Task file of a port nobody answers at.
pub(crate) const TFD_NONE: u32 = 0x7f;

/// Received FIS structure (4.2.1).
pub(crate) const RX_PIO_SETUP: u64 = 0x20;
pub(crate) const RX_D2H: u64 = 0x40;
pub(crate) const RX_SDB: u64 = 0x58;

/// Command header (4.2.2) and command table (4.2.3).
pub(crate) const HEADER_SIZE: u64 = 32;
pub(crate) const TABLE_ACMD: u64 = 0x40;
pub(crate) const TABLE_PRDT: u64 = 0x80;
pub(crate) const PRD_SIZE: u64 = 16;

pub(crate) const FIS_H2D: u8 = 0x27;
pub(crate) const FIS_D2H: u8 = 0x34;
pub(crate) const FIS_SDB: u8 = 0xa1;
pub(crate) const FIS_PIO_SETUP: u8 = 0x5f;
pub(crate) const FIS_INTERRUPT: u8 = 1 << 6;
pub(crate) const FIS_DEVICE_TO_HOST: u8 = 1 << 5;
pub(crate) const FIS_COMMAND: u8 = 1 << 7;
/// Device control: software reset.
pub(crate) const SRST: u8 = 1 << 2;

/// Status and error registers.
pub(crate) const ST_ERR: u8 = 1 << 0;
pub(crate) const ST_DRQ: u8 = 1 << 3;
pub(crate) const ST_DSC: u8 = 1 << 4;
pub(crate) const ST_DRDY: u8 = 1 << 6;
pub(crate) const ER_ABRT: u8 = 1 << 2;
pub(crate) const ER_UNC: u8 = 1 << 6;
pub(crate) const ER_IDNF: u8 = 1 << 4;

/// Commands (ACS-3).
pub(crate) mod ata {
    pub(crate) const NOP: u8 = 0x00;
    pub(crate) const DATA_SET_MANAGEMENT: u8 = 0x06;
    pub(crate) const DEVICE_RESET: u8 = 0x08;
    pub(crate) const READ_SECTORS: u8 = 0x20;
    pub(crate) const READ_SECTORS_NORETRY: u8 = 0x21;
    pub(crate) const READ_SECTORS_EXT: u8 = 0x24;
    pub(crate) const READ_DMA_EXT: u8 = 0x25;
    pub(crate) const READ_NATIVE_MAX_EXT: u8 = 0x27;
    pub(crate) const READ_MULTIPLE_EXT: u8 = 0x29;
    pub(crate) const READ_LOG_EXT: u8 = 0x2f;
    pub(crate) const WRITE_SECTORS: u8 = 0x30;
    pub(crate) const WRITE_SECTORS_NORETRY: u8 = 0x31;
    pub(crate) const WRITE_SECTORS_EXT: u8 = 0x34;
    pub(crate) const WRITE_DMA_EXT: u8 = 0x35;
    pub(crate) const WRITE_MULTIPLE_EXT: u8 = 0x39;
    pub(crate) const WRITE_DMA_FUA_EXT: u8 = 0x3d;
    pub(crate) const READ_VERIFY: u8 = 0x40;
    pub(crate) const READ_VERIFY_EXT: u8 = 0x42;
    pub(crate) const READ_LOG_DMA_EXT: u8 = 0x47;
    pub(crate) const READ_FPDMA_QUEUED: u8 = 0x60;
    pub(crate) const WRITE_FPDMA_QUEUED: u8 = 0x61;
    pub(crate) const EXECUTE_DIAGNOSTIC: u8 = 0x90;
    pub(crate) const INITIALIZE_PARAMETERS: u8 = 0x91;
    pub(crate) const PACKET: u8 = 0xa0;
    pub(crate) const IDENTIFY_PACKET: u8 = 0xa1;
    pub(crate) const READ_MULTIPLE: u8 = 0xc4;
    pub(crate) const WRITE_MULTIPLE: u8 = 0xc5;
    pub(crate) const SET_MULTIPLE: u8 = 0xc6;
    pub(crate) const READ_DMA: u8 = 0xc8;
    pub(crate) const READ_DMA_NORETRY: u8 = 0xc9;
    pub(crate) const WRITE_DMA: u8 = 0xca;
    pub(crate) const WRITE_DMA_NORETRY: u8 = 0xcb;
    pub(crate) const STANDBY_IMMEDIATE: u8 = 0xe0;
    pub(crate) const IDLE_IMMEDIATE: u8 = 0xe1;
    pub(crate) const STANDBY: u8 = 0xe2;
    pub(crate) const IDLE: u8 = 0xe3;
    pub(crate) const CHECK_POWER: u8 = 0xe5;
    pub(crate) const SLEEP: u8 = 0xe6;
    pub(crate) const FLUSH: u8 = 0xe7;
    pub(crate) const FLUSH_EXT: u8 = 0xea;
    pub(crate) const IDENTIFY: u8 = 0xec;
    pub(crate) const SET_FEATURES: u8 = 0xef;
    pub(crate) const SECURITY_FREEZE: u8 = 0xf5;
    pub(crate) const READ_NATIVE_MAX: u8 = 0xf8;
    /// Log of NCQ errors.
    pub(crate) const LOG_NCQ_ERROR: u8 = 0x10;
}
