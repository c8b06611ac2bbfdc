//! A whole board with firmware: the map changes under the guest's accesses.

#![no_main]

use std::io;
use std::sync::Arc;

use board::{EventLog, FirmwareSpec, Machine, MachineSpec, VariableStore, Variables};
use engine::Bus;
use fuzz_devices::Input;
use guest_memory::Backing;
use libfuzzer_sys::fuzz_target;
use machine_clock::TimeSource;
use x86_state::{CpuProfile, Topology};

const IMAGE_SIZE: usize = 0x2_0000;
const VARIABLES_SIZE: usize = 0x4000;
const FLASH: u64 = (1 << 32) - (IMAGE_SIZE + VARIABLES_SIZE) as u64;
/// Where something is, so that inputs need not find it.
const PLACES: [u64; 8] = [
    FLASH,
    FLASH + 0x1000,
    0xffff_0000,
    0xc_0000,
    0xe_c000,
    0xf_0000,
    0xb000_0000,
    0xfec0_0000,
];
/// Configuration, fw_cfg, PIC, power management, reset control.
const PORTS: [u16; 8] = [0xcf8, 0xcfc, 0x510, 0x511, 0x514, 0x4d0, 0x600, 0x20];
const STEPS_MAX: usize = 400;

struct Fails(bool);

impl VariableStore for Fails {
    fn change(&self, _offset: u64, _bytes: &[u8]) -> io::Result<()> {
        if self.0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

fn machine(fails: bool) -> Option<Arc<Machine>> {
    let profile = CpuProfile::portable(Topology { cores: 1 }, 2_000_000).ok()?;
    let store = Arc::new(Fails(fails));
    let firmware = FirmwareSpec {
        image: vec![0x90; IMAGE_SIZE],
        variables: Some(Variables { bytes: vec![0xff; VARIABLES_SIZE], store }),
        boot_order: Vec::new(),
        kernel: None,
        serial_console: Some(0x3f8),
    };
    let spec = MachineSpec {
        time: TimeSource::Counted,
        firmware: Some(firmware),
        ..MachineSpec::new(profile, 2 << 20)
    };
    Machine::build(spec, EventLog::new()).ok()
}

/// An access as a CPU makes it.
fn access(machine: &Machine, gpa: u64, data: &mut [u8], write: bool) {
    let found = machine.memory().view().lookup(gpa);
    let in_page = gpa & 0xfff <= 0x1000 - data.len() as u64;
    match found.filter(|_| in_page) {
        Some((at, _)) if !write => machine.memory().read(at, data),
        Some((at, Backing::Ram)) => machine.memory().write(at, data),
        _ if write => machine.mmio_write(gpa, data),
        _ => machine.mmio_read(gpa, data),
    }
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let Some(machine) = machine(input.u8() & 1 != 0) else { panic!("a good machine") };
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        let (action, place, size) = (input.u8(), input.u8(), input.access_size());
        let gpa = PLACES[usize::from(place & 7)] + u64::from(input.u16());
        let port = PORTS[usize::from(place & 7)] + u16::from(place >> 3 & 3);
        let mut bytes = input.number(size).to_le_bytes();
        match action & 7 {
            0 => access(&machine, gpa, &mut bytes[..size], false),
            1 | 2 => access(&machine, gpa, &mut bytes[..size], true),
            3 => machine.pio_read(port, &mut bytes[..size.min(4)]),
            4 => machine.pio_write(port, &bytes[..size.min(4)]),
            5 => {
                // A register of the host bridge or of the LPC bridge.
                let device = if place & 1 == 0 { 0u32 } else { 31 };
                let register = u32::from(bytes[0] & 0xfc);
                machine.pio_write(0xcf8, &(1 << 31 | device << 11 | register).to_le_bytes());
                machine.pio_write(0xcfc, &[bytes[1 % size], place, action, bytes[0]]);
            }
            6 if place & 0xf == 0 => machine.reset(),
            6 => {
                let saved = machine.save();
                assert!(machine.restore(&saved).is_ok(), "what is saved can be restored");
            }
            _ => {
                let mut saved = machine.save();
                let count = saved.len();
                let section = &mut saved[usize::from(place) % count];
                if let Some(byte) = section.section.bytes.get_mut(usize::from(bytes[0])) {
                    *byte ^= bytes[1 % size];
                }
                let _ = machine.restore(&saved);
            }
        }
    }
});
