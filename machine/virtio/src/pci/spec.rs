//! The PCI transport's layout (4.1.4). Registers of the common configuration keep the names of
//! `struct virtio_pci_common_cfg`.

/// Vendor of virtio devices.
pub(crate) const VENDOR_ID: u16 = 0x1af4;
/// Device ID: this plus the device type (4.1.2).
pub(crate) const DEVICE_ID_BASE: u16 = 0x1040;
/// Not transitional (4.1.2.1).
pub(crate) const REVISION: u8 = 1;

/// The one BAR.
pub(crate) const BAR: usize = 0;
/// Its size.
pub(crate) const BAR_SIZE: u64 = 0x8000;
/// Where the parts are in it. Each has a page, so that a guest can map them apart.
pub(crate) const COMMON: u64 = 0x0000;
pub(crate) const COMMON_SIZE: u64 = 0x3c;
pub(crate) const ISR: u64 = 0x1000;
pub(crate) const ISR_SIZE: u64 = 1;
pub(crate) const DEVICE: u64 = 0x2000;
pub(crate) const DEVICE_SIZE: u64 = 0x1000;
pub(crate) const NOTIFY: u64 = 0x3000;
pub(crate) const NOTIFY_SIZE: u64 = 0x1000;
pub(crate) const MSIX_TABLE: u64 = 0x4000;
pub(crate) const MSIX_PENDING: u64 = 0x5000;
pub(crate) const MSIX_END: u64 = 0x6000;

/// Distance of two queues' doorbells: each its own address, so that the host's kernel can tell
/// them apart without looking at the value.
pub(crate) const NOTIFY_OFF_MULTIPLIER: u32 = 4;
/// Queues whose doorbells and vectors fit in the BAR.
pub(crate) const QUEUES_MAX: usize = 128;

/// Capability types (4.1.4).
pub(crate) const CAP_COMMON: u8 = 1;
pub(crate) const CAP_NOTIFY: u8 = 2;
pub(crate) const CAP_ISR: u8 = 3;
pub(crate) const CAP_DEVICE: u8 = 4;
pub(crate) const CAP_PCI: u8 = 5;

/// Fields of a capability, from its start.
pub(crate) const CAP_BAR: usize = 4;
pub(crate) const CAP_OFFSET: usize = 8;
pub(crate) const CAP_LENGTH: usize = 12;
/// Where the window of [`CAP_PCI`] is.
pub(crate) const CAP_DATA: usize = 16;

pub(crate) const DEVICE_FEATURE_SELECT: u64 = 0x00;
pub(crate) const DEVICE_FEATURE: u64 = 0x04;
pub(crate) const DRIVER_FEATURE_SELECT: u64 = 0x08;
pub(crate) const DRIVER_FEATURE: u64 = 0x0c;
pub(crate) const CONFIG_MSIX_VECTOR: u64 = 0x10;
pub(crate) const NUM_QUEUES: u64 = 0x12;
pub(crate) const DEVICE_STATUS: u64 = 0x14;
pub(crate) const CONFIG_GENERATION: u64 = 0x15;
pub(crate) const QUEUE_SELECT: u64 = 0x16;
pub(crate) const QUEUE_SIZE: u64 = 0x18;
pub(crate) const QUEUE_MSIX_VECTOR: u64 = 0x1a;
pub(crate) const QUEUE_ENABLE: u64 = 0x1c;
pub(crate) const QUEUE_NOTIFY_OFF: u64 = 0x1e;
pub(crate) const QUEUE_DESC: u64 = 0x20;
pub(crate) const QUEUE_DRIVER: u64 = 0x28;
pub(crate) const QUEUE_DEVICE: u64 = 0x30;
pub(crate) const QUEUE_NOTIFY_DATA: u64 = 0x38;
pub(crate) const QUEUE_RESET: u64 = 0x3a;
