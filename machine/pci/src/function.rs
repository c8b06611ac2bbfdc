//! A function: configuration space, BARs, and what follows from their registers.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bus::{AddressSpace, BusDevice, Device, Line, Mapping, Section, SectionError};

use crate::registers::{ConfigBytes, Registers};
use crate::rom::Rom;
use crate::spec::*;
use crate::state::FunctionState;
use crate::{Intx, MsiVector, Msix, Pin, Spaces, msi};

/// What a function is, to drivers that look for it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Identity {
    /// Vendor.
    pub vendor_id: u16,
    /// Device.
    pub device_id: u16,
    /// Class, subclass and programming interface, in the low 24 bits.
    pub class: u32,
    /// Revision.
    pub revision: u8,
    /// Subsystem vendor.
    pub subsystem_vendor_id: u16,
    /// Subsystem.
    pub subsystem_id: u16,
}

/// What kind of addresses a BAR has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BarKind {
    /// Ports.
    Io,
    /// Memory below 4 GiB.
    Memory32,
    /// Memory anywhere; takes this register and the next.
    Memory64,
    /// The same, and reads have no side effects.
    Memory64Prefetchable,
}

/// A BAR and what is behind it.
#[derive(Clone)]
pub struct Bar {
    /// Which register: 0 to 5.
    pub index: usize,
    /// Which kind.
    pub kind: BarKind,
    /// A power of two; at least 16 for memory, 4 for ports.
    pub size_bytes: u64,
    /// What answers there.
    pub device: Arc<dyn BusDevice>,
}

/// A capability.
#[derive(Debug, Clone)]
pub struct Capability {
    /// Its ID.
    pub id: u8,
    /// What follows ID and link.
    pub body: Vec<u8>,
    /// Which bits of `body` the guest can write.
    pub writable: Vec<u8>,
    /// Bytes from this offset of the whole capability to its end are a window: see
    /// [`FunctionDevice::window_read`].
    pub window: Option<usize>,
}

impl Capability {
    /// One that cannot be written.
    pub fn read_only(id: u8, body: Vec<u8>) -> Self {
        Self { id, writable: vec![0; body.len()], body, window: None }
    }
}

/// Where a BAR shows the MSI-X table and pending bits.
#[derive(Clone)]
pub struct MsixPlace {
    /// The vectors.
    pub msix: Arc<Msix>,
    /// The BAR.
    pub bar: usize,
    /// Offset of the table; a multiple of 8.
    pub table: u32,
    /// Offset of the pending bits; a multiple of 8.
    pub pending: u32,
}

/// A device-specific register outside of capabilities.
#[derive(Debug, Clone)]
pub struct Register {
    /// Where it begins.
    pub offset: usize,
    /// Its bytes after reset.
    pub value: Vec<u8>,
    /// Which of its bits the guest can write.
    pub writable: Vec<u8>,
}

/// A function's fixed configuration.
#[derive(Clone, Default)]
pub struct FunctionSpec {
    /// Who it is.
    pub identity: Identity,
    /// Its device has other functions too; to be set on function 0.
    pub multifunction: bool,
    /// Its BARs.
    pub bars: Vec<Bar>,
    /// Its capabilities, in order, without MSI-X.
    pub capabilities: Vec<Capability>,
    /// MSI-X, if it has it. The capability is the first.
    pub msix: Option<MsixPlace>,
    /// MSI, if it has it. The capability is the first.
    pub msi: Option<Arc<MsiVector>>,
    /// Its interrupt pin, if it has one.
    pub intx: Option<Arc<Intx>>,
    /// Other registers.
    pub registers: Vec<Register>,
    /// The image in its expansion ROM, 16 MiB at most; without one it has no ROM.
    pub rom: Option<Vec<u8>>,
}

/// What is behind a function's registers.
///
/// Calls come under the function's lock, in the order of the guest's writes; they may not access
/// the function. Window accesses come without it.
pub trait FunctionDevice: Send + Sync {
    /// The BAR is now mapped at this address, or nowhere.
    fn bar_placed(&self, _bar: usize, _base: Option<u64>) {}
    /// The function may access memory and send messages, or not.
    fn bus_master_set(&self, _on: bool) {}
    /// Something was written to device-specific space, capabilities included; it is now this.
    fn written(&self, _config: &ConfigBytes) {}
    /// A read of a capability's window; `capability` is all of it, as the guest has left it.
    fn window_read(&self, _capability: &[u8], _data: &mut [u8]) {}
    /// A write to a capability's window.
    fn window_write(&self, _capability: &[u8], _data: &[u8]) {}
}

