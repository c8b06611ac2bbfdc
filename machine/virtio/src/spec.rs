//! What all devices share (2.1, 2.7, 6).

/// Device status (2.1).
pub mod status {
    /// The guest has found the device.
    pub const ACKNOWLEDGE: u8 = 1;
    /// It has a driver.
    pub const DRIVER: u8 = 2;
    /// The driver is ready.
    pub const DRIVER_OK: u8 = 4;
    /// The features are agreed on.
    pub const FEATURES_OK: u8 = 8;
    /// The device cannot go on.
    pub const DEVICE_NEEDS_RESET: u8 = 64;
    /// The guest has given up.
    pub const FAILED: u8 = 128;
}

/// Features of the ring and the transport (6).
pub mod features {
    /// Descriptors may be in a table of their own.
    pub const INDIRECT_DESC: u64 = 1 << 28;
    /// Both sides say when they want to be told.
    pub const EVENT_IDX: u64 = 1 << 29;
    /// Not a legacy device.
    pub const VERSION_1: u64 = 1 << 32;
    /// Queues can be reset one by one.
    pub const RING_RESET: u64 = 1 << 40;
    /// What the transport offers for every device.
    pub const TRANSPORT: u64 = INDIRECT_DESC | EVENT_IDX | VERSION_1 | RING_RESET;
}

/// No MSI-X vector (4.1.5.1.2).
pub const NO_VECTOR: u16 = 0xffff;

/// Most descriptors of one request. Drivers keep to a device's own limit (`seg_max` and the
/// like), and to the queue's size; an indirect table of 65535 would be work without end.
pub const CHAIN_MAX: usize = 1024;
