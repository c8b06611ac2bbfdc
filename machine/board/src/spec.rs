//! What a machine is made of.

use boot::layout::LayoutError;
use guest_memory::MemoryError;
use machine_clock::TimeSource;
use rangemap::RangeError;
use x86_state::CpuProfile;

/// What a machine is made of. Everything the guest can see follows from it.
pub struct MachineSpec {
    /// The CPUs, and how many.
    pub profile: CpuProfile,
    /// RAM, in bytes.
    pub memory_bytes: u64,
    /// Where its time comes from.
    pub time: TimeSource,
    /// QEMU's debug-exit device at port 0xf4.
    pub debug_exit: bool,
    /// The bare-metal test device.
    pub testdev: bool,
}

impl MachineSpec {
    /// A machine with nothing but what every machine has.
    pub fn new(profile: CpuProfile, memory_bytes: u64) -> Self {
        Self { profile, memory_bytes, time: TimeSource::Host, debug_exit: false, testdev: false }
    }
}

/// Why a machine cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Its memory cannot be laid out.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Its memory cannot be had.
    #[error("there is no memory for the VM")]
    Memory(#[from] MemoryError),
    /// Two devices are at one address: our mistake.
    #[error("device '{device}' cannot be mapped")]
    Mapping {
        /// The device.
        device: &'static str,
        /// What is wrong.
        source: RangeError,
    },
}
