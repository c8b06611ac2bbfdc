//! One wired machine.

mod clock_part;
mod controllers;
mod firmware;
mod growth;
mod memory_map;
mod pages;
mod prepared;
mod slots;
mod wiring;

pub use growth::GrowthRoom;
pub use prepared::{Extras, Prepared};
pub use slots::{Card, Slot};

use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use boot::layout::Layout;
use boot::{Described, Entry, Images, Room};
use chipset::{I8042, Uart};
use display::Vga;
use engine::Bus;
use guest_memory::GuestMemory;
use machine_clock::MachineClock;
use statecodec::NamedSection;
use virtio::{Balloon, Console, Input, Ports, VirtioPci};
use x86_state::{CpuProfile, VcpuId, VcpuState, Vector};

use crate::event::MachineOwner;
use crate::sections::RestoreError;
use crate::socket::Socket;
use crate::spec::{BuildError, MachineSpec, StartError};
use wiring::{Board, Outside};

/// Name of the memory region that is the guest's RAM.
pub const RAM: &str = "ram";
/// Name of the memory region that is RAM to come later, if there is any.
pub const MORE_RAM: &str = "more-ram";
/// Name of the memory region that is the display adapter's frame buffer, if there is one.
pub const VRAM: &str = "vram";

/// One machine: everything of a VM but the CPUs.
pub struct Machine {
    profile: CpuProfile,
    layout: Layout,
    memory: Arc<GuestMemory>,
    clock: Arc<MachineClock>,
    socket: Arc<Socket>,
    described: Described,
    board: Board,
    contents: Mutex<Contents>,
    counters: Counters,
}

/// What is in memory.
enum Contents {
    /// Nothing: it is all zero.
    Zero,
    /// What is to be booted here, and nothing else.
    Loaded(Entry),
    /// What a guest has left.
    Used,
}

/// Accesses that came from vCPUs.
#[derive(Default)]
struct Counters {
    ports: AtomicU64,
    mmio: AtomicU64,
}

/// How often vCPUs have reached the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BusCounters {
    /// Port accesses.
    pub ports: u64,
    /// Port accesses that nobody claimed.
    pub ports_unclaimed: u64,
    /// MMIO accesses.
    pub mmio: u64,
    /// MMIO accesses that nobody claimed.
    pub mmio_unclaimed: u64,
}

impl Machine {
    /// Builds the machine, with its clock stopped and its socket empty.
    ///
    /// # Errors
    /// When the spec asks for what cannot be, or the host has no memory for it.
    pub fn build(spec: MachineSpec, owner: Arc<dyn MachineOwner>) -> Result<Arc<Self>, BuildError> {
        let memory = Prepared::new(spec.memory_bytes, Extras::of(&spec))?;
        Self::build_with(spec, memory, owner)
    }

    /// The same, with memory that was made for it before.
    ///
    /// # Errors
    /// When the spec asks for what cannot be.
    ///
    /// # Panics
    /// When the memory is not what the spec says: the caller's mistake.
    pub fn build_with(
        spec: MachineSpec,
        memory: Prepared,
        owner: Arc<dyn MachineOwner>,
    ) -> Result<Arc<Self>, BuildError> {
        let Prepared { layout, memory, contents } = memory;
        assert_eq!(layout.ram_bytes(), spec.memory_bytes, "memory of another machine");
        if let Some(firmware) = &spec.firmware {
            firmware::fill(&memory, firmware);
        }
        let clock = MachineClock::new(spec.time);
        let socket = Socket::new(owner.clone());
        socket.set_memory_or_fail(memory.view());
        let profile = spec.profile.clone();
        let cores = profile.topology().cores;
        let room = match spec.hotplug {
            Some(spec) => Some(Room { cpus: cores, blocks: layout.blocks(spec.memory_bytes_max)? }),
            None => None,
        };
        let described = Described {
            cpus: spec.hotplug.map_or(cores, |spec| spec.cpus.clamp(1, cores)),
            room,
            hpet: spec.describe_hpet,
            legacy: spec.legacy,
        };
        let outside = Outside {
            memory: &memory,
            clock: &clock,
            socket: &socket,
            owner: &owner,
            layout,
            described,
        };
        let board = Board::new(spec, &outside)?;
        Ok(Arc::new(Self {
            profile,
            layout,
            memory,
            clock,
            socket,
            described,
            board,
            contents: Mutex::new(contents),
            counters: Counters::default(),
        }))
    }

