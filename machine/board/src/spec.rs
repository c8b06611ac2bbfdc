//! What a machine is made of.

use std::sync::Arc;

use boot::layout::LayoutError;
use boot::{BootError, DirectBoot};
use chipset::ByteSink;
use guest_memory::MemoryError;
use machine_clock::TimeSource;
use net::Network;
use pci::NoRoom;
use rangemap::RangeError;
use storage::Disk;
use virtio::{ConsoleConfig, Dispatch, EntropySource, NetConfig, PortConfig};
use x86_state::CpuProfile;

/// What a machine is made of. Everything the guest can see follows from it.
pub struct MachineSpec {
    /// The CPUs, and how many.
    pub profile: CpuProfile,
    /// RAM, in bytes: whole pages, 2 MiB to 510 GiB.
    pub memory_bytes: u64,
    /// What can come and go later; `None` for nothing, and no tables that say so.
    pub hotplug: Option<HotplugSpec>,
    /// Where its time comes from.
    pub time: TimeSource,
    /// The wall clock's time when the machine's is zero, in seconds since 1970, for the RTC.
    pub rtc_start_unix_s: i64,
    /// Where virtio queues are served.
    pub dispatch: Dispatch,
    /// Where what the guest sends to its first serial port goes.
    pub serial: Arc<dyn ByteSink>,
    /// A virtio console.
    pub console: Option<ConsoleConfig>,
    /// Ports between programs of the guest and the host; without any there is no device for them.
    pub ports: Vec<PortConfig>,
    /// The host's end of the guest's sockets, if it has any.
    pub vsock: Option<Arc<vsock::Host>>,
    /// A balloon, by which the guest gives memory back that it does without.
    pub balloon: bool,
    /// Disks, in the order the guest sees them; at most [`MachineSpec::DISKS_MAX`].
    pub disks: Vec<DiskSpec>,
    /// Disks and CD-ROM drives at SATA controllers, six at each. A controller takes the place of a disk.
    pub sata: Vec<ahci::Drive>,
    /// Disks at NVMe controllers, each at its own in the place of a disk.
    pub nvme: Vec<DiskSpec>,
    /// Network cards; with the disks at most [`MachineSpec::DISKS_MAX`].
    pub nets: Vec<NetSpec>,
    /// Where the guest's entropy device gets its bytes; `None` for no device.
    pub entropy: Option<EntropySource>,
    /// The tables tell of the HPET. It is on the board in any case, but Linux measures an HPET it
    /// knows of for five milliseconds and thousands of exits, and then uses the local APIC's timer.
    pub describe_hpet: bool,
    /// The guest can reach what only firmware and systems without ACPI look for: the PIC, the
    /// keyboard controller, the host bridge and the LPC bridge as PCI functions, the RTC's interrupt
    /// and the IOAPIC's inputs above ISA's. Where they are, Linux sets them up, in hundreds of
    /// exits, and uses none of them.
    pub legacy: bool,
    /// A display adapter.
    pub display: Option<DisplaySpec>,
    /// Firmware, which the machine then starts from.
    pub firmware: Option<FirmwareSpec>,
    /// Where what firmware writes to its debug console at port 0x402 goes; `None` for no such device.
    pub debugcon: Option<Arc<dyn ByteSink>>,
    /// QEMU's debug-exit device at port 0xf4.
    pub debug_exit: bool,
    /// The device of bare-metal test guests.
    pub testdev: bool,
}

/// What can come to a machine, besides disks and network cards. The profile's CPUs are all there can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HotplugSpec {
    /// CPUs at power-up; at least one.
    pub cpus: u32,
    /// RAM at most, in bytes.
    pub memory_bytes_max: u64,
}

/// The display adapter of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DisplaySpec {
    /// The image in its expansion ROM, for firmware.
    pub rom: Option<Vec<u8>>,
    /// Its registers are in memory, too, and what monitor it has.
    pub registers: bool,
    /// A mode, as firmware would set one for a system that it starts: width and height.
    pub mode: Option<(u16, u16)>,
}

/// Firmware of a machine. It goes with [`MachineSpec::legacy`].
pub struct FirmwareSpec {
    /// The image, which ends at 4 GiB: whole pages. With the variables at most
    /// [`FirmwareSpec::SIZE_MAX`].
    pub image: Vec<u8>,
    /// UEFI's variables: flash right below the image.
    pub variables: Option<Variables>,
    /// What to try to boot from, in this order; empty leaves it to the firmware.
    pub boot_order: Vec<BootKind>,
    /// A kernel for the firmware to start.
    pub kernel: Option<DirectBoot>,
    /// The port of a serial port that SeaBIOS shall use as screen and keyboard.
    pub serial_console: Option<u16>,
}

impl FirmwareSpec {
    /// What there is room for below 4 GiB.
    pub const SIZE_MAX: usize = 8 << 20;
}

