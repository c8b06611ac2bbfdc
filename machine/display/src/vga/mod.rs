//! The adapter.

mod dispi;
mod edid;
mod graphics;
mod planes;
mod registers;
mod render;
mod spec;
mod state;
#[cfg(test)]
mod tests;
mod text;
mod vram;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bus::{BusDevice, Device, Section, SectionError};
use guest_memory::{GuestMemory, RamOffset};
use machine_clock::MachineClock;
use pci::{Bar, BarKind, Function, FunctionDevice, FunctionSpec, Identity, Spaces};

use crate::{PIXELS_MAX, Picture};
use dispi::Effect;
use spec::dispi as dispi_register;
use spec::{ATTRIBUTE_SHOW, MISC_COLOR, mmio, port};
use state::{SavedVga, State};
use vram::Vram;

/// Size of the region of guest memory that is the frame buffer.
pub const VRAM_BYTES: u64 = 16 << 20;

/// The frame buffer's BAR.
pub const BAR_VRAM: usize = 0;
const BAR_MMIO: usize = 2;
const IDENTITY: Identity = Identity {
    vendor_id: 0x1234,
    device_id: 0x1111,
    class: 0x03_0000,
    revision: 2,
    subsystem_vendor_id: 0x1af4,
    subsystem_id: 0x1100,
};

/// Told where the guest has put the frame buffer, so that its memory can be shown there. Called
/// under locks of the adapter's function.
pub type Placed = Box<dyn Fn(Option<u64>) + Send + Sync>;

/// What an adapter is connected with.
pub struct VgaConfig {
    /// Guest memory.
    pub memory: Arc<GuestMemory>,
    /// Where in it the frame buffer's [`VRAM_BYTES`] are.
    pub vram: RamOffset,
    /// The time, for retraces and for what blinks.
    pub clock: Arc<MachineClock>,
    /// See [`Placed`].
    pub placed: Placed,
}

/// The adapter.
pub struct Vga {
    // Fixed configuration.
    edid: [u8; edid::SIZE],
    // Wiring.
    vram: Vram,
    clock: Arc<MachineClock>,
    placed: Placed,
    // State.
    state: Mutex<State>,
}

impl Vga {
    /// Where the VGA's registers answer: ports and how many. The device's offsets are the ports.
    pub const PORTS: [(u64, u64); 3] = [(0x3b4, 2), (0x3ba, 1), (0x3c0, 0x20)];

    /// An adapter after power-up: nothing is shown.
    pub fn new(config: VgaConfig) -> Arc<Self> {
        let VgaConfig { memory, vram, clock, placed } = config;
        Arc::new(Self {
            edid: edid::edid(),
            vram: Vram::new(memory, vram, VRAM_BYTES as usize),
            clock,
            placed,
            state: Mutex::default(),
        })
    }

    /// Its PCI function, the first of its device's, with this image in its expansion ROM, and with its
    /// `registers` in memory or at ports only.
    pub fn function(
        self: &Arc<Self>,
        rom: Option<Vec<u8>>,
        registers: bool,
        spaces: &Spaces,
    ) -> Arc<Function> {
        let bar = |index, size_bytes, device: Arc<dyn BusDevice>| Bar {
            index,
            kind: BarKind::Memory32,
            size_bytes,
            device,
        };
        let mut bars = vec![bar(BAR_VRAM, VRAM_BYTES, Arc::new(FrameBuffer(self.clone())))];
        if registers {
            bars.push(bar(BAR_MMIO, mmio::SIZE, Arc::new(Mmio(self.clone()))));
        }
        let spec = FunctionSpec {
            identity: IDENTITY,
            multifunction: true,
            bars,
            rom,
            ..FunctionSpec::default()
        };
        Function::new(&spec, spaces, Arc::new(Placing(self.clone())))
    }

    /// What answers in the window at 0xa0000, 128 KiB long.
    pub fn window(self: &Arc<Self>) -> Arc<dyn BusDevice> {
        Arc::new(Window(self.clone()))
    }

    /// What answers at the DISPI ports, 0x1ce to 0x1d1.
    pub fn dispi(self: &Arc<Self>) -> Arc<dyn BusDevice> {
        Arc::new(DispiPorts(self.clone()))
    }

    /// Sets a linear mode with 32 bits a pixel, black, as firmware would for a system that it starts.
    pub fn set_mode(&self, width: u16, height: u16) {
        let mut state = self.state();
        for (register, value) in [
            (dispi_register::ENABLE, 0),
            (dispi_register::BPP, 32),
            (dispi_register::XRES, width),
            (dispi_register::YRES, height),
            (dispi_register::ENABLE, dispi_register::ENABLED | dispi_register::LFB_ENABLED),
        ] {
            self.dispi_write(&mut state, register, value);
        }
        state.attribute_index |= ATTRIBUTE_SHOW;
        state.misc |= MISC_COLOR;
    }

