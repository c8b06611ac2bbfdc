//! The chipset functions firmware and Linux look for: a Q35's host bridge and LPC bridge (Intel
//! 3 Series and ICH9 datasheets), with the registers firmware reads back.

use std::sync::{Arc, Mutex, PoisonError};

use bus::{AddressSpace, Mapping};

use crate::function::{Function, FunctionDevice, FunctionSpec, Identity, Inert, Register};
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
/// Host bridge: programmable attribute map, seven registers, and SMRAM control.
const PAM0: usize = 0x90;
const PAM_WRITABLE: [u8; 7] = [0x30, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33];

/// LPC: base and enable of the power-management ports.
const PMBASE: usize = 0x40;
const ACPI_CNTL: usize = 0x44;
const ACPI_ENABLE: u8 = 1 << 7;
/// LPC: interrupt routing of PIRQ A to D and E to H; bit 7 is "not routed".
const PIRQ: [usize; 2] = [0x60, 0x68];

/// Moves ECAM as PCIEXBAR says.
struct HostBridge {
    ecam: Mutex<Mapping>,
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
    }
}

/// The host bridge (8086:29c0), for device 0. It maps ECAM of `bus` at `ecam_base` after reset
/// (a multiple of 256 MiB; `None` leaves it to firmware), and wherever firmware moves it.
pub fn host_bridge(
    bus: &Arc<PciBus>,
    memory: Arc<AddressSpace>,
    ecam_base: Option<u64>,
) -> Arc<Function> {
    let pciexbar = ecam_base.map_or(0, |base| {
        assert_eq!(base & !PCIEXBAR_BASE, 0, "ECAM at {base:#x}");
        base | PCIEXBAR_ENABLE
    });
    let ecam = Mapping::new(memory.clone(), Ecam::SIZE, Ecam::new(bus));
    let device = Arc::new(HostBridge { ecam: Mutex::new(ecam) });
    device.place(pciexbar);
    let spec = FunctionSpec {
        identity: chipset(0x29c0, 0x06_0000),
        registers: vec![
            Register {
                offset: PCIEXBAR,
                value: pciexbar.to_le_bytes().into(),
                writable: PCIEXBAR_WRITABLE.to_le_bytes().into(),
            },
            Register { offset: PAM0, value: vec![0; 7], writable: PAM_WRITABLE.into() },
        ],
        ..FunctionSpec::default()
    };
    Function::new(&spec, &Spaces { memory: memory.clone(), io: memory }, device)
}

/// The LPC bridge (8086:2918), for device 31. `pm_base` is where the power-management ports are;
/// the register says so and does not move them.
pub fn lpc_bridge(spaces: &Spaces, pm_base: u16) -> Arc<Function> {
    let mut registers = vec![
        Register {
            offset: PMBASE,
            value: u32::from(pm_base | 1).to_le_bytes().into(),
            writable: vec![0; 4],
        },
        Register { offset: ACPI_CNTL, value: vec![ACPI_ENABLE], writable: vec![0x87] },
    ];
    registers.extend(PIRQ.map(|offset| Register {
        offset,
        value: vec![0x80; 4],
        writable: vec![0x8f; 4],
    }));
    let spec =
        FunctionSpec { identity: chipset(0x2918, 0x06_0100), registers, ..FunctionSpec::default() };
    Function::new(&spec, spaces, Arc::new(Inert))
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
