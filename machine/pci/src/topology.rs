//! The bus, and the two ways to its configuration space.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use bus::{BusDevice, Device, Section, SectionError};
use minicbor::{Decode, Encode};
use statecodec::Saved;

use crate::Function;
use crate::spec::ECAM_FUNCTION_SIZE;

/// A device and function number on the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DevFn(u8);

impl DevFn {
    /// Device 0 to 31, function 0 to 7.
    ///
    /// # Panics
    /// When there is no such number: the board's mistake.
    pub const fn new(device: u8, function: u8) -> Self {
        assert!(device < 32 && function < 8);
        Self(device << 3 | function)
    }

    /// The device number.
    pub const fn device(self) -> u8 {
        self.0 >> 3
    }

    /// The function number.
    pub const fn function(self) -> u8 {
        self.0 & 7
    }
}

impl std::fmt::Display for DevFn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02x}.{}", self.device(), self.function())
    }
}

/// Two functions want one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("PCI function {0} is there already")]
pub struct Taken(pub DevFn);

/// Bus 0.
#[derive(Default)]
pub struct PciBus {
    functions: RwLock<BTreeMap<DevFn, Arc<Function>>>,
}

impl PciBus {
    /// An empty bus.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Plugs a function in.
    ///
    /// # Errors
    /// When the place is taken.
    pub fn add(&self, at: DevFn, function: Arc<Function>) -> Result<(), Taken> {
        let mut functions = self.functions.write().unwrap_or_else(PoisonError::into_inner);
        if functions.contains_key(&at) {
            return Err(Taken(at));
        }
        functions.insert(at, function);
        Ok(())
    }

    /// Takes a function out.
    pub fn remove(&self, at: DevFn) -> Option<Arc<Function>> {
        self.functions.write().unwrap_or_else(PoisonError::into_inner).remove(&at)
    }

    /// The functions, in order of their places. Each is a [`Device`] to save, restore and reset.
    pub fn functions(&self) -> Vec<(DevFn, Arc<Function>)> {
        let functions = self.functions.read().unwrap_or_else(PoisonError::into_inner);
        functions.iter().map(|(at, function)| (*at, function.clone())).collect()
    }

    /// The addresses of memory BARs that are mapped.
    pub fn placed_memory(&self) -> Vec<Range<u64>> {
        self.functions().iter().flat_map(|(_, function)| function.placed_memory()).collect()
    }

    fn find(&self, devfn: u8) -> Option<Arc<Function>> {
        let functions = self.functions.read().unwrap_or_else(PoisonError::into_inner);
        functions.get(&DevFn(devfn)).cloned()
    }
}

/// Memory-mapped configuration space (PCI Express 7.2.2), one bus: 1 MiB.
pub struct Ecam(Weak<PciBus>);

impl Ecam {
    /// Bytes to map.
    pub const SIZE: u64 = 256 * ECAM_FUNCTION_SIZE;

    /// Configuration space of `bus`.
    pub fn new(bus: &Arc<PciBus>) -> Arc<Self> {
        Arc::new(Self(Arc::downgrade(bus)))
    }

    fn find(&self, offset: u64) -> Option<(Arc<Function>, usize)> {
        let function = self.0.upgrade()?.find((offset / ECAM_FUNCTION_SIZE) as u8)?;
        Some((function, (offset % ECAM_FUNCTION_SIZE) as usize))
    }
}

impl BusDevice for Ecam {
    fn read(&self, offset: u64, data: &mut [u8]) {
        if let Some((function, register)) = self.find(offset) {
            function.config_read(register, data);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let Some((function, register)) = self.find(offset) {
            function.config_write(register, data);
        }
    }
}

/// Configuration mechanism 1: ports 0xcf8 to 0xcff (PCI Local Bus 3.0, 3.2.2.3.2).
///
/// Only whole words reach the address register. A byte access to 0xcf9 in the middle of it is for
/// the chipset's reset control, so that register is handed in here.
pub struct ConfigPorts {
    // Wiring.
    /// The bus's functions hold the space these ports are mapped in.
    bus: Weak<PciBus>,
    reset_control: Option<Arc<dyn BusDevice>>,
    // State.
    address: Mutex<u32>,
}

/// Bit 31 of the address: accesses to the data port are configuration cycles.
const ADDRESS_ENABLE: u32 = 1 << 31;
const ADDRESS_WRITABLE: u32 = 0x80ff_fffc;
const DATA: u64 = 4;
const RESET_CONTROL: u64 = 1;

impl ConfigPorts {
    /// First port.
    pub const BASE: u64 = 0xcf8;
    /// Number of ports.
    pub const SIZE: u64 = 8;

    /// The ports to `bus`, which the board keeps; `reset_control` answers at 0xcf9.
    pub fn new(bus: &Arc<PciBus>, reset_control: Option<Arc<dyn BusDevice>>) -> Arc<Self> {
        Arc::new(Self { bus: Arc::downgrade(bus), reset_control, address: Mutex::new(0) })
    }

    fn address(&self) -> std::sync::MutexGuard<'_, u32> {
        self.address.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The function and register behind the data port.
    fn find(&self, offset: u64) -> Option<(Arc<Function>, usize)> {
        let address = *self.address();
        let bus = address >> 16 & 0xff;
        if address & ADDRESS_ENABLE == 0 || bus != 0 {
            return None;
        }
        let function = self.bus.upgrade()?.find((address >> 8) as u8)?;
        Some((function, (address & 0xfc) as usize + (offset - DATA) as usize))
    }
}

impl BusDevice for ConfigPorts {
    fn read(&self, offset: u64, data: &mut [u8]) {
        match (offset, data.len(), &self.reset_control) {
            (0, 4, _) => data.copy_from_slice(&self.address().to_le_bytes()),
            (RESET_CONTROL, 1, Some(control)) => control.read(0, data),
            (DATA.., ..) => {
                if let Some((function, register)) = self.find(offset) {
                    function.config_read(register, data);
                }
            }
            _ => {}
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        match (offset, data, &self.reset_control) {
            (0, &[a, b, c, d], _) => {
                *self.address() = u32::from_le_bytes([a, b, c, d]) & ADDRESS_WRITABLE;
            }
            (RESET_CONTROL, [_], Some(control)) => control.write(0, data),
            (DATA.., ..) => {
                if let Some((function, register)) = self.find(offset) {
                    function.config_write(register, data);
                }
            }
            _ => {}
        }
    }
}

/// Version 1.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
struct ConfigPortsState {
    #[n(0)]
    address: u32,
}

impl Saved for ConfigPortsState {
    const KIND: &'static str = "pci-config-ports";
    const VERSION: u16 = 1;
}

impl Device for ConfigPorts {
    fn reset(&self) {
        *self.address() = 0;
    }

    fn save(&self) -> Section {
        Section::encode(&ConfigPortsState { address: *self.address() })
    }

    fn restore(&self, section: &Section) -> Result<(), SectionError> {
        let ConfigPortsState { address } = section.decode()?;
        *self.address() = address & ADDRESS_WRITABLE;
        Ok(())
    }
}
