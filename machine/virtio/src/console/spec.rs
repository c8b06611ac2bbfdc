//! Console device (5.3).

/// `cols` and `rows` are valid.
pub(super) const F_SIZE: u64 = 1 << 0;
/// `emerg_wr` can be written.
pub(super) const F_EMERG_WRITE: u64 = 1 << 2;

/// Device configuration (5.3.4): offsets of `struct virtio_console_config`.
pub(super) const COLS: usize = 0;
pub(super) const ROWS: usize = 2;
pub(super) const MAX_NR_PORTS: usize = 4;
pub(super) const EMERG_WR: usize = 8;
pub(super) const CONFIG_SIZE: usize = 12;

/// Queues of port 0.
pub(super) const RECEIVE: usize = 0;
pub(super) const TRANSMIT: usize = 1;
