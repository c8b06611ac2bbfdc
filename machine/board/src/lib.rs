//! The board: a [`MachineSpec`] made into a wired [`Machine`], and the CPU [`Socket`].
//!
//! A [`Machine`] is memory, buses, interrupt chips, devices and the socket, wired. Which engine
//! executes its CPUs is not its business: an engine's complex is plugged into the socket, and
//! [`Machine`] implements [`engine::Bus`] for its vCPUs.
//!
//! *Invariants*: devices hold the socket, never an engine. Saved state is a list of (instance
//! path, section) in a fixed order, and restoring wants exactly the sections this machine has.
//! Everything that limits or divides the guest's address space is in [`boot::layout`].
//!
//! What this crate may not know: any engine, threads, files' names, sockets, the daemon.

mod event;
mod machine;
mod profile_state;
mod sections;
mod socket;
mod spec;
mod state_file;
mod vcpu_state;

pub use event::{EventLog, MachineEvent, MachineOwner};
pub use machine::{
    BusCounters, Card, Extras, GrowthRoom, MORE_RAM, Machine, Prepared, RAM, Slot, VRAM,
};
pub use profile_state::ProfileMismatch;
pub use sections::RestoreError;
pub use socket::{Socket, Unplugged};
pub use spec::{
    BootKind, BuildError, DiskSpec, DisplaySpec, FirmwareSpec, HotplugSpec, MachineSpec, NetModel,
    NetSpec, PlugError, StartError, VariableStore, Variables,
};
pub use state_file::{StateFileError, pack, unpack};
pub use statecodec::NamedSection;
pub use vcpu_state::{restore_vcpu, save_vcpu};
