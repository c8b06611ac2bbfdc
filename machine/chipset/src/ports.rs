//! Devices that answer at several port ranges.

use std::sync::Arc;

use bus::{AddressSpace, BusDevice};
use rangemap::RangeError;

/// A range of ports where a device answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// The first port.
    pub base: u64,
    /// How many.
    pub size: u64,
    /// The device's offset of the first port.
    pub offset: u64,
}

/// One range of a device, seen from the bus.
struct Window<D> {
    device: Arc<D>,
    offset: u64,
}

impl<D: BusDevice> BusDevice for Window<D> {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.device.read(self.offset + offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.device.write(self.offset + offset, data);
    }
}

/// Maps each of the device's `ranges`.
///
/// # Errors
/// When one overlaps what is mapped already; those before it stay mapped.
pub fn map_ports<D: BusDevice + 'static>(
    space: &AddressSpace,
    device: &Arc<D>,
    ranges: &[PortRange],
) -> Result<(), RangeError> {
    ranges.iter().try_for_each(|range| {
        let window = Window { device: device.clone(), offset: range.offset };
        space.map(range.base, range.size, Arc::new(window))
    })
}

/// A read of a device that is one byte wide: the ISA bus splits it, at rising addresses.
pub(crate) fn read_bytes(offset: u64, data: &mut [u8], mut read: impl FnMut(u64) -> u8) {
    for (at, byte) in (offset..).zip(data) {
        *byte = read(at);
    }
}

/// A write to a device that is one byte wide.
pub(crate) fn write_bytes(offset: u64, data: &[u8], mut write: impl FnMut(u64, u8)) {
    for (at, byte) in (offset..).zip(data) {
        write(at, *byte);
    }
}

/// The little-endian number of an access of at most 8 bytes.
pub(crate) fn number(data: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let len = data.len().min(8);
    bytes[..len].copy_from_slice(&data[..len]);
    u64::from_le_bytes(bytes)
}

/// Answers a read with the low bytes of `value`; an access wider than it gets zeroes above.
pub(crate) fn answer(data: &mut [u8], value: u64) {
    for (i, byte) in data.iter_mut().enumerate() {
        *byte = value.to_le_bytes().get(i).copied().unwrap_or(0);
    }
}
