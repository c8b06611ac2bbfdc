//! Registers (section 13) and descriptors (3.2, 3.3), by their names there.

/// Bytes of the memory BAR, and of the I/O BAR (4.1).
pub(crate) const MEMORY_SIZE: u64 = 0x2_0000;
pub(crate) const IO_SIZE: u64 = 8;
pub(crate) const IOADDR: u64 = 0;
pub(crate) const IODATA: u64 = 4;
/// Registers end here.
pub(crate) const REGISTERS_END: u64 = 0x5900;

pub(crate) const CTRL: u64 = 0x0000;
pub(crate) const STATUS: u64 = 0x0008;
pub(crate) const EECD: u64 = 0x0010;
pub(crate) const EERD: u64 = 0x0014;
pub(crate) const CTRL_EXT: u64 = 0x0018;
pub(crate) const MDIC: u64 = 0x0020;
pub(crate) const FCAL: u64 = 0x0028;
pub(crate) const FCAH: u64 = 0x002c;
pub(crate) const FCT: u64 = 0x0030;
pub(crate) const VET: u64 = 0x0038;
pub(crate) const ICR: u64 = 0x00c0;
pub(crate) const ITR: u64 = 0x00c4;
pub(crate) const ICS: u64 = 0x00c8;
pub(crate) const IMS: u64 = 0x00d0;
pub(crate) const IMC: u64 = 0x00d8;
pub(crate) const RCTL: u64 = 0x0100;
pub(crate) const FCTTV: u64 = 0x0170;
pub(crate) const TXCW: u64 = 0x0178;
pub(crate) const TCTL: u64 = 0x0400;
pub(crate) const TIPG: u64 = 0x0410;
pub(crate) const AIT: u64 = 0x0458;
pub(crate) const LEDCTL: u64 = 0x0e00;
pub(crate) const PBA: u64 = 0x1000;
pub(crate) const FCRTL: u64 = 0x2160;
pub(crate) const FCRTH: u64 = 0x2168;
/// The rings: five registers, at the same distances.
pub(crate) const RX_RING: u64 = 0x2800;
pub(crate) const TX_RING: u64 = 0x3800;
pub(crate) const BAL: u64 = 0x00;
pub(crate) const BAH: u64 = 0x04;
pub(crate) const LEN: u64 = 0x08;
pub(crate) const HEAD: u64 = 0x10;
pub(crate) const TAIL: u64 = 0x18;
pub(crate) const RDT: u64 = RX_RING + TAIL;
pub(crate) const TDT: u64 = TX_RING + TAIL;
pub(crate) const RDTR: u64 = 0x2820;
pub(crate) const RXDCTL: u64 = 0x2828;
pub(crate) const RADV: u64 = 0x282c;
pub(crate) const RSRPD: u64 = 0x2c00;
pub(crate) const TXDMAC: u64 = 0x3000;
pub(crate) const TIDV: u64 = 0x3820;
pub(crate) const TXDCTL: u64 = 0x3828;
pub(crate) const TADV: u64 = 0x382c;
pub(crate) const TSPMT: u64 = 0x3830;
/// Statistics; reading one clears it (13.7).
pub(crate) const STATISTICS: u64 = 0x4000;
pub(crate) const STATISTICS_END: u64 = 0x4100;
pub(crate) const MPC: u64 = 0x4010;
pub(crate) const GPRC: u64 = 0x4074;
pub(crate) const BPRC: u64 = 0x4078;
pub(crate) const MPRC: u64 = 0x407c;
pub(crate) const GPTC: u64 = 0x4080;
pub(crate) const GORCL: u64 = 0x4088;
pub(crate) const GOTCL: u64 = 0x4090;
pub(crate) const ROC: u64 = 0x40ac;
pub(crate) const TORL: u64 = 0x40c0;
pub(crate) const TOTL: u64 = 0x40c8;
pub(crate) const TPR: u64 = 0x40d0;
pub(crate) const TPT: u64 = 0x40d4;
pub(crate) const RXCSUM: u64 = 0x5000;
/// Multicast table, receive addresses and VLAN filter, with their sizes in bytes.
pub(crate) const MTA: u64 = 0x5200;
pub(crate) const MTA_END: u64 = 0x5400;
pub(crate) const RA: u64 = 0x5400;
pub(crate) const RA_END: u64 = 0x5480;
pub(crate) const VFTA: u64 = 0x5600;
pub(crate) const VFTA_END: u64 = 0x5800;
pub(crate) const WUC: u64 = 0x5800;
pub(crate) const WUFC: u64 = 0x5808;
pub(crate) const MANC: u64 = 0x5820;

pub(crate) const CTRL_FD: u32 = 1 << 0;
pub(crate) const CTRL_SLU: u32 = 1 << 6;
pub(crate) const CTRL_SPEED_1000: u32 = 2 << 8;
pub(crate) const CTRL_RST: u32 = 1 << 26;
pub(crate) const CTRL_VME: u32 = 1 << 30;
pub(crate) const CTRL_PHY_RST: u32 = 1 << 31;

