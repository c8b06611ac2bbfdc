//! A machine with one virtio device, and a driver for it: finds the device in configuration
//! space, negotiates, sets queues up in guest memory, rings doorbells, takes interrupts.
//!
//! Also part of the fuzz targets, which is why it names this crate from outside.

use std::sync::{Arc, Mutex};

use bus::{AddressSpace, MsiSink};
use guest_memory::{Backing, FlatRange, FlatView, GuestMemory, RamOffset};
use pci::{ConfigPorts, DevFn, PciBus, Spaces};
use virtio::spec::{features, status};
use virtio::{Dispatch, Doorbells, NoDoorbells, VirtioDevice, VirtioPci, Wiring};
use vm_memory::{Bytes, GuestAddress};
use x86_state::Msi;

/// RAM from 0 on, and as much again above the hole.
pub const RAM_SIZE: u64 = 8 << 20;
/// Where the second half of RAM begins.
pub const HIGH_RAM: u64 = 1 << 32;
/// Where the driver puts the BAR_BASE.
pub const BAR_BASE: u64 = 0xc000_0000;
/// Where the rings of queue 0 are; each queue has [`QUEUE_BYTES`].
pub const RINGS: u64 = 0x1_0000;
/// Descriptor table, available ring and used ring, a page each.
pub const QUEUE_BYTES: u64 = 0x3000;
/// Free for buffers from here on.
pub const BUFFERS: u64 = 0x10_0000;
/// Descriptors of the driver's queues.
pub const RING_SIZE: u16 = 16;

/// Descriptor flags.
pub const NEXT: u16 = 1;
/// The device writes.
pub const WRITE: u16 = 2;
/// It is a table of descriptors.
pub const INDIRECT: u16 = 4;

/// Interrupts that came.
#[derive(Default)]
pub struct Messages(Mutex<Vec<u32>>);

impl MsiSink for Messages {
    fn send_msi(&self, msi: Msi) {
        self.0.lock().unwrap().push(msi.data);
    }
}

impl Messages {
    /// Their vectors, since last asked.
    pub fn take(&self) -> Vec<u32> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// The machine, and what the driver found.
pub struct Machine {
    pub memory: Arc<GuestMemory>,
    pub spaces: Spaces,
    pub device: Arc<VirtioPci>,
    pub messages: Arc<Messages>,
    _bus: Arc<PciBus>,
    common: u64,
    pub isr: u64,
    pub config: u64,
    notify: u64,
    multiplier: u64,
    /// Where the window capability is in configuration space.
    pub window: u64,
}

/// A descriptor.
#[derive(Debug, Clone, Copy)]
pub struct Desc {
    pub gpa: u64,
    pub size: u32,
    pub flags: u16,
    pub next: u16,
}

/// One the device reads.
pub fn readable(gpa: u64, size: u32) -> Desc {
    Desc { gpa, size, flags: 0, next: 0 }
}

/// One the device writes.
pub fn writable(gpa: u64, size: u32) -> Desc {
    Desc { gpa, size, flags: WRITE, next: 0 }
}

impl Desc {
    /// As it is in a table.
    pub fn bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.gpa.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.size.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.flags.to_le_bytes());
        bytes[14..].copy_from_slice(&self.next.to_le_bytes());
        bytes
    }
}

pub fn memory() -> Arc<GuestMemory> {
    let memory = GuestMemory::new(&[("ram", 2 * RAM_SIZE)]).unwrap();
    let mut view = FlatView::new();
    for (gpa, at) in [(0, 0), (HIGH_RAM, RAM_SIZE)] {
        let range = FlatRange { gpa, size: RAM_SIZE, at: RamOffset(at), backing: Backing::Ram };
        view.insert(range).unwrap();
    }
    memory.set_view(view);
    memory
}

impl Machine {
    /// A machine whose device is served inside the doorbell write.
    pub fn new(device: Arc<dyn VirtioDevice>) -> Self {
        Self::with(device, Dispatch::Inline, Arc::new(NoDoorbells))
    }

    pub fn with(
        device: Arc<dyn VirtioDevice>,
        dispatch: Dispatch,
        doorbells: Arc<dyn Doorbells>,
    ) -> Self {
        Self::build(memory(), device, dispatch, doorbells)
    }

    /// One whose memory the device knows.
    pub fn over(memory: Arc<GuestMemory>, device: Arc<dyn VirtioDevice>) -> Self {
        Self::build(memory, device, Dispatch::Inline, Arc::new(NoDoorbells))
    }

