//! Names of 5.8 and of Linux's `input-event-codes.h`, which it follows.

/// Queues.
pub(super) const EVENTS: usize = 0;
pub(super) const STATUS: usize = 1;

/// Configuration: what is selected, its size, and its bytes.
pub(super) const SELECT: u64 = 0;
pub(super) const SUBSEL: u64 = 1;
pub(super) const SIZE: usize = 2;
pub(super) const BYTES: usize = 8;
pub(super) const CONFIG_SIZE: usize = 8 + 128;

pub(super) const CFG_ID_NAME: u8 = 0x01;
pub(super) const CFG_ID_SERIAL: u8 = 0x02;
pub(super) const CFG_ID_DEVIDS: u8 = 0x03;
pub(super) const CFG_EV_BITS: u8 = 0x11;
pub(super) const CFG_ABS_INFO: u8 = 0x12;

pub(super) const EV_SYN: u16 = 0x00;
pub(super) const EV_KEY: u16 = 0x01;
pub(super) const EV_REL: u16 = 0x02;
pub(super) const EV_ABS: u16 = 0x03;
pub(super) const EV_LED: u16 = 0x11;
pub(super) const EV_REP: u16 = 0x14;

pub(super) const REL_WHEEL: u16 = 0x08;
pub(super) const ABS_X: u16 = 0;
pub(super) const ABS_Y: u16 = 1;
pub(super) const BTN_LEFT: u16 = 0x110;
pub(super) const BTN_RIGHT: u16 = 0x111;
pub(super) const BTN_MIDDLE: u16 = 0x112;
/// Keys that keyboards have: all below this.
pub(super) const KEY_COUNT: u16 = 0x80;

/// `BUS_VIRTUAL`.
pub(super) const BUS_VIRTUAL: u16 = 0x06;
/// Bytes of an event: type, code, value.
pub(super) const EVENT_SIZE: usize = 8;

/// Linux's keys of scan codes of set 1 after 0xe0; the others have the scan code's own number.
pub(super) const EXTENDED: [(u8, u16); 23] = [
    (0x1c, 96),
    (0x1d, 97),
    (0x20, 113),
    (0x2e, 114),
    (0x30, 115),
    (0x35, 98),
    (0x37, 99),
    (0x38, 100),
    (0x46, 119),
    (0x47, 102),
    (0x48, 103),
    (0x49, 104),
    (0x4b, 105),
    (0x4d, 106),
    (0x4f, 107),
    (0x50, 108),
    (0x51, 109),
    (0x52, 110),
    (0x53, 111),
    (0x5b, 125),
    (0x5c, 126),
    (0x5d, 127),
    (0x5e, 116),
];