pub(crate) const STATUS_FD: u32 = 1 << 0;
pub(crate) const STATUS_LU: u32 = 1 << 1;
pub(crate) const STATUS_SPEED_1000: u32 = 2 << 6;

pub(crate) const EECD_SK: u32 = 1 << 0;
pub(crate) const EECD_CS: u32 = 1 << 1;
pub(crate) const EECD_DI: u32 = 1 << 2;
pub(crate) const EECD_DO: u32 = 1 << 3;
/// What a driver can write of EECD: pins, write enable, request.
pub(crate) const EECD_WRITABLE: u32 = 0x77;
pub(crate) const EECD_REQ: u32 = 1 << 6;
pub(crate) const EECD_GNT: u32 = 1 << 7;
pub(crate) const EECD_PRES: u32 = 1 << 8;

pub(crate) const EERD_START: u32 = 1 << 0;
pub(crate) const EERD_DONE: u32 = 1 << 4;

pub(crate) const MDIC_WRITE: u32 = 1 << 26;
pub(crate) const MDIC_READ: u32 = 2 << 26;
pub(crate) const MDIC_OP: u32 = 3 << 26;
pub(crate) const MDIC_R: u32 = 1 << 28;
pub(crate) const MDIC_I: u32 = 1 << 29;
pub(crate) const MDIC_E: u32 = 1 << 30;

/// Causes of interrupts (13.4.17).
pub(crate) const TXDW: u32 = 1 << 0;
pub(crate) const TXQE: u32 = 1 << 1;
pub(crate) const LSC: u32 = 1 << 2;
pub(crate) const RXDMT0: u32 = 1 << 4;
pub(crate) const RXT0: u32 = 1 << 7;
pub(crate) const MDAC: u32 = 1 << 9;
pub(crate) const CAUSES: u32 = 0x1_ffff;

pub(crate) const RCTL_EN: u32 = 1 << 1;
pub(crate) const RCTL_UPE: u32 = 1 << 3;
pub(crate) const RCTL_MPE: u32 = 1 << 4;
pub(crate) const RCTL_LPE: u32 = 1 << 5;
pub(crate) const RCTL_BAM: u32 = 1 << 15;
pub(crate) const RCTL_VFE: u32 = 1 << 18;
pub(crate) const RCTL_BSEX: u32 = 1 << 25;
pub(crate) const RCTL_SECRC: u32 = 1 << 26;

pub(crate) const TCTL_EN: u32 = 1 << 1;

pub(crate) const RXCSUM_IPOFLD: u32 = 1 << 8;
pub(crate) const RXCSUM_TUOFLD: u32 = 1 << 9;

/// A receive address is in use.
pub(crate) const RAH_AV: u32 = 1 << 31;

/// Bytes of a descriptor.
pub(crate) const DESCRIPTOR_SIZE: u64 = 16;

/// Commands of transmit descriptors.
pub(crate) const CMD_EOP: u8 = 1 << 0;
/// In legacy descriptors: insert a checksum. In others: cut the packet.
pub(crate) const CMD_IC: u8 = 1 << 2;
pub(crate) const CMD_TSE: u8 = 1 << 2;
pub(crate) const CMD_RS: u8 = 1 << 3;
pub(crate) const CMD_DEXT: u8 = 1 << 5;
pub(crate) const CMD_VLE: u8 = 1 << 6;
/// Of contexts: it is for TCP, and over IPv4.
pub(crate) const TUCMD_TCP: u8 = 1 << 0;
pub(crate) const TUCMD_IP: u8 = 1 << 1;
pub(crate) const DTYP_DATA: u32 = 1;
pub(crate) const POPTS_IXSM: u8 = 1 << 0;
pub(crate) const POPTS_TXSM: u8 = 1 << 1;
/// Descriptor done, in either ring.
pub(crate) const STA_DD: u8 = 1 << 0;
/// Of received frames.
pub(crate) const STA_EOP: u8 = 1 << 1;
pub(crate) const STA_IXSM: u8 = 1 << 2;
pub(crate) const STA_VP: u8 = 1 << 3;
pub(crate) const STA_TCPCS: u8 = 1 << 5;
pub(crate) const STA_IPCS: u8 = 1 << 6;
pub(crate) const ERR_TCPE: u8 = 1 << 5;
pub(crate) const ERR_IPE: u8 = 1 << 6;

/// A frame without its check sequence: the shortest on a wire, the longest, with a VLAN tag, and the
/// longest with RCTL.LPE.
pub(crate) const FRAME_SHORTEST: usize = 60;
pub(crate) const FRAME_LONGEST: usize = 1518;
pub(crate) const FRAME_LONGEST_LPE: usize = 16384 - 4;
