//! Configuration space, BARs and MSI-X, by ports, ECAM and memory.

#![no_main]

use std::sync::Arc;

use bus::{AddressSpace, BusDevice, Device, LineSink, NoMsi};
use fuzz_devices::Input;
use libfuzzer_sys::fuzz_target;
use pci::{
    Bar, BarKind, Capability, ConfigPorts, DevFn, Function, FunctionSpec, Identity, Inert, Msix,
    MsixBar, MsixPlace, PciBus, PirqRouter, Spaces, host_bridge, lpc_bridge,
};

const ECAM: u64 = 0xe000_0000;

fn function(spaces: &Spaces) -> Arc<Function> {
    let msix = Msix::new(70, Arc::new(NoMsi));
    let bar = |index, kind, size_bytes| Bar {
        index,
        kind,
        size_bytes,
        device: Arc::new(MsixBar(msix.clone(), 0x800)),
    };
    let spec = FunctionSpec {
        identity: Identity { vendor_id: 1, device_id: 2, ..Identity::default() },
        bars: vec![
            bar(0, BarKind::Io, 4),
            bar(1, BarKind::Memory32, 0x1000),
            bar(2, BarKind::Memory64, 1 << 40),
            bar(4, BarKind::Memory64Prefetchable, 16),
        ],
        capabilities: vec![Capability {
            id: pci::spec::CAPABILITY_VENDOR,
            body: vec![0; 14],
            writable: vec![0xff; 14],
            window: Some(12),
        }],
        msix: Some(MsixPlace { msix: msix.clone(), bar: 1, table: 0, pending: 0x800 }),
        ..FunctionSpec::default()
    };
    Function::new(&spec, spaces, Arc::new(Inert))
}

/// Ports that the LPC bridge moves.
struct Nothing;

impl BusDevice for Nothing {
    fn read(&self, _offset: u64, _data: &mut [u8]) {}
    fn write(&self, _offset: u64, _data: &[u8]) {}
}

/// Where PIRQs lead.
struct NoInputs;

impl LineSink for NoInputs {
    fn set_line(&self, _input: u32, _level: bool) {}
}

fuzz_target!(|data: &[u8]| {
    let spaces = Spaces { memory: AddressSpace::new(), io: AddressSpace::new() };
    let bus = PciBus::new();
    let pirqs = PirqRouter::new(Arc::new(NoInputs), 16);
    let added = [
        bus.add(DevFn::new(0, 0), host_bridge(&bus, spaces.memory.clone(), Some(ECAM), None)),
        bus.add(DevFn::new(1, 0), function(&spaces)),
        bus.add(DevFn::new(1, 7), function(&spaces)),
        bus.add(DevFn::new(31, 0), lpc_bridge(&spaces, Arc::new(Nothing), Some(0x600), pirqs)),
    ];
    assert!(added.iter().all(Result::is_ok));
    let ports = ConfigPorts::new(&bus, None);
    spaces.io.map(ConfigPorts::BASE, ConfigPorts::SIZE, ports).unwrap();
    let mut input = Input(data);
    while !input.is_empty() {
        let (action, size) = (input.u8(), input.access_size());
        let address = match action & 3 {
            0 => ECAM | u64::from(input.u8() & 15) << 12 | u64::from(input.u8()),
            1 => input.number(8),
            _ => u64::from(input.u16()),
        };
        let devfn = [0, 8, 15, 248][usize::from(input.u8() & 3)];
        let mut bytes = [0xff; 8];
        match action >> 2 & 7 {
            0 => spaces.memory.read(address, &mut bytes[..size]),
            1 => spaces.memory.write(address, &input.number(size).to_le_bytes()[..size]),
            2 => spaces.io.read(address, &mut bytes[..size]),
            3 => spaces.io.write(address, &input.number(size).to_le_bytes()[..size]),
            4 => {
                let config = 0x8000_0000 | devfn << 8 | u32::from(input.u8() & 0xfc);
                spaces.io.write(0xcf8, &config.to_le_bytes());
                let port = 0xcfc + (address & 3);
                spaces.io.write(port, &input.number(size).to_le_bytes()[..size]);
                spaces.io.read(port, &mut bytes[..size]);
            }
            5 => {
                for (_, function) in bus.functions() {
                    let saved = function.save();
                    function.restore(&saved).expect("what was saved can be restored");
                    assert_eq!(function.save(), saved);
                }
            }
            6 => {
                for (_, function) in bus.functions() {
                    let mut saved = function.save();
                    let at = input.u16() as usize % saved.bytes.len();
                    saved.bytes[at] ^= input.u8();
                    // Refused or not, the function must go on.
                    let _ = function.restore(&saved);
                }
            }
            _ => bus.functions().iter().for_each(|(_, function)| function.reset()),
        }
    }
});