/// UEFI's variables.
pub struct Variables {
    /// What the flash has: whole pages.
    pub bytes: Vec<u8>,
    /// What keeps it.
    pub store: Arc<dyn VariableStore>,
}

/// Keeps UEFI's variables from run to run.
pub trait VariableStore: Send + Sync {
    /// The flash is to have these bytes at `offset` from now on. Called from a vCPU's thread, for each
    /// program or erase of the flash.
    ///
    /// # Errors
    /// When they cannot be kept: the guest is told that its operation has failed.
    fn change(&self, offset: u64, bytes: &[u8]) -> std::io::Result<()>;
}

/// What firmware may boot from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootKind {
    /// Disks.
    Disk,
    /// CD-ROMs.
    Cdrom,
    /// Network cards.
    Net,
}

/// A disk of a machine.
pub struct DiskSpec {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// What the guest sees as its serial number; 20 bytes at most are kept.
    pub serial: String,
}

/// A network card of a machine.
pub struct NetSpec {
    /// Where its frames go.
    pub network: Arc<dyn Network>,
    /// The card.
    pub config: NetConfig,
    /// What the guest needs a driver for.
    pub model: NetModel,
}

/// A network card's model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NetModel {
    /// Virtio's.
    #[default]
    Virtio,
    /// Intel's 82540EM. Its interrupt is a pin: it goes with [`MachineSpec::legacy`], and does not
    /// come to a machine that runs.
    E1000,
}

impl MachineSpec {
    /// As many places as the bus has besides those of the board's own functions.
    pub const DISKS_MAX: usize = 24;

    /// A machine with nothing but what every machine has, and a serial port nobody listens to.
    pub fn new(profile: CpuProfile, memory_bytes: u64) -> Self {
        Self {
            profile,
            memory_bytes,
            hotplug: None,
            time: TimeSource::Host,
            rtc_start_unix_s: 0,
            dispatch: Dispatch::Inline,
            serial: Arc::new(Nobody),
            console: None,
            ports: Vec::new(),
            vsock: None,
            balloon: false,
            disks: Vec::new(),
            sata: Vec::new(),
            nvme: Vec::new(),
            nets: Vec::new(),
            entropy: None,
            describe_hpet: false,
            legacy: true,
            display: None,
            firmware: None,
            debugcon: None,
            debug_exit: false,
            testdev: false,
        }
    }
}

/// Listens to no byte.
struct Nobody;

impl ByteSink for Nobody {
    fn put(&self, _byte: u8) {}
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
    /// More disks than places.
    #[error("{0} disks given, but a VM has at most {max}", max = MachineSpec::DISKS_MAX)]
    Disks(usize),
    /// More disks and network cards than places.
    #[error(
        "{disks} disks and {nets} network cards given, but a VM has at most {max} together",
        max = MachineSpec::DISKS_MAX
    )]
    Places {
        /// Disks.
        disks: usize,
        /// Network cards.
        nets: usize,
    },
    /// The host has no descriptor for it.
    #[error("the host has no event descriptor for a device")]
    Event(#[source] std::io::Error),
    /// A disk or network card cannot be put in.
    #[error(transparent)]
    Plug(PlugError),
    /// Its BARs fit nowhere.
    #[error(transparent)]
    Bars(#[from] NoRoom),
    /// Two devices are at one address: our mistake.
    #[error("device '{device}' cannot be mapped")]
    Mapping {
        /// The device.
        device: &'static str,
        /// What is wrong.
        source: RangeError,
    },
}

/// Why a machine does not become what it shall be.
#[derive(Debug, thiserror::Error)]
pub enum PlugError {
    /// It was not built for it.
    #[error("the VM was started without hot-plug")]
    Fixed,
    /// Every slot is taken.
    #[error("no slot of the VM's bus is free: take a disk or network card away first")]
    Full,
    /// It is there already.
    #[error("the VM has a '{0}' already")]
    Name(String),
    /// There is none.
    #[error("the VM has no '{0}'")]
    Missing(String),
    /// More than it has place for, or fewer than there are.
    #[error("the VM has {now} CPUs and can have {most}")]
    Cpus {
        /// Now.
        now: u32,
        /// At most.
        most: u32,
    },
    /// More than it has place for, less than there is, or not whole blocks.
    #[error(
        "the VM has {} MiB and can have {} MiB, in steps of {} MiB",
        now >> 20, most >> 20, step >> 20
    )]
    Memory {
        /// Now.
        now: u64,
        /// At most.
        most: u64,
        /// A block.
        step: u64,
    },
    /// The host has no descriptor for it.
    #[error("the host has no event descriptor for a virtio device")]
    Event(#[source] std::io::Error),
}

/// Why what is to be booted cannot be put into memory.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An image is not what it must be.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// Memory cannot be made zero.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}
