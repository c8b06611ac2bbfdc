//! The CPU socket: how guest CPUs are cut off from the rest of a machine.
//!
//! *The rule*: cut where the hardware cuts. An engine is what is inside the socket: cores, local
//! APICs, TSC. Everything else is the board. What crosses is what pins and bus cycles carry.
//!
//! # Contracts
//!
//! Each is a test every engine passes (`tests/harness`).
//!
//! 1. [`Vcpu::run`] returns only at an instruction boundary with no bus access outstanding.
//! 2. Kicks are sticky: one before `run` makes the next `run` return at once; none is lost.
//! 3. `load` then `save` is the identity on canonical state. `load` drops everything derived:
//!    TLB, shadow tables, decoded code.
//! 4. HLT is not an exit: `run` sleeps inside until an interrupt, a timer or a kick.
//! 5. Power and reset are not exits: devices tell the board. Only a triple fault comes from the
//!    CPU. A CPU reset is `load(VcpuState::at_reset(..))`.
//! 6. [`Bus`] never blocks on the guest and never fails: unclaimed reads give all ones.
//!
//! What this crate may not know: any engine, any device.

mod error;
mod ioapic_routes;

pub use error::{EngineError, Unsupported};
pub use ioapic_routes::IoApicRoutes;

use std::sync::Arc;

use guest_memory::{DirtyBitmap, FlatView, GuestMemory};
use machine_clock::MachineClock;
use x86_state::{CpuProfile, Msi, VcpuId, VcpuState, Vector};

/// A kind of virtualization.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EngineKind {
    /// Hardware virtualization: on the real CPU in guest mode.
    Hw,
    /// Software virtualization: every instruction interpreted.
    Emu,
    /// Full virtualization: binary translation without VT-x or SVM.
    Full,
}

impl EngineKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Hw, Self::Emu, Self::Full];

    /// The name used everywhere: `hw`, `emu`, `full`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hw => "hw",
            Self::Emu => "emu",
            Self::Full => "full",
        }
    }
}

impl std::fmt::Display for EngineKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for EngineKind {
    type Err = UnknownEngine;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|e| e.name() == name).ok_or(UnknownEngine(name.to_owned()))
    }
}

/// No engine has this name.
#[derive(Debug, thiserror::Error)]
#[error("there is no engine '{0}': engines are hw, emu and full")]
pub struct UnknownEngine(String);

/// What an engine is built over.
#[derive(Clone)]
pub struct Parts {
    /// The VM's time.
    pub clock: Arc<MachineClock>,
    /// The VM's memory.
    pub memory: Arc<GuestMemory>,
}

/// What an engine builds.
pub struct Built {
    /// What the vCPUs share.
    pub complex: Arc<dyn CpuComplex>,
    /// As many as the profile's topology has, by ID. Their state is that of reset.
    pub vcpus: Vec<Box<dyn Vcpu>>,
}

/// A way of executing guest CPUs on this host.
pub trait Engine: Send + Sync {
    /// Which.
    fn kind(&self) -> EngineKind;

    /// The engine can run this profile on this host.
    ///
    /// # Errors
    /// What is missing.
    fn check(&self, profile: &CpuProfile) -> Result<(), Unsupported>;

    /// Builds the CPUs of one VM. Nothing runs yet.
    ///
    /// # Errors
    /// When `check` would fail, or the host refuses.
    fn build(&self, profile: &CpuProfile, parts: &Parts) -> Result<Built, EngineError>;
}

/// Host memory an engine takes beside the guest's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Footprint {
    /// Translated code.
    pub code_bytes: u64,
    /// What is known of it and of guest addresses.
    pub table_bytes: u64,
    /// Of both together, what is in shared mappings, as guest memory is.
    pub shared_bytes: u64,
}

/// Why vCPUs left what the engine does fastest, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitCount {
    /// For people.
    pub why: String,
    /// Of all vCPUs.
    pub count: u64,
}

/// What is inside the socket and shared by its vCPUs. Every call may come from any thread.
pub trait CpuComplex: Send + Sync {
    /// The guest-physical address space is now this. Declarative: the engine finds the difference
    /// itself.
    ///
    /// # Errors
    /// When the host refuses.
    fn set_memory(&self, view: &FlatView) -> Result<(), EngineError>;

    /// Begins or ends tracking what vCPUs write.
    ///
    /// # Errors
    /// When the host refuses.
    fn set_dirty_log(&self, on: bool) -> Result<(), EngineError>;

    /// Adds to `into` the pages (by [`guest_memory::RamOffset`]) that only the engine knows to be
    /// written since the last harvest. What goes through `guest_memory` is marked there.
    ///
    /// # Errors
    /// When the host refuses.
    fn harvest_dirty(&self, into: &DirtyBitmap) -> Result<(), EngineError>;

    /// Sends an interrupt message. Never blocks on the guest, never loses one.
    fn send_msi(&self, msi: Msi);

    /// The level of the PIC's output pin, wired to LINT0 of every local APIC.
    fn set_intr(&self, level: bool);

