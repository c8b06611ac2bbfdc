//! What devices are wired to in tests.

use std::sync::{Arc, Mutex};

use bus::{BusDevice, Line, LineSink, MsiSink};
use x86_state::Msi;

use crate::{ByteSink, PageUnmapSink, PowerEvent, PowerSink, RouteSink, lock};

/// Remembers what it was told.
#[derive(Default)]
pub(crate) struct Recorder {
    levels: Mutex<Vec<(u32, bool)>>,
    msis: Mutex<Vec<Msi>>,
    bytes: Mutex<Vec<u8>>,
    power: Mutex<Vec<PowerEvent>>,
    routes: Mutex<Vec<Vec<Option<Msi>>>>,
    pages: Mutex<Vec<u64>>,
}

impl Recorder {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn line(self: &Arc<Self>, input: u32) -> Line {
        Line::new(self.clone(), input)
    }

    pub(crate) fn level(&self, input: u32) -> bool {
        lock(&self.levels).iter().rev().find(|(i, _)| *i == input).is_some_and(|(_, level)| *level)
    }

    /// Rising edges of a line, ever.
    pub(crate) fn edges(&self, input: u32) -> usize {
        let levels = lock(&self.levels);
        let mut last = false;
        let mut edges = 0;
        for (_, level) in levels.iter().filter(|(i, _)| *i == input) {
            edges += usize::from(*level && !last);
            last = *level;
        }
        edges
    }

    pub(crate) fn take_msis(&self) -> Vec<Msi> {
        std::mem::take(&mut lock(&self.msis))
    }

    pub(crate) fn take_bytes(&self) -> Vec<u8> {
        std::mem::take(&mut lock(&self.bytes))
    }

    pub(crate) fn take_power(&self) -> Vec<PowerEvent> {
        std::mem::take(&mut lock(&self.power))
    }

    pub(crate) fn take_pages(&self) -> Vec<u64> {
        std::mem::take(&mut lock(&self.pages))
    }

    pub(crate) fn take_routes(&self) -> Vec<Vec<Option<Msi>>> {
        std::mem::take(&mut lock(&self.routes))
    }
}

impl PageUnmapSink for Recorder {
    fn unmap_page(&self, gpa: u64) {
        lock(&self.pages).push(gpa);
    }
}

impl LineSink for Recorder {
    fn set_line(&self, input: u32, level: bool) {
        lock(&self.levels).push((input, level));
    }
}

impl MsiSink for Recorder {
    fn send_msi(&self, msi: Msi) {
        lock(&self.msis).push(msi);
    }
}

impl ByteSink for Recorder {
    fn put(&self, byte: u8) {
        lock(&self.bytes).push(byte);
    }
}

impl PowerSink for Recorder {
    fn power(&self, event: PowerEvent) {
        lock(&self.power).push(event);
    }
}

impl RouteSink for Recorder {
    fn set_routes(&self, routes: &[Option<Msi>]) {
        lock(&self.routes).push(routes.to_vec());
    }
}

/// Reads one byte.
pub(crate) fn inb(device: &dyn BusDevice, offset: u64) -> u8 {
    let mut data = [0xff];
    device.read(offset, &mut data);
    data[0]
}

/// Writes one byte.
pub(crate) fn outb(device: &dyn BusDevice, offset: u64, value: u8) {
    device.write(offset, &[value]);
}

/// Reads four bytes.
pub(crate) fn inl(device: &dyn BusDevice, offset: u64) -> u32 {
    let mut data = [0xff; 4];
    device.read(offset, &mut data);
    u32::from_le_bytes(data)
}

/// Writes four bytes.
pub(crate) fn outl(device: &dyn BusDevice, offset: u64, value: u32) {
    device.write(offset, &value.to_le_bytes());
}