    /// Puts the machine's tables and what is to be booted into memory, while vCPUs and I/O stand
    /// still, and returns the first CPU's state; the others are as after reset. RAM is zero then
    /// but for that: what was used is cleared. Without images, the machine starts from firmware, and
    /// RAM stays as it is.
    ///
    /// # Errors
    /// When an image is not what it must be or does not fit.
    pub fn boot(&self, images: Option<&mut Images<File>>) -> Result<VcpuState, StartError> {
        let contents = std::mem::replace(&mut *self.contents(), Contents::Used);
        let mut state = VcpuState::at_reset(&self.profile, VcpuId(0));
        let Some(images) = images else { return Ok(state) };
        let dma = self.memory.dma();
        let entry = match (contents, self.memory.region(RAM)) {
            (Contents::Loaded(entry), _) => entry,
            (Contents::Used, Some(ram)) => {
                self.memory.clear(ram)?;
                let others = [VRAM, MORE_RAM].map(|name| self.memory.region(name));
                others.into_iter().flatten().try_for_each(|region| self.memory.clear(region))?;
                boot::load(&dma, &self.layout, images)?
            }
            _ => boot::load(&dma, &self.layout, images)?,
        };
        entry.check(&self.profile)?;
        boot::write_tables(&dma, &self.layout, self.described);
        if let Some(screen) = self.board.turn_screen_on() {
            boot::write_screen(&dma, &self.layout, entry, screen);
        }
        entry.apply(&mut state);
        Ok(state)
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What an engine is built over.
    pub fn engine_parts(&self) -> engine::Parts {
        engine::Parts { clock: self.clock.clone(), memory: self.memory.clone() }
    }

    /// The CPUs.
    pub fn profile(&self) -> &CpuProfile {
        &self.profile
    }

    /// Where things are.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The memory.
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// The time. The owner starts and stops it, and fires its timers.
    pub fn clock(&self) -> &Arc<MachineClock> {
        &self.clock
    }

    /// Where an engine's complex is plugged in.
    pub fn socket(&self) -> &Arc<Socket> {
        &self.socket
    }

    /// All devices' state, in a fixed order, while vCPUs and I/O stand still. Memory and vCPUs
    /// are saved by the owner.
    pub fn save(&self) -> Vec<NamedSection> {
        self.board.parts.save()
    }

    /// Puts state into the devices, while vCPUs and I/O stand still and the clock is stopped.
    ///
    /// # Errors
    /// When the sections are not exactly those of this machine's parts. Some parts may then have
    /// the new state: the machine is only good for another restore or a reset.
    pub fn restore(&self, sections: &[NamedSection]) -> Result<(), RestoreError> {
        *self.contents() = Contents::Used;
        self.board.parts.restore(sections)
    }

    /// Every device back to its state after power-up, while vCPUs stand still. Memory stays.
    pub fn reset(&self) {
        let reset = self.board.reset();
        assert!(reset.is_ok(), "BARs that fitted once fit again");
    }

    /// Ends service of virtio queues and disk controllers: when it returns, no device changes guest memory. To be
    /// called with vCPUs standing still, before anything is saved.
    pub fn pause_io(&self) {
        self.virtio().iter().for_each(|device| device.pause());
        self.board.controllers.iter().for_each(|(_, controller)| controller.pause());
    }

    /// Begins it again, with what came meanwhile. Also to be called after a restore.
    pub fn resume_io(&self) {
        self.virtio().iter().for_each(|device| device.resume());
        self.board.controllers.iter().for_each(|(_, controller)| controller.resume());
    }

    /// Presses the power button: a guest that listens turns itself off.
    pub fn press_power_button(&self) {
        self.board.pm.press_power_button();
    }

    /// Keyboard and mouse.
    pub fn i8042(&self) -> &Arc<I8042> {
        &self.board.i8042
    }

    /// The display adapter, if the machine has one.
    pub fn display(&self) -> Option<&Arc<Vga>> {
        self.board.display.as_ref()
    }

    /// The tablet beside the display: the better pointer, where a driver listens to it.
    pub fn tablet(&self) -> Option<&Arc<Input>> {
        self.board.tablet.as_ref()
    }

    /// The virtio keyboard beside the display.
    pub fn keyboard(&self) -> Option<&Arc<Input>> {
        self.board.keyboard.as_ref()
    }

    /// The first serial port: what is typed goes there.
    pub fn uart(&self) -> &Arc<Uart> {
        &self.board.uart
    }

    /// The virtio console, if the machine has one.
    pub fn console(&self) -> Option<&Arc<Console>> {
        self.board.console.as_ref()
    }

    /// The device with the ports, if the machine has any.
    pub fn ports(&self) -> Option<&Arc<Ports>> {
        self.board.serial_ports.as_ref()
    }

    /// The balloon, if the machine has one.
    pub fn balloon(&self) -> Option<&Arc<Balloon>> {
        self.board.balloon.as_ref()
    }

    /// All virtio devices, for their counters.
    pub fn virtio(&self) -> Vec<Arc<VirtioPci>> {
        let slots = self.slots();
        let cards = slots.iter().map(|slot| slot.device().clone());
        self.board.virtio.iter().cloned().chain(cards).collect()
    }

    /// How often vCPUs have reached the bus.
    pub fn bus_counters(&self) -> BusCounters {
        BusCounters {
            ports: self.counters.ports.load(Ordering::Relaxed),
            ports_unclaimed: self.board.ports.unclaimed(),
            mmio: self.counters.mmio.load(Ordering::Relaxed),
            mmio_unclaimed: self.board.mmio.unclaimed(),
        }
    }
}

impl Bus for Machine {
    fn pio_read(&self, port: u16, data: &mut [u8]) {
        self.counters.ports.fetch_add(1, Ordering::Relaxed);
        self.board.ports.read(u64::from(port), data);
    }

    fn pio_write(&self, port: u16, data: &[u8]) {
        self.counters.ports.fetch_add(1, Ordering::Relaxed);
        self.board.ports.write(u64::from(port), data);
    }

    fn mmio_read(&self, gpa: u64, data: &mut [u8]) {
        self.counters.mmio.fetch_add(1, Ordering::Relaxed);
        self.board.mmio.read(gpa, data);
    }

    fn mmio_write(&self, gpa: u64, data: &[u8]) {
        self.counters.mmio.fetch_add(1, Ordering::Relaxed);
        self.board.mmio.write(gpa, data);
    }

    fn ack_intr(&self) -> Option<Vector> {
        self.board.pic.ack()
    }

    fn eoi(&self, vector: Vector) {
        self.board.ioapic.eoi(vector);
    }
}

#[cfg(test)]
mod display_tests;
#[cfg(test)]
mod firmware_tests;
#[cfg(test)]
mod growth_tests;
#[cfg(test)]
mod tests;