    /// The IOAPIC's redirection table, so that a kernel's APIC knows whose EOIs to report.
    ///
    /// # Errors
    /// When the host refuses.
    fn set_ioapic_routes(&self, routes: &IoApicRoutes) -> Result<(), EngineError>;

    /// Makes the vCPU's `run` return. Sticky.
    fn kick(&self, vcpu: VcpuId);

    /// Host memory the engine takes beside the guest's.
    fn footprint(&self) -> Footprint {
        Footprint::default()
    }

    /// Why vCPUs left what the engine does fastest, as far as it counts: most frequent first.
    fn exits(&self) -> Vec<ExitCount> {
        Vec::new()
    }

    /// Shortcuts through the host's kernel; they may be absent at any moment.
    fn kernel_paths(&self) -> Option<&dyn KernelPaths> {
        None
    }
}

/// A register whose writes only say what later accesses mean: nothing happens by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexRegister {
    /// One byte at this port.
    Port(u16),
    /// Four bytes at this address.
    Mmio(u64),
}

/// Doorbells and interrupts that bypass user space, and writes that wait for it.
pub trait KernelPaths: Send + Sync {
    /// Writes to this register may reach the bus late, until released: before the next access of
    /// any vCPU does, and before `run` returns on the vCPU that made them.
    ///
    /// # Errors
    /// When the host refuses: the bus sees the writes at once, as before.
    fn hold_back(&self, register: IndexRegister) -> Result<(), EngineError>;
    /// Ends that.
    fn release(&self, register: IndexRegister);
    /// A guest write to this MMIO address (of any value and size) signals `event` instead of
    /// reaching the bus, until detached.
    ///
    /// # Errors
    /// When the host refuses: the bus sees the writes, as before.
    fn attach_doorbell(
        &self,
        gpa: u64,
        event: std::os::fd::BorrowedFd<'_>,
    ) -> Result<(), EngineError>;
    /// Ends that.
    fn detach_doorbell(&self, gpa: u64, event: std::os::fd::BorrowedFd<'_>);
    /// A signal of `event` sends `msi`, until detached or replaced by another call for it.
    ///
    /// # Errors
    /// When the host refuses: send it by [`CpuComplex::send_msi`].
    fn attach_interrupt(
        &self,
        event: std::os::fd::BorrowedFd<'_>,
        msi: Msi,
    ) -> Result<(), EngineError>;
    /// Ends that.
    fn detach_interrupt(&self, event: std::os::fd::BorrowedFd<'_>);
}

/// One virtual CPU. Built anywhere, then handed to its thread; every call comes from there.
pub trait Vcpu: Send {
    /// Executes until kicked, stopped by the debugger, or dead.
    ///
    /// The bus is shared, not borrowed, because an interpreter keeps it beside its decoded code
    /// for as long as it runs; it is let go of before `run` returns.
    ///
    /// Where the machine clock has stood, the caller first loads what it saves: only then do APIC
    /// timers go on from where they were.
    ///
    /// # Errors
    /// When the engine or the host has failed; the state is then undefined.
    fn run(&mut self, bus: &Arc<dyn Bus>) -> Result<Exit, EngineError>;

    /// The state, canonical.
    ///
    /// # Errors
    /// When the host refuses.
    fn save(&mut self) -> Result<VcpuState, EngineError>;

    /// Takes over this state.
    ///
    /// # Errors
    /// When the profile or the host does not allow it; the state is then undefined.
    fn load(&mut self, state: &VcpuState) -> Result<(), EngineError>;

    /// Where to stop for a debugger; `None` for nowhere.
    ///
    /// # Errors
    /// When the host refuses.
    fn set_debug(&mut self, stops: Option<&DebugStops>) -> Result<(), EngineError>;
}

/// The board, as seen from the socket. Never blocks on the guest, never fails.
pub trait Bus: Send + Sync {
    /// IN.
    fn pio_read(&self, port: u16, data: &mut [u8]);
    /// OUT.
    fn pio_write(&self, port: u16, data: &[u8]);
    /// A read of what memory does not back.
    fn mmio_read(&self, gpa: u64, data: &mut [u8]);
    /// A write to what memory does not back, or to ROM.
    fn mmio_write(&self, gpa: u64, data: &[u8]);
    /// The interrupt-acknowledge cycle: the PIC's vector, if it still has one.
    fn ack_intr(&self) -> Option<Vector>;
    /// A level-triggered interrupt was ended.
    fn eoi(&self, vector: Vector);
}

/// Why `run` returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Someone called `kick`.
    Kicked,
    /// A stop of `set_debug`; RIP is at the instruction.
    Debug(DebugStop),
    /// The CPU gave up. The state is that of the fault that could not be delivered.
    TripleFault,
}

/// Which stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DebugStop {
    /// One instruction was executed.
    Step,
    /// RIP is at a breakpoint.
    Breakpoint(u64),
}

/// What a debugger asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DebugStops {
    /// Stop after each instruction.
    pub step: bool,
    /// Stop before the instruction at these linear addresses; at most four.
    pub breakpoints: Vec<u64>,
}
