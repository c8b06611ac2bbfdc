//! A machine with one disk controller, and a driver that does whatever the input says.

use std::sync::Arc;

use bus::{AddressSpace, Device, NoMsi};
use guest_memory::GuestMemory;
use pci::{ConfigPorts, DevFn, Function, PciBus, Spaces};
use vm_memory::{Bytes, GuestAddress};

use crate::Input;
use crate::testing;

/// Where the BAR is put first.
pub const BAR: u64 = 0xc000_0000;

/// The machine.
pub struct Rig {
    pub memory: Arc<GuestMemory>,
    pub spaces: Spaces,
    bus: Arc<PciBus>,
}

impl Default for Rig {
    fn default() -> Self {
        let spaces = Spaces { memory: AddressSpace::new(), io: AddressSpace::new() };
        Self { memory: testing::memory(), spaces, bus: PciBus::new() }
    }
}

impl Rig {
    /// Where interrupts go.
    pub fn msi() -> Arc<NoMsi> {
        Arc::new(NoMsi)
    }

    fn config(&self, register: u32, value: u32) {
        self.spaces.io.write(0xcf8, &(0x8000_0800 | register).to_le_bytes());
        self.spaces.io.write(0xcfc, &value.to_le_bytes());
    }

    /// Writes a register of the device.
    pub fn write(&self, register: u64, value: u32) {
        self.spaces.memory.write(BAR + register, &value.to_le_bytes());
    }

    /// Writes guest memory.
    pub fn fill(&self, gpa: u64, bytes: &[u8]) {
        let _ = self.memory.dma().write_slice(bytes, GuestAddress(gpa));
    }

    /// Plugs the function in and places its BAR.
    pub fn plug(&self, function: &Arc<Function>, bar: u32) {
        self.bus.add(DevFn::new(1, 0), function.clone()).unwrap();
        let ports = ConfigPorts::new(&self.bus, None);
        self.spaces.io.map(ConfigPorts::BASE, ConfigPorts::SIZE, ports).unwrap();
        self.config(0x10 + 4 * bar, BAR as u32);
        self.config(4, 6);
    }

    /// Does what the input says. State that was saved can be restored.
    pub fn drive(&self, device: &dyn Device, pause: &dyn Fn(bool), input: &mut Input<'_>) {
        while !input.is_empty() {
            match input.u8() % 16 {
                0..=5 => {
                    let register = u64::from(input.u16() & 0x3fff & !3);
                    let value = input.number(4) as u32;
                    self.write(register, value);
                }
                6..=9 => {
                    let gpa = u64::from(input.u16()) << 3;
                    let count = usize::from(input.u8());
                    let bytes = input.bytes(count).to_vec();
                    self.fill(gpa, &bytes);
                }
                10 | 11 => {
                    let at = u64::from(input.u16() & 0x3fff);
                    let mut data = [0; 8];
                    let size = input.access_size();
                    self.spaces.memory.read(BAR + at, &mut data[..size]);
                }
                12 => {
                    let register = u32::from(input.u8()) & !3;
                    let value = input.number(4) as u32;
                    self.config(register, value);
                }
                13 => {
                    pause(true);
                    let saved = device.save();
                    device.restore(&saved).expect("what was saved can be restored");
                    assert_eq!(device.save(), saved);
                    pause(false);
                }
                14 => device.reset(),
                _ => {
                    pause(true);
                    pause(false);
                }
            }
        }
    }
}
