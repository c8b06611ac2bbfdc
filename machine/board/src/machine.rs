//! One wired machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use boot::layout::Layout;
use bus::{AddressSpace, Device, Section, SectionError};
use engine::{Bus, EngineError};
use guest_memory::{GuestMemory, RamOffset};
use machine_clock::MachineClock;
use minicbor::{Decode, Encode};
use statecodec::Saved;
use x86_state::{CpuProfile, Vector};

use crate::event::MachineOwner;
use crate::sections::{NamedSection, Parts, RestoreError};
use crate::socket::Socket;
use crate::spec::{BuildError, MachineSpec};

/// One machine: everything of a VM but the CPUs.
pub struct Machine {
    profile: CpuProfile,
    layout: Layout,
    memory: Arc<GuestMemory>,
    clock: Arc<MachineClock>,
    socket: Arc<Socket>,
    ports: Arc<AddressSpace>,
    mmio: Arc<AddressSpace>,
    parts: Parts,
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
        let memory = GuestMemory::new(&[("ram", spec.memory_bytes)])?;
        memory.set_view(layout.view(RamOffset(0)));
        let clock = MachineClock::new(spec.time);
        let socket = Socket::new(owner);
        // An empty socket refuses nothing.
        let told: Result<(), EngineError> = socket.set_memory(memory.view());
        assert!(told.is_ok());
        let mut parts = Parts::default();
        parts.push("clock", Arc::new(ClockPart(clock.clone())));
        Ok(Arc::new(Self {
            profile: spec.profile,
            layout,
            memory,
            clock,
            socket,
            ports: AddressSpace::new(),
            mmio: AddressSpace::new(),
            parts,
            counters: Counters::default(),
        }))
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
        self.parts.save()
    }

    /// Puts state into the devices, while vCPUs and I/O stand still and the clock is stopped.
    ///
    /// # Errors
    /// When the sections are not exactly those of this machine's parts. Some parts may then have
    /// the new state: the machine is only good for another restore or a reset.
    pub fn restore(&self, sections: &[NamedSection]) -> Result<(), RestoreError> {
        self.parts.restore(sections)
    }

    /// Every device back to its state after power-up, while vCPUs stand still. Memory stays.
    pub fn reset(&self) {
        self.parts.reset();
    }

    /// How often vCPUs have reached the bus.
    pub fn bus_counters(&self) -> BusCounters {
        BusCounters {
            ports: self.counters.ports.load(Ordering::Relaxed),
            ports_unclaimed: self.ports.unclaimed(),
            mmio: self.counters.mmio.load(Ordering::Relaxed),
            mmio_unclaimed: self.mmio.unclaimed(),
        }
    }
}

impl Bus for Machine {
    fn pio_read(&self, port: u16, data: &mut [u8]) {
        self.counters.ports.fetch_add(1, Ordering::Relaxed);
        self.ports.read(u64::from(port), data);
    }

    fn pio_write(&self, port: u16, data: &[u8]) {
        self.counters.ports.fetch_add(1, Ordering::Relaxed);
        self.ports.write(u64::from(port), data);
    }

    fn mmio_read(&self, gpa: u64, data: &mut [u8]) {
        self.counters.mmio.fetch_add(1, Ordering::Relaxed);
        self.mmio.read(gpa, data);
    }

    fn mmio_write(&self, gpa: u64, data: &[u8]) {
        self.counters.mmio.fetch_add(1, Ordering::Relaxed);
        self.mmio.write(gpa, data);
    }

    fn ack_intr(&self) -> Option<Vector> {
        None
    }

    fn eoi(&self, _vector: Vector) {}
}

/// The clock, as a part with state.
struct ClockPart(Arc<MachineClock>);

#[derive(Encode, Decode)]
#[cbor(map)]
struct SavedClock {
    #[n(0)]
    now_ns: u64,
}

impl Saved for SavedClock {
    const KIND: &'static str = "machine-clock";
    const VERSION: u16 = 1;
}

impl Device for ClockPart {
    /// Time goes on through a reset, as it does on a board.
    fn reset(&self) {}

    fn save(&self) -> Section {
        Section::encode(&SavedClock { now_ns: self.0.now_ns() })
    }

    fn restore(&self, section: &Section) -> Result<(), SectionError> {
        let SavedClock { now_ns } = section.decode()?;
        self.0.set_ns(now_ns);
        Ok(())
    }
}
