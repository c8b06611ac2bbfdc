//! Addresses to devices.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use rangemap::{RangeError, RangeMap};

use crate::BusDevice;

type Devices = RangeMap<Arc<dyn BusDevice>>;

/// Port or MMIO space.
///
/// *Lock*: the table's lock is never held while a device is called, so a device may remap itself
/// (a PCI BAR) from inside an access.
#[derive(Default)]
pub struct AddressSpace {
    devices: RwLock<Arc<Devices>>,
    unclaimed: AtomicU64,
}

impl AddressSpace {
    /// An empty space.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Maps `device` over `size` bytes from `base`.
    ///
    /// # Errors
    /// When the range is empty, wraps or overlaps another.
    pub fn map(&self, base: u64, size: u64, device: Arc<dyn BusDevice>) -> Result<(), RangeError> {
        self.change(|devices| devices.insert(base, size, device))
    }

    /// Takes away what is mapped at exactly `base`.
    pub fn unmap(&self, base: u64) -> Option<Arc<dyn BusDevice>> {
        self.change(|devices| devices.remove(base))
    }

    /// Reads; all ones where no device is, or where the access runs past its end.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        data.fill(0xff);
        match self.find(address, data.len()) {
            Some((offset, device)) => device.read(offset, data),
            None => self.count_unclaimed(),
        }
    }

    /// Writes; ignored where no device is, or where the access runs past its end.
    pub fn write(&self, address: u64, data: &[u8]) {
        match self.find(address, data.len()) {
            Some((offset, device)) => device.write(offset, data),
            None => self.count_unclaimed(),
        }
    }

    /// Accesses nobody claimed.
    pub fn unclaimed(&self) -> u64 {
        self.unclaimed.load(Ordering::Relaxed)
    }

    fn find(&self, address: u64, size: usize) -> Option<(u64, Arc<dyn BusDevice>)> {
        let devices = self.devices.read().unwrap_or_else(PoisonError::into_inner);
        let (base, device) = devices.get_all(address, size as u64)?;
        Some((address - base, device.clone()))
    }

    fn count_unclaimed(&self) {
        self.unclaimed.fetch_add(1, Ordering::Relaxed);
    }

    fn change<R>(&self, edit: impl FnOnce(&mut Devices) -> R) -> R {
        let mut devices = self.devices.write().unwrap_or_else(PoisonError::into_inner);
        edit(Arc::make_mut(&mut devices))
    }
}

/// A device's place in a space, which it can change: a PCI BAR, say. Dropping it unmaps.
pub struct Mapping {
    space: Arc<AddressSpace>,
    size: u64,
    device: Arc<dyn BusDevice>,
    base: Option<u64>,
}

impl Mapping {
    /// `size` bytes of `device` in `space`, mapped nowhere yet.
    pub fn new(space: Arc<AddressSpace>, size: u64, device: Arc<dyn BusDevice>) -> Self {
        Self { space, size, device, base: None }
    }

    /// Moves the mapping to `base`, or takes it away. Where it would overlap another device, it
    /// is mapped nowhere: the guest has made a mistake, and the first device stays.
    pub fn place(&mut self, base: Option<u64>) {
        if base == self.base {
            return;
        }
        if let Some(old) = self.base.take() {
            self.space.unmap(old);
        }
        self.base = base.filter(|at| self.space.map(*at, self.size, self.device.clone()).is_ok());
    }

    /// Where it is mapped.
    pub fn base(&self) -> Option<u64> {
        self.base
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.place(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads as the offset.
    struct Echo;

    impl BusDevice for Echo {
        fn read(&self, offset: u64, data: &mut [u8]) {
            data[0] = offset as u8;
        }
        fn write(&self, _offset: u64, _data: &[u8]) {}
    }

    fn read(space: &AddressSpace, address: u64) -> u8 {
        let mut data = [0];
        space.read(address, &mut data);
        data[0]
    }

    #[test]
    fn unclaimed_accesses_read_ones_and_are_counted() {
        let space = AddressSpace::new();
        space.map(0x10, 4, Arc::new(Echo)).unwrap();
        assert_eq!(read(&space, 0x12), 2);
        assert_eq!(read(&space, 0x14), 0xff);
        let mut across = [0; 4];
        space.read(0x12, &mut across);
        assert_eq!(across, [0xff; 4]);
        space.write(0x100, &[0]);
        assert_eq!(space.unclaimed(), 3);
    }

    #[test]
    fn a_mapping_moves_and_gives_way_to_the_first_device() {
        let space = AddressSpace::new();
        space.map(0x100, 0x10, Arc::new(Echo)).unwrap();
        let mut mapping = Mapping::new(space.clone(), 0x10, Arc::new(Echo));
        mapping.place(Some(0x200));
        assert_eq!(read(&space, 0x205), 5);
        mapping.place(Some(0x300));
        assert_eq!((read(&space, 0x205), read(&space, 0x306)), (0xff, 6));
        mapping.place(Some(0x10f));
        assert_eq!(mapping.base(), None);
        assert_eq!(read(&space, 0x10f), 0xf);
        drop(mapping);
        assert_eq!(read(&space, 0x306), 0xff);
    }
}