/// Nothing follows from the registers.
pub struct Inert;

impl FunctionDevice for Inert {}

/// A function on a bus.
///
/// *Locks*: the function's lock, then the address space's table, the device's locks, MSI-X.
pub struct Function {
    // Fixed configuration.
    identity: Identity,
    at_reset: Registers,
    /// Where the capability with a window is, its length, and where the window begins.
    window: Option<(usize, usize, usize)>,
    msix: Option<(usize, Arc<Msix>)>,
    msi: Option<(usize, Arc<MsiVector>)>,
    intx: Option<Arc<Intx>>,
    // Wiring.
    device: Arc<dyn FunctionDevice>,
    // State.
    state: Mutex<State>,
}

struct State {
    registers: Registers,
    bars: Vec<PlacedBar>,
    rom: Option<Mapping>,
}

struct PlacedBar {
    index: usize,
    kind: BarKind,
    size_bytes: u64,
    mapping: Mapping,
}

/// A BAR as [`crate::PciBus::assign_bars`] sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BarNeed {
    pub(crate) index: usize,
    pub(crate) kind: BarKind,
    pub(crate) size_bytes: u64,
}

impl Function {
    /// A function after power-up.
    ///
    /// # Panics
    /// When registers overlap or sizes are impossible: the board's mistake.
    pub fn new(spec: &FunctionSpec, spaces: &Spaces, device: Arc<dyn FunctionDevice>) -> Arc<Self> {
        let mut registers = header(&spec.identity, spec.multifunction);
        let mut bars = Vec::new();
        for bar in &spec.bars {
            add_bar(&mut registers, bar);
            bars.push(PlacedBar {
                index: bar.index,
                kind: bar.kind,
                size_bytes: bar.size_bytes,
                mapping: Mapping::new(space(spaces, bar), bar.size_bytes, bar.device.clone()),
            });
        }
        let rom = spec.rom.as_ref().map(|image| {
            let rom = Rom::new(image.clone());
            let size = rom.size_bytes();
            assert!(size <= ROM_SIZE_MAX, "an expansion ROM of {size:#x} bytes");
            registers.set_u32(ROM_BAR, 0, !(size as u32 - 1) | ROM_ENABLE);
            Mapping::new(spaces.memory.clone(), size, Arc::new(rom))
        });
        let msi = spec.msi.as_ref().map(|msi| {
            let (body, writable) = MsiVector::capability();
            (registers.add_capability(CAPABILITY_MSI, &body, &writable), msi.clone())
        });
        let msix = spec.msix.as_ref().map(|p| (add_msix(&mut registers, p), p.msix.clone()));
        let mut window = None;
        for capability in &spec.capabilities {
            let at =
                registers.add_capability(capability.id, &capability.body, &capability.writable);
            if let Some(from) = capability.window {
                window = Some((at, capability.body.len() + 2, at + from));
            }
        }
        for register in &spec.registers {
            registers.set(register.offset, &register.value, &register.writable);
        }
        Arc::new(Self {
            identity: spec.identity,
            at_reset: registers.clone(),
            window,
            msix,
            msi,
            intx: spec.intx.clone(),
            device,
            state: Mutex::new(State { registers, bars, rom }),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads configuration space. What is not there is left as it is in `data`: all ones.
    pub fn config_read(&self, register: usize, data: &mut [u8]) {
        let state = self.state();
        state.registers.read(register, data);
        if let Some(intx) = &self.intx {
            show(register, data, STATUS, if intx.is_wanted() { STATUS_INTERRUPT } else { 0 });
            show(register, data, INTERRUPT_PIN, intx.register());
        }
        if let Some(capability) = self.through_window(&state, register, data.len()) {
            drop(state);
            self.device.window_read(&capability, data);
        }
    }

    /// Writes configuration space.
    pub fn config_write(&self, register: usize, data: &[u8]) {
        let mut state = self.state();
        if let Some(capability) = self.through_window(&state, register, data.len()) {
            drop(state);
            self.device.window_write(&capability, data);
            return;
        }
        let command = state.registers.u16(COMMAND);
        state.registers.write(register, data);
        self.sync(&mut state, command);
        if register + data.len() > DEVICE_SPECIFIC {
            self.device.written(&state.registers.bytes);
        }
    }

    /// The capability, when an access is to its window.
    fn through_window(&self, state: &State, register: usize, size: usize) -> Option<Vec<u8>> {
        let (at, length, from) = self.window?;
        let inside = register >= from && register + size <= at + length;
        inside.then(|| state.registers.bytes[at..at + length].to_vec())
    }

    /// Makes mappings, MSI-X and the device follow the registers.
    fn sync(&self, state: &mut State, command_before: u16) {
        let command = state.registers.u16(COMMAND);
        let State { registers, bars, rom } = state;
        if let Some(rom) = rom {
            rom.place(rom_base(registers, command));
        }
        for bar in bars {
            let base = bar_base(registers, bar, command);
            if base != bar.mapping.base() {
                bar.mapping.place(base);
                self.device.bar_placed(bar.index, bar.mapping.base());
            }
        }
        let master = command & COMMAND_BUS_MASTER != 0;
        let mut silent = command & COMMAND_INTX_OFF != 0;
        if let Some((at, msix)) = &self.msix {
            msix.set_bus_master(master);
            msix.set_control(registers.u16(at + 2));
            silent |= registers.u16(at + 2) & MSIX_CONTROL_ENABLE != 0;
        }
        if let Some((at, msi)) = &self.msi {
            let mut body = [0; msi::BODY_SIZE];
            registers.read(at + 2, &mut body);
            msi.follow(&body, master);
            silent |= registers.u16(at + 2) & msi::CONTROL_ENABLE != 0;
        }
        if let Some(intx) = &self.intx {
            intx.set_silent(silent);
        }
        if (command ^ command_before) & COMMAND_BUS_MASTER != 0 {
            self.device.bus_master_set(master);
        }
    }

    /// Wires its interrupt pin, if it has one, to `line`. Without a wire it has none.
    pub fn connect_intx(&self, pin: Pin, line: Line) {
        if let Some(intx) = &self.intx {
            intx.connect(pin, line);
        }
    }

    /// Where the BAR is mapped.
    pub fn bar_base(&self, bar: usize) -> Option<u64> {
        let state = self.state();
        state.bars.iter().find(|b| b.index == bar).and_then(|b| b.mapping.base())
    }

    pub(crate) fn placed_memory(&self) -> Vec<Range<u64>> {
        let state = self.state();
        let memory = state.bars.iter().filter(|bar| bar.kind != BarKind::Io);
        let range = |bar: &PlacedBar| bar.mapping.base().map(|base| base..base + bar.size_bytes);
        memory.filter_map(range).collect()
    }

    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(crate) fn bar_needs(&self) -> Vec<BarNeed> {
        let need =
            |b: &PlacedBar| BarNeed { index: b.index, kind: b.kind, size_bytes: b.size_bytes };
        self.state().bars.iter().map(need).collect()
    }

    /// Writes a BAR as firmware does.
    pub(crate) fn set_bar(&self, need: BarNeed, address: u64) {
        let at = BAR0 + 4 * need.index;
        let wide = matches!(need.kind, BarKind::Memory64 | BarKind::Memory64Prefetchable);
        self.config_write(at, &address.to_le_bytes()[..if wide { 8 } else { 4 }]);
    }
}

/// Lays bits over what was read, if the byte `at` was among it.
fn show(register: usize, data: &mut [u8], at: usize, bits: u8) {
    if let Some(byte) = at.checked_sub(register).and_then(|index| data.get_mut(index)) {
        *byte |= bits;
    }
}

fn header(identity: &Identity, multifunction: bool) -> Registers {
    let mut registers = Registers::new();
    registers.set_u16(VENDOR_ID, identity.vendor_id, 0);
    registers.set_u16(DEVICE_ID, identity.device_id, 0);
    registers.set_u16(COMMAND, 0, COMMAND_WRITABLE);
    registers.set(REVISION_ID, &[identity.revision], &[0]);
    registers.set(CLASS_CODE, &identity.class.to_le_bytes()[..3], &[0; 3]);
    registers.set(CACHE_LINE_SIZE, &[0], &[0xff]);
    registers.set(LATENCY_TIMER, &[0], &[0]);
    registers.set(HEADER_TYPE, &[if multifunction { HEADER_MULTIFUNCTION } else { 0 }], &[0]);
    registers.set_u16(SUBSYSTEM_VENDOR_ID, identity.subsystem_vendor_id, 0);
    registers.set_u16(SUBSYSTEM_ID, identity.subsystem_id, 0);
    registers.set(INTERRUPT_LINE, &[0], &[0xff]);
    registers
}

fn space(spaces: &Spaces, bar: &Bar) -> Arc<AddressSpace> {
    if bar.kind == BarKind::Io { spaces.io.clone() } else { spaces.memory.clone() }
}

/// The writable bits say the size, so that reading back all ones does.
fn add_bar(registers: &mut Registers, bar: &Bar) {
    let wide = matches!(bar.kind, BarKind::Memory64 | BarKind::Memory64Prefetchable);
    assert!(bar.index < BAR_COUNT - usize::from(wide), "BAR {} is not there", bar.index);
    let smallest = if bar.kind == BarKind::Io { 4 } else { 16 };
    assert!(bar.size_bytes.is_power_of_two() && bar.size_bytes >= smallest, "a BAR's size");
    assert!(wide || bar.size_bytes <= 1 << 31, "a 32-bit BAR of {:#x} bytes", bar.size_bytes);
    let flags = match bar.kind {
        BarKind::Io => BAR_IO,
        BarKind::Memory32 => 0,
        BarKind::Memory64 => BAR_MEMORY_64,
        BarKind::Memory64Prefetchable => BAR_MEMORY_64 | BAR_PREFETCHABLE,
    };
    let mask = !(bar.size_bytes - 1);
    let at = BAR0 + 4 * bar.index;
    assert_eq!(registers.u32(at), 0, "BAR {} is taken", bar.index);
    registers.set_u32(at, flags, mask as u32);
    if wide {
        registers.set_u32(at + 4, 0, (mask >> 32) as u32);
    }
}

fn add_msix(registers: &mut Registers, place: &MsixPlace) -> usize {
    let bar = place.bar as u32; // BAR numbers are below 6
    assert!(place.table.is_multiple_of(8) && place.pending.is_multiple_of(8), "MSI-X offsets");
    let mut body = [0; 10];
    body[..2].copy_from_slice(&(place.msix.vectors() - 1).to_le_bytes());
    body[2..6].copy_from_slice(&(place.table | bar).to_le_bytes());
    body[6..].copy_from_slice(&(place.pending | bar).to_le_bytes());
    let mut writable = [0; 10];
    let control = MSIX_CONTROL_ENABLE | MSIX_CONTROL_FUNCTION_MASK;
    writable[..2].copy_from_slice(&control.to_le_bytes());
    registers.add_capability(CAPABILITY_MSIX, &body, &writable)
}

/// Where the registers say the BAR is. Address 0 is that of a BAR nobody has set.
fn bar_base(registers: &Registers, bar: &PlacedBar, command: u16) -> Option<u64> {
    let at = BAR0 + 4 * bar.index;
    let low = u64::from(registers.u32(at));
    let (enable, address) = match bar.kind {
        BarKind::Io => (COMMAND_IO, low & !3),
        BarKind::Memory32 => (COMMAND_MEMORY, low & !0xf),
        BarKind::Memory64 | BarKind::Memory64Prefetchable => {
            (COMMAND_MEMORY, low & !0xf | u64::from(registers.u32(at + 4)) << 32)
        }
    };
    (command & enable != 0 && address != 0).then_some(address)
}

/// Where the registers say the expansion ROM is.
fn rom_base(registers: &Registers, command: u16) -> Option<u64> {
    let register = registers.u32(ROM_BAR);
    let address = u64::from(register & !ROM_ENABLE);
    let enabled = command & COMMAND_MEMORY != 0 && register & ROM_ENABLE != 0;
    (enabled && address != 0).then_some(address)
}

impl Device for Function {
    fn reset(&self) {
        let mut state = self.state();
        let command = state.registers.u16(COMMAND);
        state.registers = self.at_reset.clone();
        if let Some((_, msix)) = &self.msix {
            msix.reset();
        }
        self.sync(&mut state, command);
        self.device.written(&state.registers.bytes);
    }

    fn save(&self) -> Section {
        let State { registers, bars: _, rom: _ } = &*self.state();
        let (table, pending) =
            self.msix.as_ref().map_or_else(Default::default, |(_, msix)| msix.save());
        Section::encode(&FunctionState { config: registers.bytes.to_vec(), table, pending })
    }

    fn restore(&self, section: &Section) -> Result<(), SectionError> {
        let saved: FunctionState = section.decode()?;
        let config = saved.check(&self.at_reset)?;
        let mut state = self.state();
        let command = state.registers.u16(COMMAND);
        if let Some((_, msix)) = &self.msix
            && !msix.restore(&saved.table, &saved.pending)
        {
            return Err(FunctionState::impossible("it has another number of MSI-X vectors".into()));
        }
        state.registers.bytes = config;
        self.sync(&mut state, command);
        self.device.written(&state.registers.bytes);
        Ok(())
    }
}
