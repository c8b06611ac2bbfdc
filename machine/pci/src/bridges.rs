//! The chipset functions firmware and Linux look for: a Q35's host bridge and LPC bridge (Intel
//! 3 Series and ICH9 datasheets), with the registers firmware reads back.

use std::sync::{Arc, Mutex, PoisonError};

use bus::{AddressSpace, BusDevice, Mapping};

use crate::function::{Function, FunctionDevice, FunctionSpec, Identity, Register};
use crate::pirq::{PIRQS, PirqRouter, ROUTE_OFF};
use crate::registers::ConfigBytes;
use crate::{Ecam, PciBus, Spaces};

const INTEL: u16 = 0x8086;
/// Subsystem of QEMU's machines: firmware does not look, but lspci does.
const SUBSYSTEM_VENDOR: u16 = 0x1af4;
const SUBSYSTEM: u16 = 0x1100;

/// Host bridge: base and enable of ECAM.
const PCIEXBAR: usize = 0x60;
const PCIEXBAR_ENABLE: u64 = 1;
/// 256 MiB-aligned; the two length bits are kept but one bus is all there is.
const PCIEXBAR_WRITABLE: u64 = 0x0000_007f_f000_0007;
const PCIEXBAR_BASE: u64 = 0x0000_007f_f000_0000;
/// Host bridge: programmable attribute map, seven registers.
const PAM0: usize = 0x90;
const PAM_WRITABLE: [u8; 7] = [0x30, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33];

/// LPC: base and enable of the power-management ports.
const PMBASE: usize = 0x40;
const PMBASE_MASK: u16 = 0xff80;
const PM_SIZE: u64 = 0x80;
const ACPI_CNTL: usize = 0x44;
const ACPI_ENABLE: u8 = 1 << 7;
/// LPC: base and enable of the root complex's registers, of which there are none.
const RCBA: usize = 0xf0;
/// LPC: interrupt routing of PIRQ A to D and E to H.
const PIRQ: [usize; 2] = [0x60, 0x68];

/// What reads and writes of a segment below 1 MiB reach (3 Series datasheet, 5.1.10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Reads reach RAM, and not what is on the bus.
    pub reads_ram: bool,
    /// Writes do.
    pub writes_ram: bool,
}

/// A segment with attributes of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// The first address.
    pub base: u64,
    /// How many.
    pub size: u64,
    /// What accesses reach.
    pub attributes: Attributes,
}

/// The memory map, as seen from the host bridge. Called under its lock.
pub trait AttributeSink: Send + Sync {
    /// The 13 segments from 0xc0000 to 1 MiB, in this order, are now so.
    fn set_attributes(&self, segments: &[Segment]);
}

/// Moves ECAM as PCIEXBAR says, and tells what the attribute map says.
struct HostBridge {
    ecam: Mutex<Mapping>,
    attributes: Option<Arc<dyn AttributeSink>>,
}

impl HostBridge {
    fn place(&self, pciexbar: u64) {
        let base = (pciexbar & PCIEXBAR_ENABLE != 0).then_some(pciexbar & PCIEXBAR_BASE);
        self.ecam.lock().unwrap_or_else(PoisonError::into_inner).place(base);
    }
}

impl FunctionDevice for HostBridge {
    fn written(&self, config: &ConfigBytes) {
        let mut value = [0; 8];
        value.copy_from_slice(&config[PCIEXBAR..PCIEXBAR + 8]);
        self.place(u64::from_le_bytes(value));
        if let Some(sink) = &self.attributes {
            sink.set_attributes(&segments(&config[PAM0..PAM0 + 7]));
        }
    }
}

/// PAM0's upper half is the BIOS's 64 KiB; the others' halves are 16 KiB each.
fn segments(pam: &[u8]) -> Vec<Segment> {
    let segment = |base, size, bits: u8| Segment {
        base,
        size,
        attributes: Attributes { reads_ram: bits & 1 != 0, writes_ram: bits & 2 != 0 },
    };
    let halves = pam[1..].iter().flat_map(|register| [register & 3, register >> 4 & 3]);
    let bases = (0xc_0000..).step_by(0x4000);
    let mut all: Vec<_> =
        bases.zip(halves).map(|(base, bits)| segment(base, 0x4000, bits)).collect();
    all.push(segment(0xf_0000, 0x1_0000, pam[0] >> 4));
    all
}