    fn build(
        memory: Arc<GuestMemory>,
        device: Arc<dyn VirtioDevice>,
        dispatch: Dispatch,
        doorbells: Arc<dyn Doorbells>,
    ) -> Self {
        let spaces = Spaces { memory: AddressSpace::new(), io: AddressSpace::new() };
        let messages = Arc::new(Messages::default());
        let (memory_, spaces_, msi) = (memory.clone(), spaces.clone(), messages.clone());
        let wiring = Wiring { memory: memory_, spaces: spaces_, msi, dispatch, doorbells };
        let device = VirtioPci::new(device, &wiring).unwrap();
        let bus = PciBus::new();
        bus.add(DevFn::new(1, 0), device.function().clone()).unwrap();
        let ports = ConfigPorts::new(&bus, None);
        spaces.io.map(ConfigPorts::BASE, ConfigPorts::SIZE, ports).unwrap();
        let mut machine = Self {
            memory,
            spaces,
            device,
            messages,
            _bus: bus,
            common: 0,
            isr: 0,
            config: 0,
            notify: 0,
            multiplier: 0,
            window: 0,
        };
        machine.discover();
        machine
    }

    pub fn pci_read(&self, register: u64) -> u32 {
        let address = 0x8000_0800 | register as u32 & !3;
        self.spaces.io.write(0xcf8, &address.to_le_bytes());
        let mut data = [0; 4];
        self.spaces.io.read(0xcfc, &mut data);
        u32::from_le_bytes(data)
    }

    pub fn pci_write(&self, register: u64, value: u32) {
        let address = 0x8000_0800 | register as u32 & !3;
        self.spaces.io.write(0xcf8, &address.to_le_bytes());
        self.spaces.io.write(0xcfc, &value.to_le_bytes());
    }

    /// Reads the capabilities, places the BAR_BASE, turns everything on.
    fn discover(&mut self) {
        self.pci_write(0x10, BAR_BASE as u32);
        let mut at = u64::from(self.pci_read(0x34) & 0xff);
        while at != 0 {
            let head = self.pci_read(at);
            let offset = BAR_BASE + u64::from(self.pci_read(at + 8));
            match (head as u8, head >> 24) {
                (0x11, _) => self.pci_write(at, 0x8000_0000),
                (0x09, 1) => self.common = offset,
                (0x09, 2) => {
                    self.notify = offset;
                    self.multiplier = u64::from(self.pci_read(at + 16));
                }
                (0x09, 3) => self.isr = offset,
                (0x09, 4) => self.config = offset,
                (0x09, 5) => self.window = at,
                other => panic!("capability {other:x?}"),
            }
            at = u64::from(head >> 8 & 0xff);
        }
        self.pci_write(4, 6);
        // Every vector sends its own number, from 0x40 on.
        for vector in 0..8u64 {
            let entry = BAR_BASE + 0x4000 + 16 * vector;
            for (at, value) in [(0, 0xfee0_0000), (4, 0), (8, 0x40 + vector as u32), (12, 0)] {
                self.spaces.memory.write(entry + at, &u32::to_le_bytes(value));
            }
        }
    }

    pub fn read(&self, address: u64, size: usize) -> u64 {
        let mut bytes = [0; 8];
        self.spaces.memory.read(address, &mut bytes[..size]);
        u64::from_le_bytes(bytes)
    }

    pub fn write(&self, address: u64, size: usize, value: u64) {
        self.spaces.memory.write(address, &value.to_le_bytes()[..size]);
    }

    pub fn common(&self, offset: u64, size: usize) -> u64 {
        self.read(self.common + offset, size)
    }

    pub fn set_common(&self, offset: u64, size: usize, value: u64) {
        self.write(self.common + offset, size, value);
    }

    pub fn status(&self) -> u8 {
        self.common(0x14, 1) as u8
    }

    pub fn needs_reset(&self) -> bool {
        self.status() & status::DEVICE_NEEDS_RESET != 0
    }

    pub fn offered(&self) -> u64 {
        let half = |select| {
            self.set_common(0, 4, select);
            self.common(4, 4)
        };
        half(0) | half(1) << 32
    }

    pub fn accept(&self, features: u64) {
        for (select, half) in [(0, features & 0xffff_ffff), (1, features >> 32)] {
            self.set_common(8, 4, select);
            self.set_common(12, 4, half);
        }
    }