    /// Makes a picture of what is shown.
    pub fn capture(&self, into: &mut Picture) {
        let state = self.state().clone();
        render::render(&state, &self.vram, self.clock.now_ns(), into);
        assert!(into.pixels.len() <= PIXELS_MAX, "pictures are bounded");
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dispi_write(&self, state: &mut State, register: u16, value: u16) {
        if state.dispi.write(register, value, self.vram.size()) == Effect::Clear {
            let planes = if state.dispi.bpp == 4 { 4 } else { 1 };
            let lines = usize::from(state.dispi.yres);
            self.vram.clear(state.dispi.line_bytes() * lines * planes);
        }
    }

    fn port_read(&self, port: u64) -> u8 {
        let now_ns = self.clock.now_ns();
        self.state().port_read(port, now_ns)
    }

    fn mmio_read(&self, at: u64) -> u8 {
        let byte = |value: u32, at: u64| value.to_le_bytes()[(at & 3) as usize];
        let within = |base: u64, size: u64| at.checked_sub(base).filter(|at| *at < size);
        if within(mmio::EDID, mmio::EDID_SIZE).is_some() {
            self.edid.get(at as usize).copied().unwrap_or(0)
        } else if let Some(at) = within(mmio::VGA, mmio::VGA_SIZE) {
            self.port_read(port::ATTRIBUTE + at)
        } else if let Some(at) = within(mmio::DISPI, mmio::DISPI_SIZE) {
            let value = self.state().dispi.read((at / 2) as u16, self.vram.size());
            value.to_le_bytes()[(at & 1) as usize]
        } else if let Some(at) = within(mmio::EXTENDED, mmio::EXTENDED_SIZE) {
            let value = if at < 4 { mmio::EXTENDED_SIZE as u32 } else { mmio::LITTLE_ENDIAN };
            byte(value, at)
        } else {
            0xff
        }
    }

    fn mmio_write(&self, at: u64, data: &[u8]) {
        let dispi = mmio::DISPI..mmio::DISPI + mmio::DISPI_SIZE;
        if dispi.contains(&at) {
            // Registers are 16 bits wide and written whole; a wider write is several.
            let mut state = self.state();
            let registers = (((at - mmio::DISPI) / 2) as u16..).zip(data.as_chunks::<2>().0);
            for (register, value) in registers {
                self.dispi_write(&mut state, register, u16::from_le_bytes(*value));
            }
            return;
        }
        for (at, byte) in (at..).zip(data) {
            if let Some(port) = at.checked_sub(mmio::VGA).filter(|port| *port < mmio::VGA_SIZE) {
                self.state().port_write(port::ATTRIBUTE + port, *byte);
            }
        }
    }
}

/// The ports of [`Vga::PORTS`], whose offsets are the ports themselves.
impl BusDevice for Vga {
    fn read(&self, offset: u64, data: &mut [u8]) {
        for (port, byte) in (offset..).zip(data) {
            *byte = self.port_read(port);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let mut state = self.state();
        for (port, byte) in (offset..).zip(data) {
            state.port_write(port, *byte);
        }
    }
}

impl Device for Vga {
    fn reset(&self) {
        *self.state() = State::default();
    }

    fn save(&self) -> Section {
        Section::encode(&SavedVga::from(&*self.state()))
    }

    fn restore(&self, section: &Section) -> Result<(), SectionError> {
        let mut state = State::try_from(section.decode::<SavedVga>()?)?;
        state.dispi = state.dispi.made_to_fit(self.vram.size());
        *self.state() = state;
        Ok(())
    }
}

/// The window at 0xa0000.
struct Window(Arc<Vga>);

impl BusDevice for Window {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let mut state = self.0.state();
        for (at, byte) in (offset..).zip(data) {
            *byte = state.window_read(&self.0.vram, at);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let mut state = self.0.state();
        for (at, byte) in (offset..).zip(data) {
            state.window_write(&self.0.vram, at, *byte);
        }
    }
}

/// The index at the first port; the value at the next, or at the one after for who aligns words.
struct DispiPorts(Arc<Vga>);

impl BusDevice for DispiPorts {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let state = self.0.state();
        let value = match offset {
            0 => state.dispi.index,
            1 | 2 => state.dispi.read(state.dispi.index, self.0.vram.size()),
            _ => return,
        };
        for (to, byte) in data.iter_mut().zip(value.to_le_bytes()) {
            *to = byte;
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let Some(value) = data.first_chunk::<2>() else { return };
        let (value, mut state) = (u16::from_le_bytes(*value), self.0.state());
        match offset {
            0 => state.dispi.index = value,
            1 | 2 => {
                let register = state.dispi.index;
                self.0.dispi_write(&mut state, register, value);
            }
            _ => {}
        }
    }
}

/// The frame buffer, where its memory is not shown itself.
struct FrameBuffer(Arc<Vga>);

impl BusDevice for FrameBuffer {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.0.vram.bus_read(offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.0.vram.bus_write(offset, data);
    }
}

/// The registers in memory.
struct Mmio(Arc<Vga>);

impl BusDevice for Mmio {
    fn read(&self, offset: u64, data: &mut [u8]) {
        for (at, byte) in (offset..).zip(data) {
            *byte = self.0.mmio_read(at);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.0.mmio_write(offset, data);
    }
}

/// What follows from the function's registers.
struct Placing(Arc<Vga>);

impl FunctionDevice for Placing {
    fn bar_placed(&self, bar: usize, base: Option<u64>) {
        if bar == BAR_VRAM {
            (self.0.placed)(base);
        }
    }
}
