//! One wired machine.

mod clock_part;
mod pages;
mod wiring;

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use boot::layout::{Layout, TESTDEV_RAM};
use boot::{Described, Images};
use chipset::{I8042, Uart};
use engine::Bus;
use guest_memory::{Backing, FlatRange, GuestMemory, RamOffset};
use machine_clock::MachineClock;
use statecodec::NamedSection;
use virtio::{Block, Console, VirtioPci};
use x86_state::{CpuProfile, VcpuId, VcpuState, Vector};

use crate::event::MachineOwner;
use crate::sections::RestoreError;
use crate::socket::Socket;
use crate::spec::{BuildError, MachineSpec, StartError};
use wiring::{Board, Outside};

/// Name of the memory region that is the guest's RAM.
pub const RAM: &str = "ram";
const TESTDEV: &str = "testdev";

/// One machine: everything of a VM but the CPUs.
pub struct Machine {
    profile: CpuProfile,
    layout: Layout,
    memory: Arc<GuestMemory>,
    clock: Arc<MachineClock>,
    socket: Arc<Socket>,
    described: Described,
    board: Board,
    /// Memory is as it was made: all zero.
    fresh: AtomicBool,
    counters: Counters,
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
        let layout = Layout::new(spec.memory_bytes)?;
        let memory = build_memory(&layout, spec.testdev)?;
        let clock = MachineClock::new(spec.time);
        let socket = Socket::new(owner.clone());
        socket.set_memory_or_fail(memory.view());
        let profile = spec.profile.clone();
        let described = Described {
            cpus: profile.topology().cores,
            hpet: spec.describe_hpet,
            legacy: spec.legacy,
        };
        let outside = Outside { memory: &memory, clock: &clock, socket: &socket, owner: &owner };
        let board = Board::new(spec, &outside)?;
        Ok(Arc::new(Self {
            profile,
            layout,
            memory,
            clock,
            socket,
            described,
            board,
            fresh: AtomicBool::new(true),
            counters: Counters::default(),
        }))
    }

    /// Puts the machine's tables and what is to be booted into memory, while vCPUs and I/O stand
    /// still, and returns the first CPU's state; the others are as after reset. RAM is zero then
    /// but for that: what was used is cleared.
    ///
    /// # Errors
    /// When an image is not what it must be or does not fit.
    pub fn boot(&self, images: &mut Images<File>) -> Result<VcpuState, StartError> {
        if !self.fresh.swap(false, Ordering::Relaxed)
            && let Some(ram) = self.memory.region(RAM)
        {
            self.memory.clear(ram)?;
        }
        let dma = self.memory.dma();
        boot::write_tables(&dma, &self.layout, self.described);
        let entry = boot::load(&dma, &self.layout, images)?;
        let mut state = VcpuState::at_reset(&self.profile, VcpuId(0));
        entry.apply(&mut state);
        Ok(state)
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
        self.fresh.store(false, Ordering::Relaxed);
        self.board.parts.restore(sections)
    }

    /// Every device back to its state after power-up, while vCPUs stand still. Memory stays.
    pub fn reset(&self) {
        let reset = self.board.reset();
        assert!(reset.is_ok(), "BARs that fitted once fit again");
    }

    /// Ends service of virtio queues: when it returns, no device changes guest memory. To be
    /// called with vCPUs standing still, before anything is saved.
    pub fn pause_io(&self) {
        self.board.virtio.iter().for_each(|device| device.pause());
    }

    /// Begins it again, with what came meanwhile. Also to be called after a restore.
    pub fn resume_io(&self) {
        self.board.virtio.iter().for_each(|device| device.resume());
    }

    /// Presses the power button: a guest that listens turns itself off.
    pub fn press_power_button(&self) {
        self.board.pm.press_power_button();
    }

    /// Keyboard and mouse.
    pub fn i8042(&self) -> &Arc<I8042> {
        &self.board.i8042
    }

    /// The first serial port: what is typed goes there.
    pub fn uart(&self) -> &Arc<Uart> {
        &self.board.uart
    }

    /// The virtio console, if the machine has one.
    pub fn console(&self) -> Option<&Arc<Console>> {
        self.board.console.as_ref()
    }

    /// The disks, in their order, for their counters.
    pub fn disks(&self) -> &[Arc<Block>] {
        &self.board.blocks
    }

    /// All virtio devices, for their counters.
    pub fn virtio(&self) -> &[Arc<VirtioPci>] {
        &self.board.virtio
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

/// RAM, and what the guest sees of it.
fn build_memory(layout: &Layout, testdev: bool) -> Result<Arc<GuestMemory>, BuildError> {
    let mut regions = vec![(RAM, layout.ram_bytes())];
    if testdev {
        regions.push((TESTDEV, TESTDEV_RAM.size));
    }
    let memory = GuestMemory::new(&regions)?;
    let mut view = layout.view(RamOffset(0));
    if let Some(region) = memory.region(TESTDEV) {
        let inserted = view.insert(FlatRange {
            gpa: TESTDEV_RAM.base,
            size: TESTDEV_RAM.size,
            at: region.at,
            backing: Backing::Ram,
        });
        assert!(inserted.is_ok(), "the test device's memory overlaps RAM");
    }
    memory.set_view(view);
    Ok(memory)
}

#[cfg(test)]
mod tests;