/// The host bridge (8086:29c0), for device 0. It maps ECAM of `bus` at `ecam_base` after reset
/// (a multiple of 256 MiB; `None` leaves it to firmware), and wherever firmware moves it. Without a
/// sink, all memory below 1 MiB stays as it is.
pub fn host_bridge(
    bus: &Arc<PciBus>,
    memory: Arc<AddressSpace>,
    ecam_base: Option<u64>,
    attributes: Option<Arc<dyn AttributeSink>>,
) -> Arc<Function> {
    let pciexbar = ecam_base.map_or(0, |base| {
        assert_eq!(base & !PCIEXBAR_BASE, 0, "ECAM at {base:#x}");
        base | PCIEXBAR_ENABLE
    });
    let ecam = Mapping::new(memory.clone(), Ecam::SIZE, Ecam::new(bus));
    let device = Arc::new(HostBridge { ecam: Mutex::new(ecam), attributes });
    device.place(pciexbar);
    let register = |offset, value: &[u8], writable: &[u8]| Register {
        offset,
        value: value.into(),
        writable: writable.into(),
    };
    let spec = FunctionSpec {
        identity: chipset(0x29c0, 0x06_0000),
        registers: vec![
            register(PCIEXBAR, &pciexbar.to_le_bytes(), &PCIEXBAR_WRITABLE.to_le_bytes()),
            register(PAM0, &[0; 7], &PAM_WRITABLE),
        ],
        ..FunctionSpec::default()
    };
    Function::new(&spec, &Spaces { memory: memory.clone(), io: memory }, device)
}

/// Where a host bridge has ECAM, as firmware has left it.
pub fn ecam_base(host_bridge: &Function) -> Option<u64> {
    let mut data = [0; 8];
    host_bridge.config_read(PCIEXBAR, &mut data);
    let pciexbar = u64::from_le_bytes(data);
    (pciexbar & PCIEXBAR_ENABLE != 0).then_some(pciexbar & PCIEXBAR_BASE)
}

/// Moves the power-management ports as PMBASE and ACPI_CNTL say, and routes PIRQs.
struct LpcBridge {
    pm: Mutex<Mapping>,
    pirqs: Arc<PirqRouter>,
}

impl LpcBridge {
    fn place(&self, base: Option<u16>) {
        let base = base.map(u64::from);
        self.pm.lock().unwrap_or_else(PoisonError::into_inner).place(base);
    }
}

impl FunctionDevice for LpcBridge {
    fn written(&self, config: &ConfigBytes) {
        let base = u16::from_le_bytes([config[PMBASE], config[PMBASE + 1]]) & PMBASE_MASK;
        let enabled = config[ACPI_CNTL] & ACPI_ENABLE != 0 && base != 0;
        self.place(enabled.then_some(base));
        let mut routes = [ROUTE_OFF; PIRQS];
        for (routes, at) in routes.chunks_mut(4).zip(PIRQ) {
            routes.copy_from_slice(&config[at..at + 4]);
        }
        self.pirqs.set_routes(routes);
    }
}

/// The LPC bridge (8086:2918), for device 31. `pm` answers at the power-management ports: at
/// `pm_base` after reset (`None` leaves it to firmware), and wherever firmware moves them; `pirqs`
/// are routed as its registers say.
pub fn lpc_bridge(
    spaces: &Spaces,
    pm: Arc<dyn BusDevice>,
    pm_base: Option<u16>,
    pirqs: Arc<PirqRouter>,
) -> Arc<Function> {
    let enable = if pm_base.is_some() { ACPI_ENABLE } else { 0 };
    let mut registers = vec![
        Register {
            offset: PMBASE,
            value: u32::from(pm_base.unwrap_or(0) | 1).to_le_bytes().into(),
            writable: u32::from(PMBASE_MASK).to_le_bytes().into(),
        },
        Register { offset: ACPI_CNTL, value: vec![enable], writable: vec![0x87] },
        Register { offset: RCBA, value: vec![0; 4], writable: vec![1, 0xc0, 0xff, 0xff] },
    ];
    registers.extend(PIRQ.map(|offset| Register {
        offset,
        value: vec![ROUTE_OFF; 4],
        writable: vec![0x8f; 4],
    }));
    let spec =
        FunctionSpec { identity: chipset(0x2918, 0x06_0100), registers, ..FunctionSpec::default() };
    let pm = Mutex::new(Mapping::new(spaces.io.clone(), PM_SIZE, pm));
    let device = Arc::new(LpcBridge { pm, pirqs });
    device.place(pm_base);
    Function::new(&spec, spaces, device)
}

/// Where an LPC bridge has the power-management ports, as firmware has left them.
pub fn pm_base(lpc_bridge: &Function) -> Option<u16> {
    let (mut base, mut control) = ([0; 2], [0; 1]);
    lpc_bridge.config_read(PMBASE, &mut base);
    lpc_bridge.config_read(ACPI_CNTL, &mut control);
    let base = u16::from_le_bytes(base) & PMBASE_MASK;
    (control[0] & ACPI_ENABLE != 0 && base != 0).then_some(base)
}

fn chipset(device_id: u16, class: u32) -> Identity {
    Identity {
        vendor_id: INTEL,
        device_id,
        class,
        revision: 2,
        subsystem_vendor_id: SUBSYSTEM_VENDOR,
        subsystem_id: SUBSYSTEM,
    }
}
