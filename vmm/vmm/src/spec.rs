//! What VM is asked for, in the operator's terms.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;

use x86_state::CpuModel;

use net::{Forward, Mac, Rate};

use crate::{
    BootKind, CdromSpec, DiskSpec, EngineChoice, FirmwareSource, NetModel, OnReset, SeedSpec,
};

/// A VM, as an operator asks for it. Nothing is checked yet: [`launch`](crate::launch()) does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmSpec {
    /// Who executes its CPUs.
    pub engine: EngineChoice,
    /// How many CPUs.
    pub cpus: u32,
    /// How many there can be, if more can come.
    pub cpus_max: Option<u32>,
    /// What they are.
    pub cpu: CpuModel,
    /// RAM in bytes.
    pub memory_bytes: u64,
    /// How much there can be, if more can come.
    pub memory_bytes_max: Option<u64>,
    /// Disks and network cards can come and go.
    pub hotplug: bool,
    /// What it starts from. Without it, from the kernel; without both, from a BIOS.
    pub firmware: Option<FirmwareSource>,
    /// Where UEFI's variables are kept. Without it, they go with the VM.
    pub uefi_vars: Option<PathBuf>,
    /// What firmware is to boot from; empty leaves it to the firmware.
    pub boot_order: Vec<BootKind>,
    /// Where what firmware writes to its debug console goes.
    pub debugcon: ConsoleSpec,
    /// Kernel image.
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk of a Linux kernel.
    pub initrd: Option<PathBuf>,
    /// Modules of a Multiboot kernel.
    pub modules: Vec<ModuleSpec>,
    /// The kernel's command line.
    pub cmdline: String,
    /// Disks, in the order the guest sees them.
    pub disks: Vec<DiskSpec>,
    /// CD-ROM drives.
    pub cdroms: Vec<CdromSpec>,
    /// What the guest writes to any disk is thrown away at the end.
    pub snapshot: bool,
    /// What cloud-init in the guest is told at its first boot, on a disk behind the others.
    pub seed: Option<SeedSpec>,
    /// Network cards.
    pub nets: Vec<NetSpec>,
    /// Where the serial port goes.
    pub serial: ConsoleSpec,
    /// Where the virtio console goes; with [`ConsoleSpec::None`] there is no such device.
    pub console: ConsoleSpec,
    /// It has a display adapter, a keyboard and a pointer.
    pub display: bool,
    /// Where viewers of the display are let in.
    pub viewers: Vec<ViewerSpec>,
    /// Sockets between programs of the guest and the host.
    pub vsock: Option<VsockSpec>,
    /// There is a memory balloon.
    pub balloon: bool,
    /// There is a port for the guest's agent.
    pub agent: bool,
    /// The guest may end the run through port 0xf4.
    pub debug_exit: bool,
    /// The test device of bare-metal CPU tests.
    pub testdev: bool,
    /// Time follows from executed instructions.
    pub deterministic: bool,
    /// What a reset does. Without it, a VM that boots from firmware starts anew and another ends.
    pub on_reset: Option<OnReset>,
}

/// A place where viewers are let in, and the file with the password that they must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewerSpec {
    /// The place.
    pub place: rfb::Place,
    /// Its first line is the password.
    pub password_file: Option<PathBuf>,
}

/// A boot module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleSpec {
    /// The file.
    pub path: PathBuf,
    /// What the kernel is told about it.
    pub args: String,
}

/// A network card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetSpec {
    /// Where its frames go.
    pub to: NetworkSpec,
    /// Its address; without one it follows from what the VM is made of.
    pub mac: Option<Mac>,
    /// Limit on each direction.
    pub rate: Option<Rate>,
    /// The guest may send under any address.
    pub spoof: bool,
    /// Which card.
    pub model: NetModel,
}

/// A guest's sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VsockSpec {
    /// The guest's address.
    pub cid: u64,
    /// Where programs of the host connect; with `_PORT` after it, where those of the guest do.
    pub socket: PathBuf,
}

/// Where a network card's frames go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkSpec {
    /// To the outside with the host's addresses, and these ports of the host into the guest.
    User(Vec<Forward>),
    /// To a tap of this name.
    Tap(String),
    /// To a bridge of this name, through a tap that is made.
    Bridge(String),
}

/// Where a console goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsoleSpec {
    /// To and from the process's standard streams.
    Stdio,
    /// Into a file, which is made anew. Nothing comes back.
    File(PathBuf),
    /// Nowhere.
    None,
}

impl FromStr for NetSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let (mut mac, mut rate, mut spoof, mut model) = (None, None, false, NetModel::Virtio);
        let mut to = match parts.next().unwrap_or_default() {
            "user" => NetworkSpec::User(Vec::new()),
            other => match other.split_once('=') {
                Some(("tap", name)) => NetworkSpec::Tap(name.to_owned()),
                Some(("bridge", name)) => NetworkSpec::Bridge(name.to_owned()),
                _ => return Err("give user, tap=NAME, bridge=NAME or none".to_owned()),
            },
        };
        for part in parts {
            match (part.split_once('=').unwrap_or((part, "")), &mut to) {
                (("hostfwd", text), NetworkSpec::User(forwards)) => forwards.push(parsed(text)?),
                (("mac", text), _) => mac = Some(parsed(text)?),
                (("rate", text), _) => rate = Some(parsed(text)?),
                (("spoof", ""), _) => spoof = true,
                (("model", "virtio"), _) => model = NetModel::Virtio,
                (("model", "e1000"), _) => model = NetModel::E1000,
                (("model", _), _) => return Err("model is virtio or e1000".to_owned()),
                (("hostfwd", _), _) => return Err("only user has hostfwd=".to_owned()),
                _ => return Err(format!("'{part}' is not mac=, model=, rate=, hostfwd= or spoof")),
            }
        }
        Ok(Self { to, mac, rate, spoof, model })
    }
}

fn parsed<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}