    /// Negotiates up to FEATURES_OK: what is offered and in `wanted`.
    pub fn negotiate(&self, wanted: u64) {
        self.set_common(0x14, 1, 0);
        self.set_common(0x14, 1, 3);
        self.accept(self.offered() & wanted | features::VERSION_1);
        self.set_common(0x14, 1, 11);
        assert_eq!(self.status(), 11);
    }

    pub fn enable(&self, queue: u16, size: u16) -> Queue {
        let base = RINGS + u64::from(queue) * QUEUE_BYTES;
        self.fill(base, &[0; QUEUE_BYTES as usize]);
        self.set_common(0x16, 2, queue.into());
        self.set_common(0x18, 2, size.into());
        self.set_common(0x1a, 2, u64::from(queue) + 1);
        self.set_common(0x20, 8, base);
        self.set_common(0x28, 4, base + 0x1000);
        self.set_common(0x2c, 4, 0);
        self.set_common(0x30, 8, base + 0x2000);
        self.set_common(0x1c, 2, 1);
        let doorbell = self.notify + self.common(0x1e, 2) * self.multiplier;
        Queue { base, size, doorbell, next: 0, avail: 0, used: 0 }
    }

    /// Negotiates, enables all queues, and begins.
    pub fn start(&self, wanted: u64) -> Vec<Queue> {
        self.negotiate(wanted);
        self.set_common(0x10, 2, 0);
        let queues = (0..self.common(0x12, 2)).map(|i| self.enable(i as u16, RING_SIZE)).collect();
        self.set_common(0x14, 1, 15);
        assert_eq!(self.status(), 15);
        queues
    }

    pub fn fill(&self, gpa: u64, bytes: &[u8]) {
        self.memory.dma().write_slice(bytes, GuestAddress(gpa)).unwrap();
    }

    pub fn bytes(&self, gpa: u64, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        self.memory.dma().read_slice(&mut bytes, GuestAddress(gpa)).unwrap();
        bytes
    }

    pub fn u16_at(&self, gpa: u64) -> u16 {
        self.memory.dma().read_obj(GuestAddress(gpa)).unwrap()
    }
}

/// A queue, as its driver sees it.
pub struct Queue {
    pub base: u64,
    pub size: u16,
    pub doorbell: u64,
    next: u16,
    pub avail: u16,
    used: u16,
}

impl Queue {
    /// Makes a chain of these descriptors available; returns its head.
    pub fn add(&mut self, m: &Machine, chain: &[Desc]) -> u16 {
        let head = self.next;
        for (i, desc) in chain.iter().enumerate() {
            let at = (self.next + i as u16) % self.size;
            let more = i + 1 < chain.len();
            let flags = desc.flags | if more { NEXT } else { 0 };
            self.set(m, at, Desc { flags, next: (at + 1) % self.size, ..*desc });
        }
        self.next = (self.next + chain.len() as u16) % self.size;
        self.offer(m, head);
        head
    }

    /// Writes a descriptor.
    pub fn set(&self, m: &Machine, index: u16, desc: Desc) {
        m.fill(self.base + 16 * u64::from(index), &desc.bytes());
    }

    /// Puts a head into the available ring.
    pub fn offer(&mut self, m: &Machine, head: u16) {
        let at = self.base + 0x1004 + 2 * u64::from(self.avail % self.size);
        m.fill(at, &head.to_le_bytes());
        self.avail = self.avail.wrapping_add(1);
        self.set_avail_index(m, self.avail);
    }

    pub fn set_avail_index(&self, m: &Machine, index: u16) {
        m.fill(self.base + 0x1002, &index.to_le_bytes());
    }

    /// Sets `used_event`, or without EVENT_IDX flags.
    pub fn want_interrupt_at(&self, m: &Machine, index: u16) {
        m.fill(self.base + 0x1004 + 2 * u64::from(self.size), &index.to_le_bytes());
    }

    pub fn ring(&self, m: &Machine) {
        m.write(self.doorbell, 2, 0);
    }

    /// Heads and lengths the device gave back since last asked.
    pub fn used(&mut self, m: &Machine) -> Vec<(u32, u32)> {
        let index = m.u16_at(self.base + 0x2002);
        let mut used = Vec::new();
        while self.used != index {
            let at = self.base + 0x2004 + 8 * u64::from(self.used % self.size);
            let e = m.bytes(at, 8);
            let word = |i: usize| u32::from_le_bytes([e[i], e[i + 1], e[i + 2], e[i + 3]]);
            used.push((word(0), word(4)));
            self.used = self.used.wrapping_add(1);
        }
        used
    }
}
